import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runtimeFiles } from "./runtime-files.js";
import { nodePath, packRuntime, planStagingOf, type Staging, stagedScript } from "./staging.js";

const root = realpathSync(mkdtempSync(join(tmpdir(), "miro staging's ")));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function write(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, mode);
}

/**
 * An installation as pnpm makes it, with a Node that says what it is given, and a libtorch beside a CUDA as pip makes
 * them.
 */
const store = join(root, "app/node_modules/.pnpm");
const home = join(store, "miro-t2i/node_modules/miro-t2i");
const node = join(root, "elsewhere/node-22");
const libtorch = join(root, "site-packages/torch/lib/libtorch_cpu.so");
beforeAll(() => {
  write(join(home, "package.json"), '{"dependencies": {"zod": "1"}, "optionalDependencies": {"windows-only": "1"}}');
  write(join(home, "bin/miro.mjs"), "miro");
  write(join(home, "dist/index.d.ts"), "types");
  const zod = join(store, "zod/node_modules/zod");
  write(join(zod, "package.json"), "{}");
  write(join(zod, "index.js"), "zod");
  symlinkSync(zod, join(store, "miro-t2i/node_modules/zod")); // absolute, as `npm link` makes them
  write(node, '#!/bin/sh\n[ "$1" = --version ] || printf "%s\\n" "$LD_LIBRARY_PATH" "$@"\n', 0o755);
  write(libtorch, "library");
  write(join(root, "site-packages/torch/lib/libtorch.a"), "static");
  write(join(root, "site-packages/nvidia/cu13/lib/libcudart.so.13"), "cuda");
  write(join(root, "site-packages/nvidia/cu13/include/cuda.h"), "header");
});

const plan = (stageTo: string, folder: string) =>
  planStagingOf(runtimeFiles(home, node, libtorch), nodePath(stageTo)!, folder);

/** Packs a runtime and writes the script of the nodes. */
async function packed(name: string, disk = join(root, name, "disk")): Promise<Staging & { disk: string }> {
  const folder = join(root, name);
  mkdirSync(folder, { recursive: true });
  const staging = plan(disk, folder);
  await packRuntime(staging);
  write(staging.script, stagedScript(staging));
  return { ...staging, disk };
}

const run = ({ script }: Staging, ...args: string[]) =>
  spawnSync("bash", [script, ...args], { encoding: "utf8", env: { PATH: process.env.PATH } });

const own = (disk: string) => join(disk, `miro-${process.getuid!()}`);

it("an archive is not packed once that is to stop, and nothing of it is left", async () => {
  const folder = join(root, "stopped");
  mkdirSync(folder);
  await expect(packRuntime(plan("/disk", folder), AbortSignal.abort())).rejects.toMatchObject({ name: "AbortError" });
  expect(readdirSync(folder)).toEqual([]);
});

describe("the files of a runtime", () => {
  it("are Node, the package with what it needs, and the libraries", () => {
    const { files, ...places } = runtimeFiles(home, node, libtorch);
    const targets = files.map(({ target, link }) => (link === undefined ? target : `${target} -> ${link}`));
    expect(targets.sort()).toEqual([
      "app/miro-t2i/node_modules/miro-t2i/bin/miro.mjs",
      "app/miro-t2i/node_modules/miro-t2i/package.json",
      "app/miro-t2i/node_modules/zod -> ../../zod/node_modules/zod",
      "app/zod/node_modules/zod/index.js",
      "app/zod/node_modules/zod/package.json",
      "bin/node",
      "libtorch/nvidia/cu13/lib/libcudart.so.13",
      "libtorch/torch/lib/libtorch_cpu.so",
    ]);
    expect(places).toEqual({
      node: "bin/node",
      miro: "app/miro-t2i/node_modules/miro-t2i/bin/miro.mjs",
      libraries: "libtorch/torch/lib",
    });
  });

  it("of this clone are those that run: no sources, no tests, no development dependencies", () => {
    const clone = fileURLToPath(new URL("../../../", import.meta.url));
    const { files } = runtimeFiles(clone, node, libtorch);
    const targets = new Set(files.map(({ target }) => target));
    for (const path of [
      "packages/miro/bin/miro.mjs",
      "packages/miro/dist/cli/main.js",
      "packages/torch/build/miro_torch.node",
      "node_modules/@miro-t2i/torch",
      "node_modules/zod/package.json",
    ])
      expect(targets, path).toContain(`app/${path}`);
    const superfluous = [...targets].filter((path) =>
      /\.ts$|\.test\.js$|node_modules\/(typescript|vite|vitest)\//.test(path),
    );
    expect(superfluous).toEqual([]);
  });
});

