/** Step 1: node_modules holds what package-lock.json names, in those versions. */
import { existsSync } from "node:fs";
import path from "node:path";
import { capture, readJson, SetupError, which } from "./report.mjs";

/**
 * Does node_modules match the lock file? npm writes node_modules/.package-lock.json at the end of a successful
 * install, so its absence also tells an interrupted one.
 */
function isDone({ root }) {
  const wanted = readJson(path.join(root, "package-lock.json"))?.packages;
  const present = readJson(path.join(root, "node_modules", ".package-lock.json"))?.packages;
  if (!wanted)
    throw new SetupError(
      `${path.join(root, "package-lock.json")} is missing or damaged. Restore it: git checkout package-lock.json`,
    );
  if (!present) return false;
  for (const [name, entry] of Object.entries(wanted)) {
    if (!name.includes("node_modules/")) continue; // the workspaces themselves
    const has = present[name];
    if (!has) {
      if (entry.optional) continue; // built for another platform
      return false;
    }
    if (has.version !== entry.version || (entry.integrity && has.integrity !== entry.integrity)) return false;
  }
  const { devDependencies = {} } = wanted[""];
  return Object.keys(devDependencies).every((name) =>
    existsSync(path.join(root, "node_modules", name, "package.json")),
  );
}

/**
 * The environment for a nested npm: the user's configuration, without what `npm --prefix … start --flag` added for
 * itself.
 */
export function npmEnvironment(env) {
  const own =
    /^npm_(config_(prefix|local_prefix|workspaces?|include_workspace_root|global|location|dry_run|json|omit|only|production|loglevel)|lifecycle_.*|package_.*)$/i;
  return Object.fromEntries(Object.entries(env).filter(([name]) => !own.test(name)));
}

async function install({ root, env }) {
  const script = env.npm_execpath && /npm-cli\.[cm]?js$/.test(env.npm_execpath) ? env.npm_execpath : null;
  const npm = script ? process.execPath : which("npm", env);
  if (!npm) throw new SetupError("npm is missing; it comes with Node: https://nodejs.org");
  const args = ["ci", "--include=dev", "--include=optional", "--no-audit", "--no-fund"];
  const { code, output } = await capture(npm, script ? [script, ...args] : args, {
    cwd: root,
    env: npmEnvironment(env),
  });
  if (code === 0) return;
  // Of npm's output, what it says before it explains its own usage.
  const lines = output.split("\n").filter((line) => /^npm (error|ERR!)/.test(line));
  const usage = lines.findIndex((line) => /Clean install a project|A complete log/.test(line));
  const message = lines
    .slice(0, usage < 0 ? 20 : usage)
    .join("\n")
    .trim();
  throw new SetupError(
    `installing the dependencies failed (npm ci, exit code ${code}):\n${message || output.trim().slice(-2000)}`,
  );
}

export const dependenciesStep = { name: "dependencies", title: () => "dependencies (npm ci)", isDone, run: install };
