import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { CONTAINER_MOUNT, foldersIn, outermost, planContainer } from "./container.js";

const folder = mkdtempSync(join(tmpdir(), "miro-container-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
for (const name of ["image.sif", "image.sqsh", "data.tar"]) writeFileSync(join(folder, name), "");
mkdirSync(join(folder, "sandbox"));

const plan = (image: string, runtime?: "pyxis" | "apptainer") => planContainer({ image, runtime }, [], []);

it.each([
  [join(folder, "image.sif"), "apptainer"],
  [join(folder, "sandbox"), "apptainer"],
  ["docker://ghcr.io/me/miro:1", "apptainer"],
  ["oras://ghcr.io/me/miro:1", "apptainer"],
  [join(folder, "image.sqsh"), "pyxis"],
  ["ghcr.io#me/miro:1", "pyxis"],
  ["ubuntu:24.04", "pyxis"],
] as const)("%s is started by %s unless another is named", (image, runtime) => {
  expect(plan(image)).toMatchObject({ runtime, image });
});

it("takes the runtime that is named, where it can read the image", () => {
  expect(plan("docker://ghcr.io/me/miro:1", "pyxis").runtime).toBe("pyxis");
  expect(plan(join(folder, "image.sqsh"), "apptainer").runtime).toBe("apptainer");
  expect(() => plan(join(folder, "image.sif"), "pyxis")).toThrow(
    /containerRuntime: expected apptainer for .*image\.sif/,
  );
  expect(() => plan(join(folder, "none.sif"))).toThrow(/none\.sif: no such image/);
  expect(() => plan("./none")).toThrow(/\.\/none: no such image/);
});

it("mounts folders at their own places, those inside of others once", () => {
  expect(outermost(["/a/b", "/a", "/ab", "/a", "/..c"])).toEqual(["/a", "/ab", "/..c"]);
  const { mounts } = planContainer({ image: "x", runtime: undefined }, ["/a/b", "/a"], ["/c", "/d:/e:ro"]);
  expect(mounts).toEqual(["/a:/a", "/c:/c", "/d:/e:ro"]);
  expect(() => planContainer({ image: "x", runtime: undefined }, ["/a,/etc"], [])).toThrow(/a colon, a comma/);
});

it("finds the folders that a recipe names and that exist", () => {
  const recipe = {
    data: { dir: folder, root: ["cc12m", "/nowhere"] },
    from: join(folder, "data.tar"),
    p: ["/", "a fox"],
  };
  expect(foldersIn(recipe)).toEqual([folder, folder]);
});

it.each(["/a", "/a:/b", "/a:/b:ro", "/a b:/c"])("takes %s for a mount", (mount) => {
  expect(mount).toMatch(CONTAINER_MOUNT);
});

it.each(["a", "/a:b", "/a,/b", "/a:/b:exec", "/a\n", "/a:/b:ro,/etc:/etc", ""])("takes %j for no mount", (mount) => {
  expect(mount).not.toMatch(CONTAINER_MOUNT);
});
