#!/usr/bin/env node
/**
 * Takes the steps of the Dockerfiles in deploy/ in root folders of their own, as `docker build` would, and runs what
 * the images would run: a picture, the studio, its health check, a Space as the Hub starts it. A third root is a
 * machine with `npm install --global`: `man miro`, and the unit of systemd. Needs root, and Debian's package sources.
 *
 *   npm run test:image                          the packages of npm run pack:release, which runs first
 *   npm run test:image -- --packages DIR        packages that were made before
 *   npm run test:image -- --only docker,space   some of docker, space, machine
 *
 * A root is Debian's smallest system with a release of Node, as the image `node:22-bookworm-slim` is. Programs see it
 * as their file system (chroot) in a mount namespace of their own; the network is this machine's, so that npm asks a
 * registry here that has the packages.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { CASES } from "./image-test/cases.mjs";
import { done, execute } from "./image-test/container.mjs";
import { debianRoot, nodeRoot } from "./image-test/root.mjs";
import { publishAll, startRegistry } from "./install-test/registry.mjs";
import { installTools, nodeBinary } from "./install-test/tools.mjs";
import { argumentsOf } from "./setup/command-line.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const text = { type: "string" };
const { values } = argumentsOf(import.meta.url, { packages: text, only: text });

async function main() {
  const only = values.only?.split(",") ?? Object.keys(CASES);
  const unknown = only.find((name) => !(name in CASES));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: expected some of ${Object.keys(CASES).join(", ")}`);
  if (process.getuid?.() !== 0) throw new Error("needs root: a root folder of its own is entered with chroot");
  const packages = path.resolve(values.packages ?? path.join(root, "build", "release"));
  if (values.packages === undefined)
    execute(process.execPath, [path.join(root, "scripts/release/pack.mjs"), "--output", packages], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
    });
  if (!existsSync(path.join(packages, "manifest.json"))) throw new Error(`${packages} has no manifest.json`);

  const tools = installTools(root);
  const debian = debianRoot(path.join(root, ".cache", "test-image"));
  const scratch = mkdtempSync(path.join(tmpdir(), "miro-image-"));
  let registry;
  try {
    const storage = path.join(scratch, "storage");
    mkdirSync(storage);
    const upstream = execute("npm", ["config", "get", "registry"], { cwd: root });
    registry = await startRegistry({ tools, folder: scratch, storage, upstream });
    publishAll(packages, registry.url, scratch);
    const given = { npm_config_registry: registry.url };
    for (const name of only) {
      console.log(`${name}:`);
      const folder = path.join(scratch, name);
      const newRoot = (release) => {
        const started = performance.now();
        const npm = path.join(tools, "node_modules", "npm");
        nodeRoot(debian, folder, { binary: nodeBinary(root, release), npm });
        done("FROM", `Debian and Node ${release}`, started);
        return folder;
      };
      await CASES[name]({ root, newRoot, given });
      console.log(`its files: ${execute("du", ["-sh", "--apparent-size", folder]).split("\t")[0]}`);
      rmSync(folder, { recursive: true, force: true });
    }
    console.log(`${only.length} passed, 0 failed`);
  } finally {
    await registry?.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  console.error(`test:image: ${error.message}`);
  process.exitCode = 1;
}
