/** Scorers out of modules of a user, in a process of their own: there Node itself loads them, as it does for users. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "miro-scorers-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const packages = fileURLToPath(new URL("../../../../node_modules", import.meta.url));
const own = fileURLToPath(new URL("../../dist/rewards", import.meta.url));
const model = '{ name: "one", batchSize: 2, score: (images) => images.map(() => 1), dispose() {} }';
const spec = (key: string, change = "") =>
  `{ key: "${key}", name: "one", description: "always 1", stage: "rewards", usesText: false, load: async () => (${model}), ${change} }`;

/** Modules by name, and what loading them, or then using their scorer, says; null where nothing is wrong. */
const CASES: Record<string, { text: string | null; says: RegExp | null; key?: string }> = {
  "default.mjs": { text: `export default ${spec("as_default")};`, says: null, key: "as_default" },
  "list.mjs": { text: `export default [${spec("first")}, ${spec("second")}];`, says: null, key: "second" },
  "registers.mjs": {
    text: `import { registerScorer } from "miro-t2i";\nregisterScorer(${spec("by_call")});`,
    says: null,
    key: "by_call",
  },
  "both.mjs": {
    text: `import { registerScorer } from "miro-t2i";\nconst own = ${spec("both_ways")};\nregisterScorer(own);\nexport default own;`,
    says: null,
    key: "both_ways",
  },
  "floats.mjs": {
    text: `export default ${spec("floats", `load: () => ({ name: "one", batchSize: 8, score: (images) => new Float32Array(images.length), dispose() {} })`)};`,
    says: null,
    key: "floats",
  },
  "none.mjs": { text: null, says: /none\.mjs: no such file or directory/ },
  "folder.mjs": { text: "/", says: /folder\.mjs: expected the file of an ES module \(\.mjs\)/ },
  "empty.mjs": { text: "export const scorer = 1;", says: /empty\.mjs: registers no scorer; expected it to call/ },
  "syntax.mjs": { text: "const a = 1;\nconst b = = 2;", says: /syntax\.mjs: line 2: .*; expected an ES module/ },
  "misspelt.mjs": {
    text: 'import { registerScorers } from "miro-t2i";\nregisterScorers();',
    says: /misspelt\.mjs: .*does not provide an export named 'registerScorers'/,
  },
  "common.cjs": { text: "module.exports = 1;", says: /common\.cjs: its default export: .*received 1/ },
  "require.mjs": {
    text: 'require("node:fs");',
    says: /require\.mjs: fails while it is loaded: require is not defined/,
  },
  "picture.png": { text: "no module", says: /picture\.png: expected an ES module \(\.mjs\) that Node can load/ },
  "beside.mjs": { text: 'import "./not-there.mjs";', says: /beside\.mjs: Cannot find module .*not-there\.mjs/ },
  "throws.mjs": { text: 'throw new Error("no network");', says: /throws\.mjs: fails while it is loaded: no network/ },
  "text.mjs": { text: 'throw "a text";', says: /text\.mjs: throws a text while it is loaded/ },
  "waits.mjs": { text: "await new Promise(() => {});", says: /waits\.mjs: fails while it is loaded: never finishes/ },
  "taken.mjs": { text: `export default ${spec("sharpness")};`, says: /its default export: key: expected one that no/ },
  "name.mjs": { text: `export default ${spec("No Name")};`, says: /key: expected lower-case letters, digits and _/ },
  "stage.mjs": {
    text: `export default ${spec("staged", 'stage: "late"')};`,
    says: /staged\.stage: expected "rewards" or "vqa", received "late"/,
  },
  "no-load.mjs": { text: `export default ${spec("idle", "load: 3")};`, says: /idle\.load: expected a function/ },
  "no-model.mjs": {
    text: `export default ${spec("hollow", "load: () => undefined")};`,
    says: /hollow\.load\(\): expected an object \{ name, batchSize, score, dispose \}, received undefined/,
    key: "hollow",
  },
  "no-batch.mjs": {
    text: `export default ${spec("unbatched", 'load: () => ({ name: "x", score() {}, dispose() {} })')};`,
    says: /unbatched\.load\(\)\.batchSize: expected an integer of at least 1, received undefined/,
    key: "unbatched",
  },
  "few.mjs": {
    text: `export default ${spec("few", `load: () => ({ ...${model}, score: () => [] })`)};`,
    says: /few: the scorer returned 0 values for 2 pictures/,
    key: "few",
  },
  "nothing.mjs": {
    text: `export default ${spec("nothing", `load: () => ({ ...${model}, score: () => undefined })`)};`,
    says: /nothing: the scorer returned undefined for 2 pictures, not their numbers/,
    key: "nothing",
  },
  "words.mjs": {
    text: `export default ${spec("words", `load: () => ({ ...${model}, score: () => ["0.5", "1"] })`)};`,
    says: /words: the scorer returned "0\.5", which is no number/,
    key: "words",
  },
  "faulty.mjs": {
    text: `export default ${spec("faulty", `load: () => ({ ...${model}, score: (images) => images.pixels.length })`)};`,
    says: /faulty: Cannot read properties of undefined/,
    key: "faulty",
  },
};

