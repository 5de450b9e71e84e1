#!/usr/bin/env node
/**
 * Takes the steps of deploy/Dockerfile in a root folder of its own, as `docker build` would, and runs what the image
 * would run: a picture, the studio, and its health check. Needs root, and once Debian's package sources.
 *
 *   npm run test:image                       the packages of npm run pack:release, which runs first
 *   npm run test:image -- --packages DIR     packages that were made before
 *
 * The root is Debian's smallest system with a release of Node, as the image `node:22-bookworm-slim` is. Programs see it
 * as their file system (chroot) in a mount namespace of their own; the network is this machine's, so that npm asks a
 * registry here that has the packages.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { BASE_PATH, stepsOf } from "./image-test/dockerfile.mjs";
import { debianRoot, nodeRoot } from "./image-test/root.mjs";
import { publishAll, startRegistry } from "./install-test/registry.mjs";
import { installTools, nodeBinary } from "./install-test/tools.mjs";
import { argumentsOf } from "./setup/command-line.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const { values } = argumentsOf(import.meta.url, { packages: { type: "string" } });

function execute(command, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", cwd: root, ...options });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${stdout}${stderr}`);
  return stdout.trim();
}

/** The command line of a program inside: /proc and /dev are there, and go with the program. */
function inside(folder, { user = "root", cwd = "/", env = {} }, command) {
  const script = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$@"';
  const identity = user === "root" ? [] : [`--userspec=${user}`];
  const variables = Object.entries({ PATH: BASE_PATH, ...env }).map(([name, value]) => `${name}=${value}`);
  const enter = 'cd "$0" && exec "$@"';
  return [
    ...["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, folder],
    ...[...identity, folder, "/usr/bin/env", "-i", ...variables, "sh", "-c", enter, cwd, ...command],
  ];
}

/** What the steps leave: the state that a container starts with. */
function build(folder, steps, given) {
  const image = { user: "root", cwd: "/", env: {}, entrypoint: [], command: [], health: [], port: null, volume: null };
  for (const { keyword, text, env } of steps) {
    const started = performance.now();
    if (keyword === "RUN") {
      const [program, ...args] = inside(folder, { ...image, env: { ...env, ...given } }, ["/bin/sh", "-c", text]);
      execute(program, args, { maxBuffer: 2 ** 26 });
    } else if (keyword === "WORKDIR") {
      image.cwd = path.posix.resolve(image.cwd, text);
      mkdirSync(path.join(folder, image.cwd), { recursive: true });
    } else if (keyword === "USER") image.user = `${text}:${text}`;
    else if (keyword === "EXPOSE") image.port = text;
    else if (keyword === "VOLUME") image.volume = text;
    else if (keyword === "ENTRYPOINT") image.entrypoint = JSON.parse(text);
    else if (keyword === "CMD") image.command = JSON.parse(text);
    else if (keyword === "HEALTHCHECK") image.health = JSON.parse(text.slice(text.indexOf("CMD") + 3));
    else throw new Error(`deploy/Dockerfile: ${keyword} is a step that this test does not know`);
    image.env = env;
    console.log(
      `ok      ${keyword.padEnd(12)} ${text.slice(0, 90)} (${((performance.now() - started) / 1000).toFixed(1)} s)`,
    );
  }
  return image;
}

/** As `docker run IMAGE ARGS`. */
function run(folder, image, args) {
  const [program, ...rest] = inside(folder, image, [...image.entrypoint, ...args]);
  return spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
}

/** As `docker stop`: the first process inside is told to end. */
function stop(child) {
  const inner = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim();
  if (inner !== "") process.kill(Number(inner), "SIGTERM");
}

async function draws(folder, image) {
  const child = run(folder, image, ["generate", "a red apple on a light blue background", "--seed", "7", "--json"]);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (output += part));
  const code = await new Promise((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`miro generate ended with ${code}:\n${output}`);
  const pictures = path.join(folder, image.volume, "pictures");
  const [name] = readdirSync(pictures);
  const { uid, size } = statSync(path.join(pictures, name));
  if (uid !== 1000) throw new Error(`${name} belongs to ${uid}, not to the user of the image`);
  return `${name}, ${size} bytes, of the user node`;
}

async function serves(folder, image) {
  const settings = { ...image, env: { ...image.env, MIRO_STUDIO_API_KEY: "a-key-for-this-test" } };
  const child = run(folder, settings, image.command);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (output += part));
  const ended = new Promise((resolve) => child.once("close", resolve));
  try {
    const health = () => {
      const [program, ...args] = inside(folder, image, image.health);
      return spawnSync(program, args).status === 0;
    };
    const deadline = performance.now() + 60_000;
    while (!health()) {
      if (child.exitCode !== null || performance.now() > deadline)
        throw new Error(`the studio is not well:\n${output}`);
      await sleep(500);
    }
    const refused = await fetch(`http://127.0.0.1:${image.port}/api/models`);
    if (refused.status !== 401) throw new Error(`without the key the studio answers ${refused.status}, not 401`);
  } finally {
    stop(child);
    const late = setTimeout(() => child.kill("SIGKILL"), 30_000); // what runs inside goes with it
    await ended;
    clearTimeout(late);
  }
  if (child.signalCode !== null) throw new Error(`the studio did not end when it was stopped:\n${output}`);
  return `healthy on port ${image.port}; a request without the key is refused`;
}

async function main() {
  if (process.getuid?.() !== 0) throw new Error("needs root: a root folder of its own is entered with chroot");
  const packages = path.resolve(values.packages ?? path.join(root, "build", "release"));
  if (values.packages === undefined)
    execute(process.execPath, [path.join(root, "scripts/release/pack.mjs"), "--output", packages], {
      stdio: ["ignore", "inherit", "inherit"],
    });
  if (!existsSync(path.join(packages, "manifest.json"))) throw new Error(`${packages} has no manifest.json`);
  const { image: base, steps } = stepsOf(readFileSync(path.join(root, "deploy", "Dockerfile"), "utf8"));
  const release = /^node:(\d+)-bookworm-slim$/.exec(base)?.[1];
  if (release === undefined) throw new Error(`deploy/Dockerfile starts from ${base}, not from node:N-bookworm-slim`);

  const tools = installTools(root);
  const debian = debianRoot(path.join(root, ".cache", "test-image"));
  const scratch = mkdtempSync(path.join(tmpdir(), "miro-image-"));
  let registry;
  try {
    const folder = path.join(scratch, "root");
    const started = performance.now();
    nodeRoot(debian, folder, {
      binary: nodeBinary(root, release),
      npm: path.join(tools, "node_modules", "npm"),
    });
    console.log(
      `ok      FROM         ${base}: Debian and Node (${((performance.now() - started) / 1000).toFixed(1)} s)`,
    );
    const storage = path.join(scratch, "storage");
    mkdirSync(storage);
    const upstream = execute("npm", ["config", "get", "registry"]);
    registry = await startRegistry({ tools, folder: scratch, storage, upstream });
    publishAll(packages, registry.url, scratch);
    const image = build(folder, steps, { npm_config_registry: registry.url });
    await registry.close();
    registry = undefined;
    for (const [name, test] of Object.entries({ generate: draws, studio: serves })) {
      const start = performance.now();
      console.log(
        `ok      ${name.padEnd(12)} ${await test(folder, image)} (${((performance.now() - start) / 1000).toFixed(1)} s)`,
      );
    }
    console.log(`the image's files: ${execute("du", ["-sh", "--apparent-size", folder]).split("\t")[0]}`);
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
