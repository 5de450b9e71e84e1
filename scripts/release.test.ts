// What is published: the same bytes for the same content, nothing of the development, one version for all.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newerSymbols, OLDEST, tooNew } from "./release/addon.mjs";
import { declaredOptions, publishedDeclaration } from "./release/declarations.mjs";
import {
  ADDON_PACKAGE,
  addonPackage,
  cudaPackage,
  isCompiled,
  LIBTORCH_PACKAGE,
  miroPackage,
  torchPackage,
} from "./release/packages.mjs";
import { packPackage } from "./release/tarball.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const json = (file: string) => JSON.parse(readFileSync(path.join(root, file), "utf8"));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "release "));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("a tarball", () => {
  test("depends on names and contents alone, not on times, modes or order", async () => {
    const file = path.join(folder, "a.txt");
    writeFileSync(file, "content");
    const one = path.join(folder, "one.tgz");
    const other = path.join(folder, "other.tgz");
    const long = `dist/${"deep/".repeat(30)}index.js`;
    const entries: [string, object][] = [
      ["a.txt", { file }],
      [long, { content: "export {};\n" }],
      ["bin/run.mjs", { content: "#!/usr/bin/env node\n" }],
    ];
    const first = await packPackage(one, new Map(entries));
    utimesSync(file, 1, 1);
    chmodSync(file, 0o600);
    expect(await packPackage(other, new Map(entries.toReversed()))).toEqual(first);
    expect(readFileSync(other).equals(readFileSync(one))).toBe(true);
    const listing = execFileSync("tar", ["-tvf", one], { encoding: "utf8" }).trim().split("\n");
    expect(listing.map((line) => line.split(/\s+/).at(-1))).toEqual([
      "package/a.txt",
      "package/bin/run.mjs",
      `package/${long}`,
    ]);
    expect(listing.map((line) => line.slice(0, 10))).toEqual(["-rw-r--r--", "-rwxr-xr-x", "-rw-r--r--"]);
    expect(gunzipSync(readFileSync(one)).includes("content")).toBe(true);
  });

  test("is the earlier one where it cannot be written to its end", async () => {
    const target = path.join(folder, "one.tgz");
    const [kept, lost] = ["kept", "lost"].map((name) => path.join(folder, name)) as [string, string];
    for (const file of [kept, lost]) writeFileSync(file, "content");
    await packPackage(target, new Map([["a.txt", { file: kept }]]));
    const before = readFileSync(target);
    const packing = packPackage(
      target,
      new Map([
        ["a.txt", { file: kept }],
        ["b.txt", { file: lost }],
      ]),
    );
    rmSync(lost);
    await expect(packing).rejects.toThrow(/ENOENT/);
    expect(readFileSync(target).equals(before)).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(["kept", "one.tgz"]);
  });
});

