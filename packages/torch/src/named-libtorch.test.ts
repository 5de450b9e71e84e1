// Which libtorch a packaged addon takes from the environment, and which are refused.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadNamedLibtorch } from "./named-libtorch.js";

const scratch = mkdtempSync(join(tmpdir(), "named "));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const write = (name: string, content = "") => {
  const file = join(scratch, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
};
const packaged = write("package/miro_torch.node");
write("package/package.json", JSON.stringify({ name: "@miro-t2i/torch-linux-x64-gnu", libtorch: "2.13.0" }));
const forCuda = write("cuda-package/miro_torch.node");
write(
  "cuda-package/package.json",
  JSON.stringify({ name: "@miro-t2i/torch-linux-x64-cuda", libtorch: "2.13.0", cuda: "13.0" }),
);

/** A folder of libtorch as Python's torch, or as an archive, has it. */
function libtorch(name: string, version: [number, number, number] | string | null, ...more: string[]): string {
  for (const file of ["libc10.so", "libtorch_cpu.so", "libtorch.so", ...more]) write(`${name}/lib/${file}`);
  if (typeof version === "string") write(`${name}/build-version`, `${version}\n`);
  else if (version) {
    const [major, minor, patch] = version;
    const text = `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`;
    write(`${name}/include/torch/headeronly/version.h`, text);
  }
  return join(scratch, name);
}
function loaded(env: Record<string, string>, addon = packaged): string[] {
  const files: string[] = [];
  loadNamedLibtorch(addon, { env, load: (file) => void files.push(file) });
  return files;
}

describe("the libtorch that is named", () => {
  const right = libtorch("right", [2, 13, 1]);
  const archive = libtorch("archive", "2.13.0+cpu");

  test("is loaded library by library, and MIRO_LIBTORCH before LIBTORCH", () => {
    const files = ["libc10.so", "libtorch_cpu.so", "libtorch.so"];
    expect(loaded({ LIBTORCH: right })).toEqual(files.map((name) => join(right, "lib", name)));
    expect(loaded({ LIBTORCH: right, MIRO_LIBTORCH: archive })).toEqual(
      files.map((name) => join(archive, "lib", name)),
    );
  });

  test("is not looked at where none is named, or a clone has built the addon for its own", () => {
    expect(loaded({ LIBTORCH: "" })).toEqual([]);
    expect(loaded({ LIBTORCH: join(scratch, "none") }, write("clone/build/miro_torch.node"))).toEqual([]);
  });

  test.each([
    ["no libtorch", write("empty/readme").replace("/readme", ""), /no folder of libtorch: lib\/libc10\.so is missing/],
    [
      "another version",
      libtorch("old", [2, 11, 0]),
      /, libtorch 2\.11\.0; the installed addon was compiled for 2\.13\.0/,
    ],
    ["no version", libtorch("bare", null), /unknown version: include\/torch\/headeronly\/version\.h is missing/],
  ])("is refused for %s, with what to do", (_, folder, reason) => {
    expect(() => loaded({ LIBTORCH: folder })).toThrow(reason);
    expect(() => loaded({ LIBTORCH: folder })).toThrow(
      new RegExp(`^LIBTORCH names ${folder}, .*name the folder of another libtorch 2\\.13, or unset LIBTORCH`),
    );
  });

  describe("for CUDA, by the addon that was compiled for it,", () => {
    const parts = ["libc10_cuda.so", "libtorch_cuda.so"];
    const archive = libtorch("cuda archive", "2.13.1+cu132", ...parts);
    const wheel = libtorch("cuda wheel", [2, 13, 0], ...parts);
    write("cuda wheel/version.py", "__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = '13.0'\nhip = None\n");

    test("is loaded with CUDA's libraries, where its CUDA is of the same major version", () => {
      const files = ["libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so", "libtorch.so"];
      for (const folder of [archive, wheel])
        expect(loaded({ LIBTORCH: folder }, forCuda)).toEqual(files.map((name) => join(folder, "lib", name)));
    });

    test.each([
      [
        "a part of it",
        libtorch("half", "2.13.0+cu130", parts[1]!),
        /no folder of libtorch: lib\/libc10_cuda\.so is missing/,
      ],
      [
        "another CUDA",
        libtorch("cuda 12", "2.13.0+cu126", ...parts),
        /for CUDA 12\.6; the addon was compiled for 13\.0/,
      ],
      [
        "an unknown CUDA",
        libtorch("cuda ?", [2, 13, 0], ...parts),
        /for an unknown CUDA; the addon was compiled for 13\.0/,
      ],
      ["another version", libtorch("cuda old", "2.11.0+cu130", ...parts), /, libtorch 2\.11\.0; the installed addon/],
    ])("is refused for %s, with what to do", (_, folder, reason) => {
      expect(() => loaded({ LIBTORCH: folder }, forCuda)).toThrow(reason);
      expect(() => loaded({ LIBTORCH: folder }, forCuda)).toThrow(
        "name the folder of a libtorch 2.13 for CUDA 13, or unset LIBTORCH to compute on the CPU",
      );
    });
  });

  test("that the loader refuses is an error that says why", () => {
    const load = () => {
      throw new Error("version `GLIBC_2.99' not found");
    };
    expect(() => loadNamedLibtorch(packaged, { env: { LIBTORCH: right }, load })).toThrow(
      /lib\/libc10\.so cannot be loaded: version `GLIBC_2\.99' not found/,
    );
  });
});
