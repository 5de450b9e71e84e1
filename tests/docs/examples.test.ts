/**
 * Every example of the documentation does what its page says: it is run, as a reader would, and ends without an error.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { transformWithOxc } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { diffParts, type Example, examplesOf, examplesOfSource } from "./examples.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
/** Pages that point to others, or whose commands take long or need what a test has not. */
const WITHOUT_EXAMPLES = ["README.md", "architecture.md", "benchmarks.md"];
const pages = readdirSync(join(root, "docs")).filter(
  (name) => name.endsWith(".md") && !WITHOUT_EXAMPLES.includes(name),
);
const miro = join(root, "packages/miro/bin/miro.mjs");

describe.each(["architecture.md", "contributing.md"])("docs/%s", (page) => {
  it("names files that exist", () => {
    const sources = ["packages/torch", "packages/miro/src", "tests", "scripts"].flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((file) => `/${folder}/${file}`),
    );
    const named = [...readFileSync(join(root, "docs", page), "utf8").matchAll(/`([\w./-]+\.(?:ts|mjs|jsonl|cpp))`/g)];
    const placeholders = ["x.ts", "x.test.ts", "flow/samplers/NAME.ts"];
    const missing = named
      .map(([, name]) => name!)
      .filter((name) => !placeholders.includes(name) && !sources.some((file) => file.endsWith(`/${name}`)))
      .filter((name) => !existsSync(join(root, name)));
    expect(missing).toEqual([]);
  });
});

describe.each(pages)("docs/%s", (page) => {
  const examples = examplesOf(readFileSync(join(root, "docs", page), "utf8"));
  let folder: string;
  // The blocks of a page build on each other: one folder for all, in which the clone's own folders are found.
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "miro-docs-"));
    for (const name of ["models", "recipes", "datasets", "node_modules", "package.json", "tests"])
      symlinkSync(join(root, name), join(folder, name));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("has examples", () => {
    expect(examples.filter(({ notRun }) => notRun === null).length).toBeGreaterThan(0);
  });

  it("changes files that are as its diffs say", () => {
    for (const { file, lines, line } of diffParts(readFileSync(join(root, "docs", page), "utf8")))
      expect(readFileSync(join(root, file), "utf8"), `${page}:${line}: ${file}`).toContain(`${lines.join("\n")}\n`);
  });

  it.each(examples.filter(({ notRun }) => notRun === null).map((example) => [example.line, example] as const))(
    "line %i",
    async (_, example) => {
      const { code, output } = await runExample(example, folder);
      expect(code, output).toBe(0);
    },
    300_000,
  );
});

/** Runs a block in a folder; `npx miro` and `miro` mean this clone's. */
async function runExample(
  { language, code, line }: Example,
  folder: string,
): Promise<{ code: number; output: string }> {
  if (language === "sh") {
    const prelude = `npx() { case "$1" in miro|miro-t2i) shift ;; esac; node "${miro}" "$@"; }; miro() { node "${miro}" "$@"; }\n`;
    return run("bash", ["-euo", "pipefail", "-c", prelude + code], folder);
  }
  const file = join(folder, `example-${line}.mjs`);
  const { code: js } = await transformWithOxc(code, `example-${line}.ts`, { target: "node20" });
  writeFileSync(file, js);
  return run(process.execPath, [file], folder);
}

function run(command: string, args: readonly string[], cwd: string): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    // Settings files are those that the examples write.
    const env = { ...process.env, CI: "true", MIRO_CONFIG: undefined, XDG_CONFIG_HOME: join(cwd, "no settings") };
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (part: Buffer) => {
        output += part;
      });
    }
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? -1, output }));
  });
}

/** Source files with examples for those who import `miro-t2i`. */
const sources = readdirSync(join(root, "packages/miro/src"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
  .map((name) => ({ name, examples: examplesOfSource(readFileSync(join(root, "packages/miro/src", name), "utf8")) }))
  .filter(({ examples }) => examples.length > 0);

describe("@example of packages/miro/src", () => {
  let folder: string;
  const moduleOf = (name: string, line: number) => `${name.replace(/\.ts$/, "").replaceAll("/", "-")}-${line}`;
  // All are compiled at once, and their types checked against what the package declares.
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "miro-examples-"));
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
    // Who calls for one picture need not ask whether the list of pictures has a first one.
    const compilerOptions = { composite: false, noUncheckedIndexedAccess: false };
    const config = { extends: join(root, "tsconfig.base.json"), compilerOptions };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
    for (const { name, examples } of sources)
      for (const { code, line } of examples) writeFileSync(join(folder, `${moduleOf(name, line)}.ts`), code);
    const tsc = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc")], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(tsc.stdout + tsc.stderr).toBe("");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("stand at the twenty names that people meet first", () => {
    expect(sources.flatMap(({ examples }) => examples).length).toBeGreaterThanOrEqual(20);
  });

  it.each(sources.map(({ name, examples }) => [name, examples] as const))(
    "%s",
    async (name, examples) => {
      const modules = examples.map(({ line }) => `await import("./${moduleOf(name, line)}.js");`);
      const { code, output } = await run(process.execPath, ["--input-type=module", "-e", modules.join("\n")], folder);
      expect(code, output).toBe(0);
    },
    300_000,
  );
});