describe("packages of JavaScript", () => {
  let packages: { name: string; version: string; entries: Map<string, { file?: string; content?: string }> }[];
  beforeAll(async () => {
    packages = [torchPackage({ root }), await miroPackage({ root })];
  });
  test("hold no tests, maps, sources or notes of the build, and name no map", () => {
    for (const { entries } of packages) {
      for (const [name, { content }] of entries) {
        expect(name).not.toMatch(/\.test\.|\.map$|\/testing\/|tsbuildinfo|^src\//);
        if (/^dist\/.*\.js$/.test(name)) expect(content, name).not.toContain("sourceMappingURL");
      }
    }
  });
  test("hold of dist/ what has a source, not what tsc left of files that were moved", () => {
    const home = mkdtempSync(path.join(tmpdir(), "miro-dist-"));
    try {
      mkdirSync(path.join(home, "src", "a"), { recursive: true });
      writeFileSync(path.join(home, "src", "a", "b.ts"), "");
      const names = ["dist/a/b.js", "dist/a/b.d.ts", "dist/b.js", "dist/a/c.d.ts"];
      expect(names.map((name) => isCompiled(home, name))).toEqual([true, true, false, false]);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
    for (const [i, folder] of ["packages/torch", "packages/miro"].entries()) {
      const compiled = [...packages[i]!.entries.keys()].filter((name) => /^dist\/.*\.(js|d\.ts)$/.test(name));
      for (const name of compiled) expect(isCompiled(path.join(root, folder), name), name).toBe(true);
    }
  });
  test("hold README and licence, no install script, and what the program needs beside its code", () => {
    for (const { entries, name } of packages) {
      for (const file of ["package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts"]) {
        expect([...entries.keys()], name).toContain(file);
      }
      expect(JSON.parse(entries.get("package.json")!.content!).scripts ?? {}).toEqual({});
    }
    const miro = packages[1]!.entries;
    for (const file of [
      "THIRD_PARTY_NOTICES.md",
      "bin/miro.mjs",
      "man/miro.1",
      "datasets/text_prompt_testbed/metadata.csv",
      "models/miro-emoji/model.safetensors",
      "models/miro-emoji/vae/config.json",
      "recipes/emoji.yaml",
      "web/index.html",
    ]) {
      expect([...miro.keys()]).toContain(file);
    }
    expect([...miro.keys()].some((name) => name.startsWith("recipes/base/"))).toBe(true);
  });
  test("show callers the comments of all options, and name Node's types where they use them", () => {
    let commented = 0;
    for (const [name, { content }] of packages.flatMap(({ entries }) => [...entries])) {
      if (!name.endsWith(".d.ts")) continue;
      if (/^(?! *\*).*\bBuffer\b/m.test(content!)) expect(content, name).toMatch(/^\/\/\/ <reference types="node" \/>/);
      const source = path.join(root, "packages/miro/src", name.replace(/^dist\/(.*)\.d\.ts$/, "$1.ts"));
      if (!existsSync(source) || !content!.includes(": z.ZodObject<{\n")) continue;
      for (const [schema, { comments }] of declaredOptions(readFileSync(source, "utf8"))) {
        if (!content!.includes(`const ${schema}: z.ZodObject<{`)) continue;
        for (const lines of comments.values()) {
          expect(content, `${name}: ${schema}`).toContain(lines.map((line: string) => `    ${line}\n`).join(""));
          commented++;
        }
      }
    }
    expect(commented).toBeGreaterThan(100);
  });
  test("have one version, and depend on each other by exactly that", () => {
    const addon = addonPackage({ root, addon: path.join(root, "LICENSE"), torchVersion: "2.13.0" });
    const { version } = json("packages/miro/package.json");
    const cuda = cudaPackage({ root, addon: path.join(root, "LICENSE"), torchVersion: "2.13.0", cuda: "13.0" });
    expect([...packages, addon, cuda].map((one) => one.version)).toEqual([version, version, version, version]);
    const manifestOf = (one: (typeof packages)[number]) => JSON.parse(one.entries.get("package.json")!.content!);
    expect(manifestOf(packages[0]!).optionalDependencies).toEqual({ [ADDON_PACKAGE]: version });
    expect(manifestOf(packages[1]!).dependencies["@miro-t2i/torch"]).toBe(version);
    expect(manifestOf(addon).dependencies).toEqual({ [LIBTORCH_PACKAGE]: version });
    expect(manifestOf(addon)).toMatchObject({ os: ["linux"], cpu: ["x64"], libc: ["glibc"], libtorch: "2.13.0" });
    // The user has libtorch for CUDA: nothing would install another.
    expect(manifestOf(cuda)).toMatchObject({ os: ["linux"], cpu: ["x64"], libtorch: "2.13.0", cuda: "13.0" });
    expect(manifestOf(cuda)).not.toHaveProperty("dependencies");
  });
});

test("the comment of an option is found in its schema, and in one that is spread into it", () => {
  const source = [
    "const base = z.strictObject({",
    "  /** How many. */",
    "  count: field(z.int(), {}),",
    "});",
    "export const all = z.strictObject({",
    "  /**",
    "   * What it is called:",
    "   * a word.",
    "   */",
    "  name: field(",
    "    z.object({",
    "      /** not an option */",
    "      inside: z.int(),",
    "    }),",
    "    {},",
    "  ),",
    "  ...base.shape,",
    "  plain: z.int(),",
    "});",
    "export const other = z.strictObject({ ...all.shape });",
  ].join("\n");
  const declaration = (name: string) =>
    [
      `export declare const ${name}: z.ZodObject<{`,
      "    name: z.ZodObject<{",
      "        inside: z.ZodInt;",
      "    }, z.core.$strip>;",
      "    plain: z.ZodInt;",
      "    count: z.ZodInt;",
      "}, z.core.$strict>;",
      "export declare function count(plain: AbortSignal): void;",
      "",
    ].join("\n");
  for (const name of ["all", "other"])
    expect(publishedDeclaration(declaration(name), declaredOptions(source))).toBe(
      [
        '/// <reference types="node" />',
        `export declare const ${name}: z.ZodObject<{`,
        "    /**",
        "     * What it is called:",
        "     * a word.",
        "     */",
        "    name: z.ZodObject<{",
        "        inside: z.ZodInt;",
        "    }, z.core.$strip>;",
        "    plain: z.ZodInt;",
        "    /** How many. */",
        "    count: z.ZodInt;",
        "}, z.core.$strict>;",
        "export declare function count(plain: AbortSignal): void;",
        "",
      ].join("\n"),
    );
  expect(publishedDeclaration("export declare const one: number;\n", new Map())).toBe(
    "export declare const one: number;\n",
  );
});

describe("symbols of a newer system", () => {
  const line = (version: string, name: string) =>
    `0000000000000000      DF *UND*\t0000000000000000 (${version}) ${name}`;
  test("are found, each by its own library's versions", () => {
    const table = [
      line("GLIBC_2.28", "fcntl64"),
      line("GLIBC_2.34", "dlopen"),
      line("GLIBC_2.4", "__stack_chk_fail"),
      line("GLIBCXX_3.4.22", "_ZNSt6thread6_StateD2Ev"),
      line("GLIBCXX_3.4.30", "_ZSt21__glibcxx_assert_fail"),
      line("CXXABI_1.3.13", "__cxa_x"),
      "0000000000001000 g    DF .text\t0000000000000010  GLIBC_9.9  own",
    ].join("\n");
    expect(newerSymbols(table, OLDEST)).toEqual([
      "_ZSt21__glibcxx_assert_fail (GLIBCXX_3.4.30)",
      "__cxa_x (CXXABI_1.3.13)",
      "dlopen (GLIBC_2.34)",
    ]);
  });

  // On a newer system than the release is made on, its headers ask for more.
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  const [, minor = Number.NaN] = (header.glibcVersionRuntime ?? "").split(".").map(Number);
  test.skipIf(!(minor <= 36))("that the addon asks for all have an old version in the released one", () => {
    const shims = ["h", "c"].map((ending) =>
      readFileSync(path.join(root, `scripts/release/old-glibc.${ending}`), "utf8"),
    );
    const replaced = [...shims.join("\n").matchAll(/\.symver (\w+),|\)\) (?:int|char) (\w+)/g)].map(
      (m) => m[1] ?? m[2],
    );
    const asked = tooNew(path.join(root, "packages/torch/build/miro_torch.node")).map((symbol) => symbol.split(" ")[0]);
    expect(asked.filter((name) => !replaced.includes(name))).toEqual([]);
  });
});
