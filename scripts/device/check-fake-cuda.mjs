#!/usr/bin/env node
/**
 * `npm run check:cuda`: runs generate, train and preprocess on a device "cuda" that needs no GPU (fake-cuda.mjs) and
 * prints a line for each finding:
 *
 *   an operator that got tensors of two devices
 *   anything inside the capture of a CUDA graph that cannot be captured
 *   more waits of the host, or more blocking copies to the device, in a step than its limit says
 *   sampling steps that do not ask how far the device is: then all of them are queued at once
 *
 * Each program runs twice, with more steps the second time: what a step costs is the difference. Exit code 0: nothing
 * found.
 */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runProgram } from "miro-t2i/cli";
import { z } from "zod";

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const fixtures = path.join(root, "tests", "reference", "fixtures", "shards");

/**
 * Waits and copies that a step may have. Lower a limit when the code gets better; raise none without a reason that
 * stands here. Training sends its batch in one copy that does not block, and asks without waiting, once the gradients
 * of the next step are queued, whether the figures of a step have come; preprocessing fetches means, deviations and
 * text states of a batch and sends pictures, ids and masks. A sampling step asks at least twice, without waiting,
 * whether the one two before it is done: the device of fake-cuda.mjs says no once.
 */
const programs = (work) => [
  // The second draws noise in every step.
  ...["euler", "euler_ancestral"].map((sampler) => ({
    name: `generate with ${sampler}`,
    step: "sampling step",
    limits: { wait: 0, copy: 0 },
    least: { poll: 2 },
    steps: [4, 8],
    args: (steps, run) => [
      "generate",
      "a red apple",
      "--device=cuda",
      "--seed=1",
      `--sampler=${sampler}`,
      `--steps=${steps}`,
      `--output=${run}`,
    ],
  })),
  ...[
    ["train 32-true", "shards-train.yaml", "32-true", { wait: 0, copy: 0 }],
    ["train 16-mixed", "shards-train.yaml", "16-mixed", { wait: 0, copy: 0 }],
    ["train bf16-mixed on random data", "random-train.yaml", "bf16-mixed", { wait: 0, copy: 0 }],
    ...["32-true", "bf16-mixed", "16-mixed"].map((precision) => [
      `train ${precision} with CUDA graphs`,
      "shards-train.yaml",
      precision,
      { wait: 0, copy: 0 },
      ["trainer.cuda_graphs=true"],
    ]),
    ...[
      ["train as the first of two processes", []],
      ["train as the first of two processes with CUDA graphs", ["trainer.cuda_graphs=true"]],
    ].map(([name, more]) => [
      name,
      "shards-train.yaml",
      "bf16-mixed",
      { wait: 0, copy: 0 },
      ["trainer.devices=2", ...more],
      { RANK: "0", WORLD_SIZE: "2", LOCAL_WORLD_SIZE: "2", MASTER_ADDR: "127.0.0.1" },
    ]),
  ].map(([name, recipe, precision, limits, more = [], env = {}]) => ({
    name,
    step: "optimizer step",
    limits,
    env,
    steps: [4, 8],
    args: (steps, run) => [
      "train",
      path.join(root, "scripts", "device", recipe),
      ...(recipe.startsWith("shards") ? [`data.dir=${path.join(work, "shards")}`] : []),
      `trainer.precision=${precision}`,
      `trainer.max_steps=${steps}`,
      ...more,
      "--device=cuda",
      `--output=${run}`,
    ],
  })),
  {
    name: "preprocess",
    step: "batch",
    limits: { wait: 3, copy: 4 },
    steps: [1, 2],
    args: (batches, run) => [
      "preprocess",
      "--stage=vae",
      "--src",
      path.join(fixtures, "raw"),
      "--shard-range",
      `0-${batches - 1}`,
      "--dest",
      path.join(run, "train"),
      "--csv-dir",
      path.join(run, "scores"),
      "--model",
      path.join(root, "models", "miro-emoji"),
      "--no-vae-512",
      "--missing-scores=allow",
      "--device=cuda",
    ],
  },
];

