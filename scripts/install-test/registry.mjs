/** A registry on this machine: verdaccio, first with the configured registry behind it, then on its own. */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A port that nobody listens at. */
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * Starts the registry.
 *
 * @param {{ tools: string, folder: string, storage: string, upstream: string | null }} options folder: for its
 *   configuration and log; storage: where it keeps packages; upstream: the registry that has everybody else's packages,
 *   null to answer from the storage alone
 * @returns {Promise<{ url: string, close(): Promise<void> }>}
 */
export async function startRegistry({ tools, folder, storage, upstream }) {
  const port = await freePort();
  const own = { access: "$all", publish: "$all" };
  const config = {
    storage,
    max_body_size: "1gb",
    web: { enable: false },
    uplinks: upstream === null ? {} : { upstream: { url: upstream, maxage: "1h", timeout: "120s", max_fails: 20 } },
    packages: {
      // Ours are never looked up elsewhere.
      "@miro-t2i/*": own,
      "miro-t2i": own,
      "**": upstream === null ? own : { ...own, proxy: "upstream" },
    },
    log: { type: "stdout", format: "pretty", level: "warn" },
  };
  const file = path.join(folder, `verdaccio-${upstream === null ? "alone" : "filling"}.yaml`);
  writeFileSync(file, JSON.stringify(config)); // JSON is YAML
  const logFile = path.join(folder, "verdaccio.log");
  const log = openSync(logFile, "a");
  const program = path.join(tools, "node_modules", "verdaccio", "bin", "verdaccio");
  const child = spawn(process.execPath, [program, "--config", file, "--listen", `http://127.0.0.1:${port}`], {
    stdio: ["ignore", log, log],
    env: { ...process.env, NODE_ENV: "production" },
  });
  closeSync(log);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const url = `http://127.0.0.1:${port}/`;
  const deadline = performance.now() + 60_000;
  while (!(await fetch(`${url}-/ping`).catch(() => null))?.ok) {
    if (child.exitCode !== null || performance.now() > deadline) {
      child.kill();
      throw new Error(`verdaccio did not start: ${readFileSync(logFile, "utf8").slice(-2000)}`);
    }
    await sleep(100);
  }
  return {
    url,
    close: async () => {
      child.kill();
      await ended;
    },
  };
}

/** Publishes all tarballs of a folder. The registry takes any name for a login. */
export function publishAll(folder, registry, scratch) {
  const npmrc = path.join(scratch, "publish.npmrc");
  const { host } = new URL(registry);
  writeFileSync(npmrc, `//${host}/:_authToken=anybody\n`);
  const options = ["--registry", registry, "--userconfig", npmrc, "--ignore-scripts"];
  for (const name of readdirSync(folder).filter((name) => name.endsWith(".tgz"))) {
    const args = ["publish", path.join(folder, name), "--access", "public", ...options];
    const { status, stderr } = spawnSync("npm", args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`npm publish ${name} failed:\n${stderr}`);
  }
}
