#!/usr/bin/env node
/**
 * Takes the steps of the release workflow (.github/workflows/release.yml) in their order, as far as that is possible
 * away from GitHub: in a clone of the last commit, whose origin is a repository of this machine, with a registry of
 * this machine in place of npm's. Needs root and network for packages, as the workflow's container has them.
 *
 *   npm run test:release
 *   npm run test:release -- --folder DIR              keeps the clone in DIR, and continues with the one that is there
 *   npm run test:release -- --only version,Publish    the job "version", or some steps of the job "publish" by name
 *
 * Left out: what actions of GitHub do (checkout, setup-node, the pull request, the artifact), and `--provenance`, which
 * GitHub alone can attest.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { startRegistry } from "./install-test/registry.mjs";
import { installTools } from "./install-test/tools.mjs";
import { commandsOf, stepsOf } from "./release/workflow.mjs";
import { argumentsOf } from "./setup/command-line.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const text = { type: "string" };
const { values } = argumentsOf(import.meta.url, { folder: text, only: text });
const only = values.only?.split(",");
const scratch =
  values.folder === undefined ? mkdtempSync(path.join(tmpdir(), "miro-release-")) : path.resolve(values.folder);
const clone = path.join(scratch, "clone");
const origin = path.join(scratch, "origin.git");
const workflow = path.join(clone, ".github", "workflows", "release.yml");

function execute(command, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", cwd: clone, ...options });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${error?.message ?? ""}${stdout}${stderr}`);
  return stdout.trim();
}

/** One step's lines, as a runner of GitHub starts them with `shell: bash`; what it prints is shown. */
function take(name, lines, env) {
  const started = performance.now();
  const shell = ["--noprofile", "--norc", "-eo", "pipefail", "-c", lines];
  const { status } = spawnSync("bash", shell, { cwd: clone, env: { ...process.env, ...env }, stdio: ["ignore", 2, 2] });
  const seconds = `${Math.round((performance.now() - started) / 1000)} s`;
  if (status !== 0) throw new Error(`the step "${name}" ended with ${status} (${seconds})`);
  console.log(`ok      ${name.padEnd(20)} (${seconds})`);
}

/** The entries become a version; the commit that a merged pull request would be is tagged, and the tag is pushed. */
function versionJob() {
  for (const step of stepsOf(workflow, "version")) {
    for (const lines of commandsOf(step)) {
      if (lines.includes("tag.mjs")) {
        const identity = ["-c", "user.name=release", "-c", "user.email=release@localhost"];
        if (execute("git", ["status", "--porcelain"]) !== "")
          execute("git", [...identity, "commit", "--quiet", "--all", "--message", step.with.commit]);
      }
      take(lines, lines, {});
    }
  }
  const tag = `v${version()}`;
  if (execute("git", ["ls-remote", "--tags", "origin", `refs/tags/${tag}`]) === "")
    throw new Error(`the tag ${tag} is not at the origin`);
  console.log(`ok      ${tag} is at the origin`);
}

function version() {
  return JSON.parse(readFileSync(path.join(clone, "packages/miro/package.json"), "utf8")).version;
}

async function publishJob() {
  const tools = installTools(root);
  const storage = path.join(scratch, "storage");
  rmSync(storage, { recursive: true, force: true });
  mkdirSync(storage);
  const registry = await startRegistry({ tools, folder: scratch, storage, upstream: null });
  try {
    const npmrc = path.join(scratch, "npmrc");
    // As setup-node writes it.
    const { host } = new URL(registry.url);
    writeFileSync(npmrc, `//${host}/:_authToken=\${NODE_AUTH_TOKEN}\nregistry=${registry.url}\n`);
    const variables = path.join(scratch, "github.env");
    if (!existsSync(variables)) writeFileSync(variables, "");
    for (const { name, run } of stepsOf(workflow, "publish")) {
      if (run === undefined || (only !== undefined && !only.includes(name))) continue;
      const kept = readFileSync(variables, "utf8").split("\n").filter(Boolean);
      const env = {
        GITHUB_REF_NAME: `v${version()}`,
        GITHUB_ENV: variables,
        ...Object.fromEntries(kept.map((line) => line.split(/=(.*)/s).slice(0, 2))),
      };
      const isPublishing = name === "Publish";
      const publishing = { NODE_AUTH_TOKEN: "anybody", NPM_CONFIG_USERCONFIG: npmrc };
      take(name, isPublishing ? run.replaceAll(" --provenance", "") : run, { ...env, ...(isPublishing && publishing) });
      if (isPublishing) compare(registry.url);
    }
  } finally {
    await registry.close();
  }
}

/** The registry has what the manifest of the packages says, byte for byte. */
function compare(registry) {
  const { packages } = JSON.parse(readFileSync(path.join(clone, "build/release/manifest.json"), "utf8"));
  for (const { name, version, integrity } of packages) {
    const found = execute("npm", ["view", `${name}@${version}`, "dist.integrity", "--registry", registry]);
    if (found !== integrity) throw new Error(`${name}@${version}: the registry has ${found}, packed was ${integrity}`);
    console.log(`ok      ${name}@${version} is published as it was packed`);
  }
}

try {
  if (!existsSync(clone)) {
    mkdirSync(scratch, { recursive: true });
    execute("git", ["clone", "--quiet", "--bare", root, origin], { cwd: scratch });
    execute("git", ["clone", "--quiet", origin, clone], { cwd: scratch });
  }
  console.log(`the commit ${execute("git", ["log", "-1", "--format=%h %s"])}`);
  if (only === undefined || only.includes("version")) versionJob();
  if (only === undefined || only.some((name) => name !== "version")) await publishJob();
} catch (error) {
  console.error(`test:release: ${error.message}`);
  process.exitCode = 1;
} finally {
  if (values.folder === undefined) rmSync(scratch, { recursive: true, force: true });
}