describe("a copy on a node", () => {
  it("is made once, runs, and is used again while it is whole", async () => {
    const staging = await packed("once");
    expect(run(staging)).toMatchObject({ status: 0, stdout: "", stderr: "" });
    const copy = join(own(staging.disk), staging.digest);
    const ran = run(staging, "train", "a b", "$HOME");
    expect(ran.stdout.split("\n").slice(0, -1)).toEqual([
      join(copy, "libtorch/torch/lib"),
      join(copy, staging.miro),
      ...["train", "a b", "$HOME"],
    ]);
    expect(readFileSync(join(copy, "app/miro-t2i/node_modules/zod/index.js"), "utf8")).toBe("zod");
    expect(statSync(own(staging.disk)).mode & 0o777).toBe(0o700);

    rmSync(staging.archive);
    expect(run(staging)).toMatchObject({ status: 0, stderr: "" });
  });

  it("is made anew when something has taken parts of it, or an earlier unpacking was killed", async () => {
    const staging = await packed("parts");
    const copy = join(own(staging.disk), staging.digest);
    mkdirSync(`${copy}.killed/app`, { recursive: true });
    expect(run(staging).status).toBe(0);
    rmSync(join(copy, "libtorch/torch/lib/libtorch_cpu.so"));
    expect(run(staging)).toMatchObject({ status: 0, stderr: "" });
    expect(existsSync(join(copy, "libtorch/torch/lib/libtorch_cpu.so"))).toBe(true);
    expect(readdirSync(own(staging.disk)).sort()).toEqual([staging.digest, "lock"].sort());
  });

  it("is made by one of several jobs that begin at once", async () => {
    const staging = await packed("together");
    const ended = Array.from({ length: 4 }, () => {
      const child = spawn("bash", [staging.script], { stdio: "ignore" });
      return new Promise((resolve) => child.once("close", resolve));
    });
    expect(await Promise.all(ended)).toEqual([0, 0, 0, 0]);
    expect(readdirSync(own(staging.disk)).sort()).toEqual([staging.digest, "lock"].sort());
  });

  it("is not made in a folder that leads elsewhere", async () => {
    const staging = await packed("planted");
    mkdirSync(staging.disk);
    mkdirSync(join(root, "planted/elsewhere"));
    symlinkSync(join(root, "planted/elsewhere"), own(staging.disk));
    expect(run(staging)).toMatchObject({ status: 1, stderr: expect.stringMatching(/belongs to somebody else/) });
    expect(readdirSync(join(root, "planted/elsewhere"))).toEqual([]);
  });

  it("says which variable a node does not set", async () => {
    const folder = join(root, "variable");
    mkdirSync(folder);
    const staging = plan("$SLURM_TMPDIR/x", folder);
    write(staging.script, stagedScript(staging));
    expect(run(staging)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/SLURM_TMPDIR: is not set on this node/),
    });
  });
});

describe("the folder of a copy", () => {
  it.each([
    ["/tmp", "/tmp"],
    ["/tmp/it's $HOME", "/tmp/it's $HOME"],
    ["$DISK", "/the disk"],
    ["$\u007bDISK}/a $(id)", "/the disk/a $(id)"],
  ])("%s is %s on the nodes", (text, folder) => {
    const said = execFileSync("bash", ["--norc", "-c", `printf %s ${nodePath(text)}`], { env: { DISK: "/the disk" } });
    expect(said.toString()).toBe(folder);
  });

  it.each(["tmp", "$(id)", "$DISK$(id)", "/tmp\n", "$\u007bDISK:-$(id)}", "`id`", "", "$1"])("is not %j", (text) => {
    expect(nodePath(text)).toBeNull();
  });
});
