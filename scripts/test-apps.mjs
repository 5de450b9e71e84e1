#!/usr/bin/env node
/**
 * The Next.js application of examples/ as it is served: installed with the packages as they are published, built by
 * `next build`, started by `next start`, and asked for pictures.
 *
 *   npm run test:apps
 *
 * Next.js comes from npm (370 MB) and is kept in .cache/apps. The addon is that of this clone.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { miroPackage, torchPackage } from "./release/packages.mjs";
import { argumentsOf } from "./setup/command-line.mjs";
import { readJson } from "./setup/report.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const home = path.join(root, ".cache", "apps", "next");
const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1" };

/** Installs what the example and the packages need of others. */
function installOthers() {
  const { dependencies, devDependencies } = readJson(path.join(root, "examples/next/package.json"));
  const needed = { ...dependencies, ...devDependencies };
  for (const name of ["torch", "miro"]) Object.assign(needed, readJson(manifestOf(name)).dependencies);
  const others = Object.fromEntries(Object.entries(needed).filter(([name]) => !/^(miro-t2i|@miro-t2i\/)/.test(name)));
  const manifest = JSON.stringify({ private: true, type: "module", dependencies: others }, null, 2);
  const done = path.join(home, "installed.json");
  if (existsSync(done) && readFileSync(done, "utf8") === manifest) return;
  mkdirSync(home, { recursive: true });
  writeFileSync(path.join(home, "package.json"), manifest);
  const args = ["install", "--no-audit", "--no-fund", "--ignore-scripts"];
  const { status } = spawnSync("npm", args, { cwd: home, stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new Error("test:apps: Next.js could not be installed");
  writeFileSync(done, manifest);
}

function manifestOf(name) {
  return path.join(root, "packages", name, "package.json");
}

/** Puts the packages among the modules of the application, as npm would, with this clone's addon. */
async function installPackages() {
  for (const { name, entries } of [torchPackage({ root }), await miroPackage({ root })]) {
    const folder = path.join(home, "node_modules", name);
    rmSync(folder, { recursive: true, force: true });
    for (const [inside, { file, content }] of entries) {
      const target = path.join(folder, inside);
      mkdirSync(path.dirname(target), { recursive: true });
      if (content === undefined) copyFileSync(file, target);
      else writeFileSync(target, content);
    }
  }
  const [from, to] = [path.join(root, "packages/torch/build"), path.join(home, "node_modules/@miro-t2i/torch/build")];
  mkdirSync(to);
  for (const name of ["miro_torch.node", "native.json", "libtorch.json"])
    copyFileSync(path.join(from, name), path.join(to, name));
}

/** Starts the built application. @returns its address, once it listens */
async function start(next) {
  const child = spawn(process.execPath, [next, "start", "--port", "0", "--hostname", "127.0.0.1"], { cwd: home, env });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => (said += bytes));
  const address = () => /http:\/\/127\.0\.0\.1:(\d+)/.exec(said);
  while (!(address() && said.includes("Ready"))) {
    if (child.exitCode !== null) throw new Error(`next start ended with ${child.exitCode}:\n${said}`);
    await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
  }
  return { child, url: `http://127.0.0.1:${address()[1]}` };
}

async function check(url) {
  const ask = (body) => fetch(`${url}/api/pictures`, { method: "POST", body });
  const answer = await ask(JSON.stringify({ prompt: "a red apple", seed: 3 }));
  const bytes = Buffer.from(await answer.arrayBuffer());
  if (answer.status !== 200) throw new Error(`a picture was asked for, and ${answer.status} came: ${bytes}`);
  const sharp = createRequire(path.join(home, "package.json"))("sharp");
  const { format, width, height } = await sharp(bytes).metadata();
  if (format !== "png" || width !== 256 || height !== 256) throw new Error(`${format} of ${width} x ${height} came`);
  for (const wrong of ['{"prompt":5}', "{"]) {
    const { status } = await ask(wrong);
    if (status !== 400) throw new Error(`${wrong} was answered with ${status}`);
  }
  return bytes.length;
}

async function main() {
  argumentsOf(import.meta.url, {});
  installOthers();
  await installPackages();
  for (const name of ["app", "lib", "next.config.mjs"]) {
    rmSync(path.join(home, name), { recursive: true, force: true });
    cpSync(path.join(root, "examples/next", name), path.join(home, name), { recursive: true });
  }
  rmSync(path.join(home, ".next"), { recursive: true, force: true });
  const next = path.join(home, "node_modules/next/dist/bin/next");
  const begun = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, [next, "build"], { cwd: home, env, encoding: "utf8" });
  if (status !== 0) throw new Error(`next build failed:\n${stdout}${stderr}`);
  console.log(`ok      next build (${Math.round((performance.now() - begun) / 1000)} s)`);
  const { child, url } = await start(next);
  try {
    console.log(`ok      next start: a picture of ${await check(url)} bytes, and 400 for what is wrong`);
  } finally {
    child.kill();
    await once(child, "exit");
  }
  console.log("2 passed, 0 failed");
}

await main();
