/** What is made and tried in root folders: the image, the Space, and a machine with the program for everybody. */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { answers, bare, build, done, healthCheck, serve, shell, start } from "./container.mjs";
import { BASE_PATH, stepsOf } from "./dockerfile.mjs";

const KEY = "a-key-for-this-test";
const APPLE = "a red apple on a light blue background";
const NOBODY = 65534;

/** The steps of a Dockerfile that starts from a release of Node. */
function nodeSteps(file) {
  const { image, steps } = stepsOf(readFileSync(file, "utf8"));
  const release = /^node:(\d+)-bookworm-slim$/.exec(image)?.[1];
  if (release === undefined) throw new Error(`${file} starts from ${image}, not from node:N-bookworm-slim`);
  return { release, steps };
}

async function statusOf(url, options) {
  const response = await fetch(url, options);
  await response.arrayBuffer();
  return response.status;
}

async function draws(folder, image) {
  const running = start(folder, image, ["generate", APPLE, "--seed", "7", "--json"]);
  const code = await running.ended;
  if (code !== 0) throw new Error(`miro generate ended with ${code}:\n${running.output}`);
  const pictures = path.join(folder, image.volume, "pictures");
  const [name] = readdirSync(pictures);
  const { uid, size } = statSync(path.join(pictures, name));
  if (uid !== 1000) throw new Error(`${name} belongs to ${uid}, not to the user of the image`);
  return `${name}, ${size} bytes, of the user node`;
}

/** A picture by the studio's API, as its page asks for one. */
async function drawsOverHttp(port, headers) {
  const url = `http://127.0.0.1:${port}/v1/images/generations`;
  const body = JSON.stringify({ prompt: APPLE, seed: 7, response_format: "b64_json" });
  const response = await fetch(url, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });
  if (!response.ok) throw new Error(`the studio answers ${response.status}: ${await response.text()}`);
  const { data } = await response.json();
  const picture = Buffer.from(data[0].b64_json, "base64");
  if (picture.toString("latin1", 1, 4) !== "PNG") throw new Error("the studio sent no picture");
  return `${picture.length} bytes of a picture`;
}

/** `deploy/Dockerfile`, as `docker build` and `docker run` would. */
async function docker({ root, newRoot, given }) {
  const { release, steps } = nodeSteps(path.join(root, "deploy", "Dockerfile"));
  const folder = newRoot(release);
  const image = build(folder, steps, root, given);
  let started = performance.now();
  done("generate", await draws(folder, image), started);
  started = performance.now();
  const settings = { ...image, env: { ...image.env, MIRO_STUDIO_API_KEY: KEY } };
  await serve(folder, settings, image.command, healthCheck(folder, image), async () => {
    const refused = await statusOf(`http://127.0.0.1:${image.port}/api/models`);
    if (refused !== 401) throw new Error(`without the key the studio answers ${refused}, not 401`);
    const drawn = await drawsOverHttp(image.port, { authorization: `Bearer ${KEY}` });
    done("studio", `healthy on port ${image.port}; ${drawn}; a request without the key is refused`, started);
  });
}

/** `deploy/space`, as the Hub starts it: as user 1000, without a home folder, at the port that its header names. */
async function space({ root, newRoot, given }) {
  const context = path.join(root, "deploy", "space");
  const { release, steps } = nodeSteps(path.join(context, "Dockerfile"));
  const folder = newRoot(release);
  const image = build(folder, steps, context, given);
  const port = /^app_port: (\d+)$/m.exec(readFileSync(path.join(context, "README.md"), "utf8"))[1];
  const started = performance.now();
  const name = "owner-miro.hf.space";
  const hub = { HOME: "/", SPACE_ID: "owner/miro", SPACE_HOST: name, SPACE_AUTHOR_NAME: "owner" };
  const settings = { ...image, user: "1000:1000", env: { ...image.env, ...hub } };
  await serve(folder, settings, image.command, answers(port), async () => {
    const page = await fetch(`http://127.0.0.1:${port}/`);
    const policy = page.headers.get("content-security-policy");
    if (!page.ok || !policy.endsWith("frame-ancestors https://huggingface.co"))
      throw new Error(`the page answers ${page.status} and ${policy}`);
    const drawn = await drawsOverHttp(port, { origin: `https://${name}` });
    const foreign = await statusOf(`http://127.0.0.1:${port}/api/models`, {
      headers: { origin: "https://evil.example" },
    });
    if (foreign !== 403) throw new Error(`a page from elsewhere is answered ${foreign}, not 403`);
    done("Space", `port ${port}, user 1000, a home folder that cannot be written; ${drawn}`, started);
  });
}

/** `npm install --global` on a Debian: the manual page, and the unit of systemd with what it starts. */
async function machine({ root, newRoot, given }) {
  const folder = newRoot("22");
  const image = bare();
  const step = (name, text, env = {}) => {
    const started = performance.now();
    const output = shell(folder, { ...image, env: { ...image.env, DEBIAN_FRONTEND: "noninteractive", ...env } }, text);
    done(name, text.split("\n")[0].slice(0, 90), started);
    return output;
  };
  step("apt-get", "apt-get update && apt-get install --yes --no-install-recommends man-db systemd");
  step("npm", "npm install --global --no-audit --no-fund --ignore-scripts miro-t2i", given);
  const page = step("man", "man miro", { MANPAGER: "cat", MANWIDTH: "80", LANG: "C.UTF-8" });
  if (!page.startsWith("MIRO(1)") || !page.includes("miro generate [options]"))
    throw new Error(`man miro shows:\n${page.slice(0, 500)}`);

  const unit = "/etc/systemd/system/miro-studio.service";
  copyFileSync(path.join(root, "deploy", "miro-studio.service"), path.join(folder, unit));
  step("systemd", `systemd-analyze verify --man=yes ${unit}`);
  // What systemd would start, as a user without a home, with the key where LoadCredential puts it.
  const text = readFileSync(path.join(folder, unit), "utf8");
  const credentials = "/run/credentials/miro-studio.service";
  const state = "/var/lib/miro";
  for (const made of [credentials, state]) {
    mkdirSync(path.join(folder, made), { recursive: true });
    chownSync(path.join(folder, made), NOBODY, NOBODY);
  }
  const key = path.join(folder, credentials, "api-key");
  writeFileSync(key, `${KEY}\n`);
  chownSync(key, NOBODY, NOBODY);
  chmodSync(key, 0o400);
  const command = /^ExecStart=(.*)$/m.exec(text)[1].replaceAll("%d", credentials).split(" ");
  const env = Object.fromEntries(
    [...text.matchAll(/^Environment=(\w+)=(.*)$/gm)].map(([, name, value]) => [name, value]),
  );
  const service = { ...image, user: `${NOBODY}:${NOBODY}`, cwd: state, env: { PATH: BASE_PATH, ...env } };
  const port = command[command.indexOf("--port") + 1];
  const started = performance.now();
  await serve(folder, service, command, answers(port), async () => {
    const drawn = await drawsOverHttp(port, { authorization: `Bearer ${KEY}` });
    done("service", `${command.slice(0, 2).join(" ")} on port ${port}; ${drawn}`, started);
  });
}

/** Every case by its name, in the order in which they run. */
export const CASES = { docker, space, machine };
