// Where the addon is looked for, and what is said where there is none.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type AddonSurroundings, addonFile, loadAdvice } from "./addon-file.js";

let home: string;
beforeEach(() => {
  home = join(mkdtempSync(join(tmpdir(), "addon ")), "node_modules", "torch");
  write("package.json", JSON.stringify({ name: "@miro-t2i/torch", version: "1.2.3" }));
});
afterEach(() => rmSync(dirname(dirname(home)), { recursive: true, force: true }));

const write = (name: string, content = "") => {
  const file = join(home, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
};
const here = (changes: Partial<AddonSurroundings> = {}): AddonSurroundings => ({
  home,
  platform: "linux",
  arch: "x64",
  glibc: () => "2.36",
  env: {},
  resolve: (name) => {
    throw new Error(`Cannot find module '${name}'`);
  },
  ...changes,
});

/** A folder of libtorch for CUDA. */
const cuda = () => dirname(dirname(write("elsewhere/lib/libtorch_cuda.so")));

describe("the addon is", () => {
  test("the one that a clone has built, before all", () => {
    const built = write("build/miro_torch.node");
    expect(addonFile(here({ resolve: () => "/elsewhere" }))).toBe(built);
  });
  test("that of the platform's package", () => {
    expect(addonFile(here({ resolve: (name) => `/packages/${name}` }))).toBe(
      "/packages/@miro-t2i/torch-linux-x64-gnu/miro_torch.node",
    );
  });
  test("for a libtorch with CUDA that a variable names, that of another package", () => {
    const of = (env: Record<string, string>) => addonFile(here({ env, resolve: (name) => `/packages/${name}` }));
    const other = "/packages/@miro-t2i/torch-linux-x64-cuda/miro_torch.node";
    expect(of({ LIBTORCH: cuda() })).toBe(other);
    expect(of({ LIBTORCH: home, MIRO_LIBTORCH: cuda() })).toBe(other);
    expect(of({ LIBTORCH: cuda(), MIRO_LIBTORCH: home })).not.toBe(other);
  });
});

describe("where there is none, the message says what to do", () => {
  test("in a clone", () => {
    write("../../scripts/setup.mjs");
    expect(() => addonFile(here())).toThrow(/not built.*run "node scripts\/setup.mjs" in the clone/);
  });
  test("where optional dependencies were left out", () => {
    expect(() => addonFile(here())).toThrow(/torch-linux-x64-gnu is not installed.*npm install --include=optional/);
  });
  test("where a variable names a libtorch for CUDA, whose addon is a package of its own", () => {
    expect(() => addonFile(here({ env: { LIBTORCH: cuda() } }))).toThrow(
      `LIBTORCH names ${cuda()}, a libtorch for CUDA, and the addon for it is not installed; run \`npm install ` +
        "@miro-t2i/torch-linux-x64-cuda@1.2.3`, or unset LIBTORCH",
    );
    expect(() => addonFile(here({ arch: "arm64", env: { LIBTORCH: cuda() } }))).toThrow("from a clone");
  });
  test.each([
    ["linux", "arm64", "linux arm64"],
    ["darwin", "arm64", "darwin arm64"],
    ["win32", "x64", "win32 x64"],
  ])("on %s %s, which has no package", (platform, arch, named) => {
    expect(() => addonFile(here({ platform, arch }))).toThrow(
      `no prebuilt native addon for ${named}, only for Linux x64`,
    );
    expect(() => addonFile(here({ platform, arch }))).toThrow("from a clone");
  });
  test("with another C library than glibc", () => {
    expect(() => addonFile(here({ glibc: () => null }))).toThrow("linux x64 without glibc (musl)");
  });
  test("in a bundle", () => {
    write("package.json", JSON.stringify({ name: "somebody-elses" }));
    expect(() => addonFile(here())).toThrow(/was bundled.*external/);
  });
});

test.each([
  ["libtorch_cpu.so: cannot open shared object file: No such file or directory", "install again"],
  ["/lib/libc.so.6: version `GLIBC_2.28' not found", "glibc 2.28"],
  ["miro_torch.node: undefined symbol: _ZN2at4_ops3add4callE", "LD_LIBRARY_PATH"],
  ["invalid ELF header", "install again"],
])("an installed addon that cannot be loaded: %s", (reason, advice) => {
  expect(loadAdvice(home, reason)).toContain(advice);
});

test("a built addon that cannot be loaded is to be built again", () => {
  write("build/miro_torch.node");
  expect(loadAdvice(home, "undefined symbol: x")).toContain("scripts/setup.mjs");
});
