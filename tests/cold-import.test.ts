/** What an import costs before anything is computed: no native code, and a bounded amount of JavaScript. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/** Imports a package in a process of its own; counts are of files, so that a busy machine changes nothing. */
const PROGRAM = `
import { Session } from "node:inspector";
const session = new Session();
session.connect();
let modules = 0;
let characters = 0;
const own = [];
session.on("Debugger.scriptParsed", ({ params }) => {
  if (!/^(file:|\\/)/.test(params.url)) return;
  modules++;
  characters += params.length;
  if (params.url.includes("/packages/miro/dist/")) own.push(params.url.split("/packages/miro/dist/")[1]);
});
session.post("Debugger.enable");
await import(process.argv[1]);
session.disconnect();
const native = process.report.getReport().sharedObjects.filter((path) => /\\.node$|libtorch|libvips/.test(path));
console.log(JSON.stringify({ modules, characters, native, own }));
`;

function coldImport(specifier: string): { modules: number; characters: number; native: string[]; own: string[] } {
  const cwd = fileURLToPath(new URL("../", import.meta.url));
  const arguments_ = ["--input-type=module", "-e", PROGRAM, specifier];
  return JSON.parse(execFileSync(process.execPath, arguments_, { cwd, encoding: "utf8" }));
}

// A little above what was measured: 32 modules of 0.7 million characters, and 540 of 3.6 million.
test.each([
  ["@miro-t2i/torch", { modules: 40, characters: 900_000 }],
  ["@miro-t2i/torch/optim", { modules: 45, characters: 950_000 }],
  ["@miro-t2i/torch/io", { modules: 50, characters: 1_000_000 }],
  ["@miro-t2i/torch/atomic-write", { modules: 6, characters: 40_000 }],
  ["@miro-t2i/torch/limits", { modules: 3, characters: 10_000 }],
  ["@miro-t2i/torch/pixels", { modules: 8, characters: 40_000 }],
  ["miro-t2i", { modules: 650, characters: 4_500_000 }],
  ["miro-t2i/networks", { modules: 650, characters: 4_500_000 }],
  ["miro-t2i/data", { modules: 650, characters: 4_500_000 }],
  ["miro-t2i/rewards", { modules: 650, characters: 4_500_000 }],
  ["miro-t2i/training", { modules: 650, characters: 4_500_000 }],
  ["miro-t2i/studio", { modules: 650, characters: 4_500_000 }],
  ["miro-t2i/evaluation", { modules: 650, characters: 4_500_000 }],
])("importing %s loads no native code and stays within its budget", (specifier, budget) => {
  const { modules, characters, native } = coldImport(specifier);
  expect(native).toEqual([]);
  expect(modules).toBeGreaterThan(0);
  expect(modules).toBeLessThanOrEqual(budget.modules);
  expect(characters).toBeLessThanOrEqual(budget.characters);
});

test("CommonJS can require every entry: none waits for something while it is loaded", () => {
  const entries = ["miro", "torch"].flatMap((folder) => {
    const manifest = fileURLToPath(new URL(`../packages/${folder}/package.json`, import.meta.url));
    const { name, exports } = JSON.parse(readFileSync(manifest, "utf8"));
    return Object.keys(exports).map((entry) => join(name, entry));
  });
  expect(entries).toEqual(expect.arrayContaining(["miro-t2i", "miro-t2i/studio", "@miro-t2i/torch/io"]));
  const program =
    "for (const entry of process.argv.slice(1)) console.log(entry, Object.keys(require(entry)).length > 0)";
  const cwd = fileURLToPath(new URL("../", import.meta.url));
  const said = execFileSync(process.execPath, ["--input-type=commonjs", "-e", program, ...entries], { cwd });
  expect(String(said)).toBe(entries.map((entry) => `${entry} true\n`).join(""));
});

test("drawing loads nothing that training, data and evaluation alone need", () => {
  const { own } = coldImport(new URL("../packages/miro/dist/cli/generate.js", import.meta.url).href);
  expect(own).toEqual(expect.arrayContaining(["rewards/registry.js", "networks/rin.js", "emoji/register.js"]));
  const unneeded =
    /^emoji\/(?:scenes\/(?!scene-options)|evaluation|scorer\/(?!emoji-clip-score))|^rewards\/(?:score-files|clip-(?:scorers|weights|vision)|jina-(?!facts)|image-reward\.|vqa-(?!facts)|strict-weights)|^networks\/(?:clip|eva02|xlm-roberta|blip)|^text\/(?:clip-|wordpiece|t5-seq2seq)|^evaluation\/|^data\/|^training\/(?!loop\/tasks|batches\/(?:sources|recipe-fault))/;
  expect(own.filter((file) => unneeded.test(file))).toEqual([]);
});

test("a settings file is checked without loading the commands that its sections are for", () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-cold-"));
  const file = join(folder, "settings.yaml");
  writeFileSync(
    file,
    "device: cpu\ngenerate: { stepz: 2 }\nevaluate: { geneval: { seed: 1 } }\ntrain: { quiet: true }\n",
  );
  const main = new URL("../packages/miro/dist/cli/main.js", import.meta.url).href;
  const program = PROGRAM.replace(
    "await import(process.argv[1]);",
    `await (await import(process.argv[1])).run(["config", "--help"], { stdout: () => {} });
     own.length = 0;
     await (await import(process.argv[1])).run(["plot", "nowhere"], { stderr: (text) => own.push(text) });`,
  );
  const env = { ...process.env, MIRO_CONFIG: file };
  const out = execFileSync(process.execPath, ["--input-type=module", "-e", program, main], { encoding: "utf8", env });
  rmSync(folder, { recursive: true });
  const { own } = JSON.parse(out) as { own: string[] };
  expect(own.join("\n")).toMatch(/stepz is no option of miro generate; did you mean steps\?.*nowhere/s);
  expect(own.filter((one) => /^cli\/(?:generate|evaluate|train)/.test(one))).toEqual([]);
});

test("the count sees native code once it is used", () => {
  const cwd = fileURLToPath(new URL("../", import.meta.url));
  const program = PROGRAM.replace("await import(process.argv[1]);", "(await import('@miro-t2i/torch')).zeros([1]);");
  const out = execFileSync(process.execPath, ["--input-type=module", "-e", program], { cwd, encoding: "utf8" });
  expect(JSON.parse(out).native.some((path: string) => path.endsWith("miro_torch.node"))).toBe(true);
});
