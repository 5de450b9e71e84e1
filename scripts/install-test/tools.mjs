/** Programs that the test uses: verdaccio, package managers, bundlers, and releases of Node. Kept in .cache. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

/**
 * Exact versions: what is tested today is tested tomorrow. verdaccio asks for a node-fetch that some registries lack.
 */
const TOOLS = {
  private: true,
  dependencies: {
    verdaccio: "6.8.0",
    npm: "11.19.1",
    pnpm: "10.34.8",
    yarn: "1.22.22",
    esbuild: "0.28.2",
    webpack: "5.113.0",
    rollup: "4.68.8",
  },
  overrides: { "node-fetch": "2.7.0" },
};

function npmInstall(home, ...packages) {
  const options = ["--prefix", home, "--no-audit", "--no-fund", "--no-save"];
  const { status } = spawnSync("npm", ["install", ...options, ...packages], { stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new Error(`test:install: ${packages.join(" ") || "the tools"} could not be installed`);
}

/** The folder whose node_modules has the tools. */
export function installTools(root) {
  const home = path.join(root, ".cache", "test-install", "tools");
  const manifest = path.join(home, "package.json");
  const text = JSON.stringify(TOOLS, null, 2);
  const done = path.join(home, "installed.json");
  if (existsSync(done) && readFileSync(done, "utf8") === text) return home;
  mkdirSync(home, { recursive: true });
  writeFileSync(manifest, text);
  npmInstall(home);
  writeFileSync(done, text);
  return home;
}

/** The binary of a release of Node; the same place as that of `npm run test:node`. */
export function nodeBinary(root, release) {
  const home = path.join(root, ".cache", "node", release);
  const file = path.join(home, "node_modules", "node", "bin", "node");
  if (!existsSync(file)) {
    mkdirSync(home, { recursive: true });
    npmInstall(home, `node@${release}`);
  }
  return file;
}