/** A port that nobody listens at. */
function freePort() {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.on("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** What fake-cuda found in one run of `miro`. @param more variables of its environment */
async function findings(args, log, more) {
  const preload = pathToFileURL(path.join(root, "scripts", "device", "fake-cuda.mjs")).href;
  const env = {
    ...process.env,
    NODE_OPTIONS: `--import ${preload}`,
    FAKE_CUDA_LOG: log,
    OMP_NUM_THREADS: "1",
    NO_COLOR: "1",
    MASTER_PORT: String(await freePort()),
    ...more,
  };
  const child = spawn(process.execPath, [path.join(root, "packages", "miro", "bin", "miro.mjs"), ...args], {
    cwd: root,
    env,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr = (stderr + text).slice(-4000);
  });
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (code !== 0) throw new Error(`miro ${args[0]} ended with ${code}: ${stderr.trim().split("\n").at(-1)}`);
  return readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

const timesOf = (found, kind) => found.reduce((sum, one) => sum + (one.kind === kind ? one.times : 0), 0);

const NOUNS = {
  poll: "looks at how far the device is",
  wait: "waits of the host",
  copy: "blocking copies to the device",
};

/** The lines about one program, and its figures. */
async function check({ name, step, limits, least = {}, steps, args, env = {} }, work) {
  const runs = await Promise.all(
    steps.map((count) => {
      const run = path.join(work, `${name.replaceAll(" ", "-")}-${count}`);
      return findings(args(count, run), `${run}.jsonl`, env);
    }),
  );
  const lines = runs[1]
    .filter(({ kind }) => kind === "mix" || kind === "capture")
    .map(({ kind, what, site, times }) =>
      kind === "mix"
        ? `${name}: tensors of two devices in ${what} (${times} times) at ${site}`
        : `${name}: ${what} inside the capture of a CUDA graph (${times} times) at ${site}`,
    );
  const figures = [];
  const inOneStep = (kind) => (timesOf(runs[1], kind) - timesOf(runs[0], kind)) / (steps[1] - steps[0]);
  for (const [kind, fewest] of Object.entries(least)) {
    const [perStep, noun] = [inOneStep(kind), NOUNS[kind]];
    figures.push(`${perStep} ${noun}`);
    if (perStep < fewest) lines.push(`${name}: ${perStep} ${noun} in one ${step}, at least ${fewest} are expected`);
  }
  for (const [kind, limit] of Object.entries(limits)) {
    const [perStep, noun] = [inOneStep(kind), NOUNS[kind]];
    figures.push(`${perStep} ${noun}`);
    if (perStep <= limit) continue;
    const grown = runs[1].filter((one) => {
      const before = runs[0].find(
        (other) => other.kind === one.kind && other.what === one.what && other.site === one.site,
      );
      return one.kind === kind && one.times > (before?.times ?? 0);
    });
    lines.push(`${name}: ${perStep} ${noun} in one ${step}, at most ${limit} are allowed`);
    for (const { what, site, times } of grown) lines.push(`  ${times} × ${what} at ${site}`);
  }
  return { lines, summary: `${name}: ${figures.join(", ")} in one ${step}` };
}

/** Checks every program. @returns the exit code */
async function main() {
  const work = mkdtempSync(path.join(tmpdir(), "miro-fake-cuda-"));
  try {
    cpSync(path.join(fixtures, "enriched"), path.join(work, "shards"), { recursive: true });
    let failed = 0;
    for (const program of programs(work)) {
      const { lines, summary } = await check(program, work);
      console.log(summary);
      for (const line of lines) console.log(line);
      failed += lines.length;
    }
    console.log(failed === 0 ? "no findings" : `${failed} lines of findings`);
    return failed === 0 ? 0 : 1;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

process.exitCode = await runProgram({
  name: "npm run check:cuda --",
  summary:
    'Runs generate, train and preprocess on a device "cuda" that needs no GPU, and prints a line for each finding: ' +
    "operators with tensors of two devices, what a CUDA graph cannot capture, too many waits or copies in a step, and " +
    "sampling steps that are queued all at once.",
  schema: z.strictObject({}),
  notes: "Exit code 0: nothing found; 1: something was; 2: wrong usage.",
  run: main,
});
