/** Step 4: dist/ of every project in tsconfig.json, by `tsc -b`. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fingerprint, listFiles, readJson, run, writeJson } from "./report.mjs";

/** The studio's page, which is checked with the rest and built by a step of its own. */
const PAGE = "packages/miro/src/studio/web";

/** The projects of the root tsconfig.json and where their output goes. */
const projects = [
  { folder: "packages/torch", source: "src" },
  { folder: "packages/miro", source: "src" },
  { folder: "tests", source: "." },
  { folder: "bench", source: "." },
];

const recordFile = (root) => path.join(root, ".setup", "typescript.json");

function sources(root) {
  return projects.flatMap(({ folder, source }) => {
    const base = path.join(root, folder, source);
    const isCompiled = (file) =>
      file.endsWith(".ts") && !file.endsWith(".d.ts") && !file.startsWith(path.join(root, PAGE));
    return listFiles(base, isCompiled).map((file) => ({
      file,
      output: path.join(root, folder, "dist", path.relative(base, file).replace(/\.ts$/, ".js")),
    }));
  });
}

function inputs(root, files) {
  const configuration = [
    "tsconfig.json",
    "tsconfig.base.json",
    ...projects.map(({ folder }) => `${folder}/tsconfig.json`),
  ].map((name) => path.join(root, name));
  const compiler = readJson(path.join(root, "node_modules", "typescript", "package.json"))?.version;
  return fingerprint(root, [...configuration, ...files.map(({ file }) => file)], String(compiler));
}

function isDone({ root }) {
  const files = sources(root);
  return files.every(({ output }) => existsSync(output)) && readJson(recordFile(root))?.hash === inputs(root, files);
}

async function build({ root, env }) {
  const files = sources(root);
  const hash = inputs(root, files);
  // tsc trusts its own records: an output that was deleted is only made again without them.
  const force = files.some(({ output }) => !existsSync(output)) ? ["--force"] : [];
  await run(
    "Compiling TypeScript",
    process.execPath,
    [path.join(root, "node_modules", "typescript", "bin", "tsc"), "-b", ...force],
    { cwd: root, env },
  );
  writeJson(recordFile(root), { hash });
}

export const typescriptStep = { name: "TypeScript", title: () => "TypeScript (tsc -b)", isDone, run: build };
