/** What `docker build`, `docker run` and `docker stop` do, in a root folder of its own (chroot). */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BASE_PATH } from "./dockerfile.mjs";

const TO_START_MS = 60_000;
const TO_END_MS = 30_000;

/** The state that a container starts with, before any step. */
export const bare = () => ({
  user: "root",
  cwd: "/",
  env: { PATH: BASE_PATH },
  entrypoint: [],
  command: [],
  health: [],
  port: null,
  volume: null,
});

export function execute(command, args, options = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", ...options });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${stdout}${stderr}`);
  return stdout.trim();
}

/** The command line of a program inside: /proc and /dev are there, and go with the program. */
function inside(folder, { user, cwd, env }, command) {
  const script = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$@"';
  const identity = user === "root" ? [] : [`--userspec=${user}`];
  const variables = Object.entries({ PATH: BASE_PATH, ...env }).map(([name, value]) => `${name}=${value}`);
  const enter = 'cd "$0" && exec "$@"';
  return [
    ...["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, folder],
    ...[...identity, folder, "/usr/bin/env", "-i", ...variables, "sh", "-c", enter, cwd, ...command],
  ];
}

/** Runs a command of the shell inside, to its end. @returns what it printed */
export function shell(folder, image, text) {
  const [program, ...args] = inside(folder, image, ["/bin/sh", "-c", text]);
  return execute(program, args, { maxBuffer: 2 ** 26 });
}

/** As `docker run IMAGE ARGS`; what it prints is collected. */
export function start(folder, image, args) {
  const [program, ...rest] = inside(folder, image, [...image.entrypoint, ...args]);
  const child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
  const running = { child, output: "", ended: new Promise((resolve) => child.once("close", resolve)) };
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (running.output += part));
  return running;
}

/** As `docker stop`: the first process inside is told to end. */
async function stop({ child, output, ended }) {
  const inner = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim();
  if (inner !== "") process.kill(Number(inner), "SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), TO_END_MS); // what runs inside goes with it
  await ended;
  clearTimeout(late);
  if (child.signalCode !== null) throw new Error(`the studio did not end when it was stopped:\n${output}`);
}

/**
 * Starts a server, waits until it is well, and stops it when it was used.
 *
 * @param isWell asks, once
 * @param use what is asked of it
 */
export async function serve(folder, image, args, isWell, use) {
  const running = start(folder, image, args);
  try {
    const deadline = performance.now() + TO_START_MS;
    while (!(await isWell())) {
      if (running.child.exitCode !== null || performance.now() > deadline)
        throw new Error(`the studio is not well:\n${running.output}`);
      await sleep(500);
    }
    return await use();
  } finally {
    await stop(running);
  }
}

/** Whether a server says that it is well, from outside. */
export const answers = (port) => async () => (await fetch(`http://127.0.0.1:${port}/health`).catch(() => null))?.ok;

/** Whether the health check of an image says so, inside. */
export const healthCheck = (folder, image) => () => {
  const [program, ...args] = inside(folder, image, image.health);
  return spawnSync(program, args).status === 0;
};

/**
 * Takes the steps of a Dockerfile.
 *
 * @param context the folder that COPY takes files from
 * @param given variables of each RUN
 * @returns what the steps leave: the state that a container starts with
 */
export function build(folder, steps, context, given) {
  const image = bare();
  for (const { keyword, text, env } of steps) {
    const started = performance.now();
    if (keyword === "RUN") shell(folder, { ...image, env: { ...env, ...given } }, text);
    else if (keyword === "COPY") copy(folder, image, text, context);
    else if (keyword === "WORKDIR") {
      image.cwd = path.posix.resolve(image.cwd, text);
      mkdirSync(path.join(folder, image.cwd), { recursive: true });
    } else if (keyword === "USER") image.user = `${text}:${text}`;
    else if (keyword === "EXPOSE") image.port = text;
    else if (keyword === "VOLUME") image.volume = text;
    else if (keyword === "ENTRYPOINT") image.entrypoint = JSON.parse(text);
    else if (keyword === "CMD") image.command = JSON.parse(text);
    else if (keyword === "HEALTHCHECK") image.health = JSON.parse(text.slice(text.indexOf("CMD") + 3));
    else throw new Error(`${keyword} is a step that this test does not know`);
    image.env = env;
    done(keyword, text.slice(0, 90), started);
  }
  return image;
}

/** A file of the context, for a user by name. */
function copy(folder, image, text, context) {
  const [, owner, from, to] = /^(?:--chown=(\w+):\w+ )?(\S+) (\S+)$/.exec(text) ?? [];
  if (from === undefined) throw new Error(`COPY ${text}: this test knows one file and its owner`);
  const target = path.join(folder, path.posix.resolve(image.cwd, to));
  copyFileSync(path.join(context, from), target);
  chmodSync(target, statSync(path.join(context, from)).mode & 0o777);
  if (owner !== undefined) {
    const id = (option) => Number(execute("chroot", [folder, "id", option, owner]));
    chownSync(target, id("-u"), id("-g"));
  }
}

export function done(name, what, started) {
  console.log(`ok      ${name.padEnd(12)} ${what} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
}
