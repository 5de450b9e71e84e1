/**
 * Which files the device check and the benchmarks need on a machine that has Python's torch and a compiler, but no Node
 * and no npm.
 */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";

/**
 * Dependencies that no phase and no benchmark of the networks loads: picture files, HTTP, the Hub, tables of pictures,
 * fonts. Those of them that have native code are as large as all the rest.
 */
const LEFT_OUT =
  /^(sharp|libsql|fastify.*|@fastify\/.*|@huggingface\/.*|@jsquash\/.*|dejavu-fonts-ttf|hyparquet.*|prom-client)$/;

/**
 * The folders in node_modules that `packages` of a lock file need, with what those need in turn.
 * @param {Record<string, { dependencies?: object, optionalDependencies?: object, link?: boolean }>} lock its `packages`
 * @param {readonly string[]} roots workspaces
 */
export function neededModules(lock, roots, leftOut = LEFT_OUT) {
  const needed = new Set();
  const open = [...roots];
  while (open.length > 0) {
    const from = open.pop();
    for (const name of Object.keys({ ...lock[from].dependencies, ...lock[from].optionalDependencies })) {
      const place = leftOut.test(name) ? null : placeOf(lock, name, from);
      if (place === null || lock[place].link || needed.has(place)) continue;
      needed.add(place);
      open.push(place);
    }
  }
  return [...needed].sort();
}

/** Where a package finds another: in its own node_modules, else in those of the folders above. */
function placeOf(lock, name, from) {
  for (let at = from; ; at = at.includes("/node_modules/") ? at.slice(0, at.lastIndexOf("/node_modules/")) : "") {
    const place = `${at === "" ? "" : `${at}/`}node_modules/${name}`;
    if (lock[place]) return place;
    if (at === "") return null;
  }
}

/** Files below `folder` of `root` for which `keep` holds, from `root`. */
function below(root, folder, keep = () => true) {
  if (!existsSync(path.join(root, folder))) return [];
  return readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
    .filter(keep);
}

const compiled = (file) => file.endsWith(".js") && !file.endsWith(".test.js");
const readByPeople = /\.(d\.[cm]?ts|[cm]?ts|map|md|markdown|flow)$/;

/** All files that travel, from the root of the checkout. */
export function packedFiles(root, lock) {
  const fixtures = "tests/reference/fixtures";
  return [
    "package.json",
    "package-lock.json",
    "LICENSE",
    "scripts/setup.mjs",
    ...below(root, "scripts/setup"),
    "scripts/device/shards-train.yaml",
    ...below(root, "recipes"),
    "packages/torch/package.json",
    ...below(root, "packages/torch/native"),
    ...below(root, "packages/torch/dist", compiled),
    // Where the same libtorch is found the set-up takes this addon; elsewhere it builds one.
    ...["miro_torch.node", "native.json"].map((name) => `packages/torch/build/${name}`),
    "packages/miro/package.json",
    ...below(root, "packages/miro/bin"),
    ...below(root, "packages/miro/assets"),
    ...below(root, "packages/miro/dist", compiled),
    ...["device", "parity", "reference"].flatMap((part) => below(root, `tests/dist/${part}`, compiled)),
    ...below(root, "bench/dist", compiled),
    ...below(root, "bench/reference", (file) => file.endsWith(".py")),
    "tests/reference/ops.table.jsonl",
    `${fixtures}/ops.expected.jsonl`,
    ...["tiny", "shards/enriched", "scorers/clip_openai", "scorers/detector"].flatMap((part) =>
      below(root, `${fixtures}/${part}`),
    ),
    `${fixtures}/scorers/scorers.json`,
    ...below(root, "node_modules/node-api-headers"),
    ...neededModules(lock, ["packages/torch", "packages/miro"]).flatMap((place) =>
      below(root, place, (file) => !readByPeople.test(file)),
    ),
  ].filter((file) => existsSync(path.join(root, file)));
}
