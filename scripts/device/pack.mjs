#!/usr/bin/env node
/**
 * `npm run pack:device`: makes the folder that travels to a machine with a GPU, Python's torch, CMake and a compiler,
 * but neither Node nor npm nor a network. `bash FOLDER/run.sh` runs the device check there.
 *
 *   node.xz       this Node, without its symbols
 *   tree.tar.xz   compiled code, the addon's sources, the modules that the check loads, the recordings
 *   run.sh        unpacks both, builds the addon, runs the check
 *
 * Packing Node takes about a minute; the result is kept in the cache of the set-up.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { beginFile, publishFolder, removeKilledWrites, writeFileAtomically } from "@miro-t2i/torch/atomic-write";
import { field, runProgram } from "miro-t2i/cli";
import { z } from "zod";
import { cacheFolder } from "../setup/libtorch.mjs";
import { which } from "../setup/report.mjs";
import { packedFiles } from "./packed-files.mjs";

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const LIMIT_BYTES = 32 * 2 ** 20;

/** Runs a program between files. @throws Error with what it said */
function run(command, args, { from, to, cwd } = {}) {
  const [input, output] = [from && openSync(from, "r"), to && openSync(to, "w")];
  const { status, error, stderr } = spawnSync(command, args, {
    cwd,
    stdio: [input ?? "ignore", output ?? "ignore", "pipe"],
    encoding: "utf8",
  });
  for (const file of [input, output]) if (file !== undefined) closeSync(file);
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? stderr.trim().split("\n").at(-1)}`);
}

/** Machine code packs better behind the filter for it. Blocks are packed at the same time. */
const compress = (from, to) =>
  run("xz", ["-T0", "--block-size=32MiB", "-c", "--x86", "--lzma2=preset=6,dict=32MiB"], { from, to });

/** node.xz of this Node, from the cache where it is there. */
function packNode(work) {
  const hash = createHash("sha256").update(readFileSync(process.execPath)).digest("hex").slice(0, 16);
  const cached = path.join(cacheFolder(process.env), "device", `node-${hash}.xz`);
  if (!existsSync(cached)) {
    const [node, packed] = [path.join(work, "node"), path.join(work, "node.xz")];
    copyFileSync(process.execPath, node);
    if (which("strip", process.env)) run("strip", [node]);
    run(node, ["--version"]);
    compress(node, packed);
    mkdirSync(path.dirname(cached), { recursive: true });
    removeKilledWrites(path.dirname(cached));
    writeFileAtomically(cached, (write) => write(readFileSync(packed)));
  }
  return cached;
}

/** tree.tar.xz: the files, the links of the workspaces, and which commit they are of. */
function packTree(work) {
  const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8")).packages;
  const extra = path.join(work, "extra");
  mkdirSync(path.join(extra, "node_modules", "@miro-t2i"), { recursive: true });
  symlinkSync("../../packages/torch", path.join(extra, "node_modules", "@miro-t2i", "torch"));
  symlinkSync("../packages/miro", path.join(extra, "node_modules", "miro-t2i"));
  const git = (...args) => spawnSync("git", args, { cwd: root, encoding: "utf8" }).stdout?.trim() ?? "";
  const changes = git("status", "--porcelain", "--untracked-files=no") === "" ? "" : " with changes";
  const commit = git("rev-parse", "--short", "HEAD") || "unknown";
  writeFileSync(path.join(extra, "packed.json"), JSON.stringify({ commit: `${commit}${changes}` }));
  const [list, tar, packed] = ["files", "tree.tar", "tree.tar.xz"].map((name) => path.join(work, name));
  writeFileSync(list, packedFiles(root, lock).join("\n"));
  const owner = ["--owner=0", "--group=0"];
  run("tar", ["-cf", tar, ...owner, "-C", root, "-T", list, "-C", extra, "packed.json", "node_modules"]);
  compress(tar, packed);
  return packed;
}

function main({ output }) {
  const needed = ["packages/torch/build/miro_torch.node", "tests/dist/device/main.js", "node_modules/node-api-headers"];
  const missing = needed.find((file) => !existsSync(path.join(root, file)));
  if (missing !== undefined) {
    console.error(`${missing} is missing; npm run setup makes it`);
    return 1;
  }
  const folder = path.resolve(output);
  if (existsSync(folder) && readdirSync(folder).some((name) => !["node.xz", "tree.tar.xz", "run.sh"].includes(name))) {
    console.error(`--output: ${folder} holds other files; name a folder that does not exist`);
    return 2;
  }
  mkdirSync(path.dirname(folder), { recursive: true });
  const work = beginFile(folder); // what killed ones have left for the folder goes
  mkdirSync(work);
  try {
    const packed = path.join(work, "packed");
    mkdirSync(packed);
    copyFileSync(packNode(work), path.join(packed, "node.xz"));
    copyFileSync(packTree(work), path.join(packed, "tree.tar.xz"));
    copyFileSync(path.join(root, "scripts", "device", "run.sh"), path.join(packed, "run.sh"));
    const sizes = readdirSync(packed).map((name) => [name, statSync(path.join(packed, name)).size]);
    const total = sizes.reduce((sum, [, size]) => sum + size, 0);
    const mebibytes = (size) => `${(size / 2 ** 20).toFixed(2)} MiB`;
    for (const [name, size] of sizes) console.log(`${mebibytes(size).padStart(10)}  ${name}`);
    console.log(`${mebibytes(total).padStart(10)}  ${folder}, of ${mebibytes(LIMIT_BYTES)} that it may have`);
    if (total > LIMIT_BYTES) {
      console.error("the folder is too large and was not made");
      return 1;
    }
    publishFolder(packed, folder);
    return 0;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

process.exitCode = await runProgram({
  name: "npm run pack:device --",
  summary:
    "Makes a folder with which the device check runs on a machine that has a GPU, Python's torch, CMake and a compiler, " +
    "but neither Node nor npm nor a network: bash FOLDER/run.sh.",
  schema: z.strictObject({
    output: field(z.string().min(1).default(".device"), {
      expected: "a folder",
      help: "where the folder is made",
      flag: "--output <dir>",
    }),
  }),
  notes: "Exit code 0: made; 1: it could not be made, or is larger than 32 MiB; 2: wrong usage.",
  run: main,
});
