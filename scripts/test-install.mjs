#!/usr/bin/env node
/**
 * Installs the packages as a user would, on a machine as bare as can be imitated, and draws with them. A registry on
 * this machine holds everything; programs run without a compiler, Python, variables of this process or a home folder
 * that can be written, as nobody where we are root, in a folder with spaces and umlauts.
 *
 *   npm run test:install                        the packages of npm run pack:release, which runs first
 *   npm run test:install -- --packages DIR      packages that were made before
 *   npm run test:install -- --node 22,24        on some releases of Node (default 20.19.0,22,24,26)
 *   npm run test:install -- --only pnpm,worker  some of the cases
 *   npm run test:install -- --cuda FOLDER       also with the torch with CUDA in FOLDER, which the packages' addon for
 *                                               CUDA was compiled for
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { CASES } from "./install-test/cases.mjs";
import { publishAll, startRegistry } from "./install-test/registry.mjs";
import { Sandbox } from "./install-test/sandbox.mjs";
import { installTools, nodeBinary } from "./install-test/tools.mjs";
import { argumentsOf } from "./setup/command-line.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const RELEASES = ["20.19.0", "22", "24", "26"];
const list = { type: "string" };
const { values } = argumentsOf(import.meta.url, { packages: list, node: list, only: list, cuda: list });
const releases = values.node?.split(",") ?? RELEASES;
const only = values.only?.split(",");

function execute(command, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", cwd: root, ...options });
  // What went to the terminal itself is null.
  const said = [stdout, stderr].filter((text) => text !== null).join("");
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed${said === "" ? "" : `:\n${said}`}`);
  return stdout?.trim() ?? "";
}

/**
 * Fetches everything once that the installations will ask for, so that the registry can do without another. What others
 * published stays in .cache for the next run with the same dependencies.
 */
function fill(registry, scratch, tools, record) {
  const manifests = ["packages/torch", "packages/miro"].map((folder) => {
    return JSON.parse(readFileSync(path.join(root, folder, "package.json"), "utf8")).dependencies;
  });
  // Our own are published anew each time, and have another number in each version.
  const wanted = JSON.stringify(manifests, (name, value) => (name.startsWith("@miro-t2i/") ? undefined : value));
  if (existsSync(record) && readFileSync(record, "utf8") === wanted) return;
  const store = path.join(scratch, "fill");
  for (const [manager, file, ...args] of [
    ["npm", "bin/npm-cli.js", "install", "--no-audit", "--no-fund"],
    ["pnpm", "bin/pnpm.cjs", "install", "--store-dir", path.join(store, "pnpm-store")],
    [
      "yarn",
      "bin/yarn.js",
      "install",
      "--no-lockfile",
      "--ignore-engines",
      "--cache-folder",
      path.join(store, "yarn-cache"),
      // The list of a package's releases may have some ten MB, which the registry reads first.
      ...["--network-timeout", "600000"],
    ],
  ]) {
    const cwd = path.join(store, manager);
    mkdirSync(cwd, { recursive: true });
    const manifest = { name: "fill", private: true, dependencies: { "miro-t2i": "*" } };
    writeFileSync(path.join(cwd, "package.json"), JSON.stringify(manifest));
    const env = { ...process.env, npm_config_cache: path.join(store, "npm-cache"), npm_config_registry: registry };
    const program = path.join(tools, "node_modules", manager, file);
    execute(process.execPath, [program, ...args, "--registry", registry, "--ignore-scripts"], { cwd, env });
    rmSync(cwd, { recursive: true, force: true });
  }
  rmSync(store, { recursive: true, force: true });
  writeFileSync(record, wanted);
}

async function main() {
  const packages = path.resolve(values.packages ?? path.join(root, "build", "release"));
  if (values.packages === undefined) {
    execute(process.execPath, [path.join(root, "scripts/release/pack.mjs"), "--output", packages], {
      stdio: ["ignore", "inherit", "inherit"],
    });
  }
  if (!existsSync(path.join(packages, "manifest.json"))) throw new Error(`${packages} has no manifest.json`);
  const tools = installTools(root);
  const binaries = new Map(releases.map((release) => [release, nodeBinary(root, release)]));
  // A temporary folder that others may enter: the sandbox's user has to.
  const scratch = mkdtempSync(path.join(tmpdir(), "miro-install-"));
  const storage = path.join(root, ".cache", "test-install", "storage");
  mkdirSync(storage, { recursive: true });
  let registry;
  try {
    const upstream = execute("npm", ["config", "get", "registry"]);
    for (const own of ["@miro-t2i", "miro-t2i", ".verdaccio-db.json"]) {
      rmSync(path.join(storage, own), { recursive: true, force: true });
    }
    registry = await startRegistry({ tools, folder: scratch, storage, upstream });
    publishAll(packages, registry.url, scratch);
    fill(registry.url, scratch, tools, path.join(storage, "filled.json"));
    await registry.close();
    registry = await startRegistry({ tools, folder: scratch, storage, upstream: null });

    const sandbox = new Sandbox(scratch, tools, registry.url);
    console.log(`packages from ${registry.url} alone${sandbox.asNobody ? ", as nobody" : ""}`);
    const { version } = JSON.parse(readFileSync(path.join(root, "packages/miro/package.json"), "utf8"));
    const cuda = values.cuda === undefined ? null : path.resolve(values.cuda);
    const context = { root, tools, sandbox, version, releases, binaries, cuda, pictures: new Set() };
    let failures = 0;
    let passed = 0;
    for (const [name, test] of Object.entries(CASES)) {
      if (only ? !only.includes(name) : name === "cuda" && cuda === null) continue;
      const start = performance.now();
      try {
        const said = await test(context);
        passed++;
        console.log(`ok      ${name.padEnd(12)} ${said} (${Math.round((performance.now() - start) / 1000)} s)`);
      } catch (error) {
        failures++;
        console.log(`FAILED  ${name.padEnd(12)} ${error.message}`);
      }
    }
    console.log(`${passed} passed, ${failures} failed`);
    return failures === 0 && passed > 0 ? 0 : 1;
  } finally {
    await registry?.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`test:install: ${error.message}`);
  process.exitCode = 1;
}
