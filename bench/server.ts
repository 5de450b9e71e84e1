/**
 * `npm run bench -- server`: how fast a web server answers while it draws. Five pictures are asked for at the sizes of
 * the published model (random weights, 50 steps); meanwhile this process asks for `/ping` every 20 ms, whether or not
 * the last answer has come. The server draws on its event loop, in a thread (`worker: true`), and in a thread that
 * leaves one core to the server (`threads`).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { getNumThreads, manualSeed, nn, ones, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import {
  AutoencoderKL,
  FlowPrecond,
  parseAutoencoderKLConfig,
  parsePrecondConfig,
  parseRinConfig,
  Rin,
  saveCheckpoint,
  T5Encoder,
} from "miro-t2i/networks";
import { frozenParts, NETWORKS } from "./configurations.js";
import { BenchError, type BenchOptions, columns, root, store } from "./harness.js";
import type { Drawn, ServerRun } from "./server-run.js";

const PICTURES = 5;
const EVERY_MS = 20;
const SECONDS = { full: 30, tiny: 3 };

interface Answers {
  p50: number;
  p99: number;
  max: number;
  samples: number;
}

interface Result {
  way: string;
  threads: number;
  /** Milliseconds from the moment of asking to the answer. */
  pingMilliseconds: Answers;
  /** The same with no picture in progress. */
  idleMilliseconds: Answers;
  /** Steps of the five pictures that were computed meanwhile. */
  steps: number;
  seconds: number;
  loadAverage: number;
}

export async function server(options: BenchOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-server-"));
  const cores = getNumThreads();
  const ways: [string, Omit<ServerRun, "folder">][] = [
    ["on the event loop", { worker: false, threads: cores }],
    ["in a thread", { worker: true, threads: cores }],
    ["in a thread, one core left to the server", { worker: true, threads: Math.max(1, cores - 1) }],
  ];
  try {
    await writeModel(folder, options.size);
    const results: Result[] = [];
    for (let round = 0; round < options.rounds; round++)
      for (const [way, run] of ways) results.push(await measure(way, { folder, ...run }, SECONDS[options.size]));
    const milliseconds = ({ p50, p99, max }: Answers) => [p50, p99, max].map((value) => value.toFixed(1));
    console.log(
      columns([
        ["/ping while 5 pictures are drawn, ms", "threads", "median", "p99", "max", "steps a second", "p99 when idle"],
        ...results.map((result) => [
          result.way,
          String(result.threads),
          ...milliseconds(result.pingMilliseconds),
          (result.steps / result.seconds).toFixed(2),
          result.idleMilliseconds.p99.toFixed(1),
        ]),
      ]),
    );
    const config = { size: options.size, network: NETWORKS[options.size], ...frozenParts(options.size) };
    console.log(`written: ${store(options, { ...config, pictures: PICTURES, everyMs: EVERY_MS }, { results })}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measure(way: string, run: ServerRun, duration: number): Promise<Result> {
  const program = fileURLToPath(new URL("server-run.js", import.meta.url));
  const child = spawn(process.execPath, [program, JSON.stringify(run)], { stdio: ["ignore", "pipe", "inherit"] });
  const leave = new AbortController();
  try {
    const url = `http://127.0.0.1:${await portOf(child)}`;
    const idleMilliseconds = await ping(url, Math.min(5, duration));
    const pictures = Array.from({ length: PICTURES }, (_, seed) =>
      fetch(`${url}/draw?seed=${seed}`, { signal: leave.signal }).catch(() => null),
    );
    const drawn = async () => (await (await fetch(`${url}/drawn`)).json()) as Drawn;
    while ((await drawn()).steps === 0) await sleep(50); // texts are encoded first
    const { steps: before } = await drawn();
    const start = performance.now();
    const pingMilliseconds = await ping(url, duration);
    const { steps: after } = await drawn();
    const seconds = (performance.now() - start) / 1000;
    leave.abort();
    await Promise.all(pictures);
    return {
      ...{ way, threads: run.threads, pingMilliseconds, idleMilliseconds },
      ...{ steps: after - before, seconds, loadAverage: loadavg()[0]! },
    };
  } finally {
    child.kill();
  }
}

function portOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    child.stdout!.once("data", (bytes: Buffer) => resolve(bytes.toString().trim()));
    child.once("exit", (code) => reject(new BenchError(`the server ended with ${code}`)));
  });
}

/** Asks for `/ping` at a steady pace: an answer that is late keeps no later question waiting. */
async function ping(url: string, duration: number): Promise<Answers> {
  const answers: Promise<number>[] = [];
  const start = performance.now();
  for (let due = start; due < start + 1000 * duration; due += EVERY_MS) {
    await sleep(Math.max(0, due - performance.now()));
    const asked = performance.now();
    answers.push(
      fetch(`${url}/ping`)
        .then((answer) => answer.text())
        .then(() => performance.now() - asked),
    );
  }
  const times = (await Promise.all(answers)).sort((a, b) => a - b);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(share * times.length))]!;
  return { p50: at(0.5), p99: at(0.99), max: times.at(-1)!, samples: times.length };
}

/** A model with random weights, as a folder: what a thread can load. */
async function writeModel(folder: string, size: "full" | "tiny"): Promise<void> {
  const args = NETWORKS[size];
  const { t5, vae } = frozenParts(size);
  manualSeed(0);
  const network = new Rin(parseRinConfig(args));
  const preconditioning = new FlowPrecond(
    parsePrecondConfig({ num_latents: args.num_latents, latents_dim: args.latents_dim }),
  );
  scope(() =>
    saveCheckpoint(folder, {
      config: {
        network: network.config,
        preconditioning: preconditioning.config,
        settings: { data_resolution: args.data_size, max_text_len: args.num_cond_tokens },
        coherenceKeys: args.coherence_keys,
      },
      ...{ network, preconditioning },
      postprocessing: { scale: ones([1, 4, 1, 1]), bias: zeros([1, 4, 1, 1]) },
      uncondEmbedding: randn([1, args.label_dim]),
    }),
  );
  network.dispose();
  preconditioning.dispose();

  const autoencoder = nn.init.skipped(() => new AutoencoderKL(parseAutoencoderKLConfig(vae)));
  fill(autoencoder);
  mkdirSync(join(folder, "vae"));
  writeFileSync(join(folder, "vae", "config.json"), JSON.stringify(vae));
  const weights = new Map<string, Tensor>(autoencoder.stateDict());
  writeSafetensors(join(folder, "vae", "diffusion_pytorch_model.safetensors"), weights, { format: "pt" });
  autoencoder.dispose();

  // The tokenizer is the small one of the tests, whose numbers are below the vocabulary's size.
  const encoder = nn.init.skipped(() => new T5Encoder(T5Encoder.configFromJson(t5, "bench")));
  fill(encoder.to({ dtype: "bfloat16" }));
  await encoder.save(join(folder, "text_encoder"));
  encoder.dispose();
  const tokenizer = join(root(), "tests", "reference", "fixtures", "tiny", "text_encoder");
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    copyFileSync(join(tokenizer, file), join(folder, "text_encoder", file));
}

/** One value everywhere: nothing overflows, and the time does not depend on it. */
function fill(module: nn.Module): void {
  module.requiresGrad_(false).eval();
  for (const parameter of module.parameters()) parameter.fill_(0.01);
}
