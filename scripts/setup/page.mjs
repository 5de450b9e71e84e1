/** Step 5: packages/miro/web, the studio's page, by Vite. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fingerprint, listFiles, readJson, run, writeJson } from "./report.mjs";

const SOURCE = "packages/miro/src/studio/web";
const CONFIG = `${SOURCE}/vite.config.mjs`;

const recordFile = (root) => path.join(root, ".setup", "page.json");

function inputs(root) {
  const files = listFiles(path.join(root, SOURCE), (file) => !file.endsWith(".test.ts"));
  const versions = ["vite", "preact", "@preact/signals"].map(
    (name) => readJson(path.join(root, "node_modules", name, "package.json"))?.version,
  );
  return fingerprint(root, files, versions.join(" "));
}

function isDone({ root }) {
  return (
    existsSync(path.join(root, "packages", "miro", "web", "index.html")) &&
    readJson(recordFile(root))?.hash === inputs(root)
  );
}

async function build({ root, env }) {
  const hash = inputs(root);
  const vite = path.join(root, "node_modules", "vite", "bin", "vite.js");
  await run("Building the studio's page", process.execPath, [vite, "build", "--config", CONFIG], { cwd: root, env });
  writeJson(recordFile(root), { hash });
}

export const pageStep = {
  name: "the studio's page",
  title: () => "the studio's page (vite build)",
  isDone,
  run: build,
};