const program = `
import { loadScorerModules } from "${own}/scorer-modules.js";
import { loadScorer } from "${own}/registry.js";
const picture = { width: 1, height: 1, data: new Uint8Array(3) };
const found = {};
for (const [name, key] of JSON.parse(process.argv[1])) {
  try {
    await loadScorerModules([name]);
    await loadScorerModules([name]); // a second time changes nothing
    if (key) await (await loadScorer(key)).score([picture, picture], []);
    found[name] = null;
  } catch (error) {
    found[name] = [error.message, error.exitCode ?? 1, error.wording?.parameter ?? null];
  }
}
console.log(JSON.stringify(found));
`;

let found: Record<string, [string, number, string | null] | null>;
beforeAll(() => {
  mkdirSync(join(folder, "folder.mjs"));
  symlinkSync(packages, join(folder, "node_modules"));
  for (const [name, { text }] of Object.entries(CASES))
    if (text !== null && text !== "/") writeFileSync(join(folder, name), text);
  const cases = JSON.stringify(Object.entries(CASES).map(([name, { key }]) => [name, key ?? null]));
  // Every process of Node says something first, as under a debugger.
  const env = { ...process.env, NODE_OPTIONS: "--import data:text/javascript,console.error('ready')" };
  const args = ["--input-type=module", "-e", program, cases];
  const output = execFileSync(process.execPath, args, { cwd: folder, env, stdio: ["ignore", "pipe", "ignore"] });
  found = JSON.parse(output.toString());
});

it.each(Object.entries(CASES))("%s", (name, { says, key }) => {
  if (says === null) expect(found[name]).toBeNull();
  else {
    expect(found[name]![0]).toMatch(says);
    // What is wrong with the module is wrong usage and names the option; what goes wrong later names the scorer.
    if (key === undefined) expect(found[name]!.slice(1)).toEqual([2, "scorerModules"]);
  }
});

it("says what to do where miro-t2i is not installed beside the module", () => {
  const alone = mkdtempSync(join(tmpdir(), "miro-alone-"));
  try {
    writeFileSync(join(alone, "a.mjs"), 'import { registerScorer } from "miro-t2i";\nregisterScorer({});');
    const text = program.replace(/found\[name\] = \[.*\];/, "found[name] = error.message;");
    const output = execFileSync(
      process.execPath,
      ["--input-type=module", "-e", text, JSON.stringify([["a.mjs", null]])],
      { cwd: alone },
    );
    expect(JSON.parse(output.toString())["a.mjs"]).toMatch(
      /a\.mjs: imports miro-t2i, which is not installed where the file is; .*export default \{ key, … \}/,
    );
  } finally {
    rmSync(alone, { recursive: true, force: true });
  }
});
