/**
 * `npm run bench -- server`: how fast a web server answers while it draws. Five pictures are asked for at the sizes of
 * the published model (text encoder, network and autoencoder with random or constant weights); meanwhile this process
 * asks for `/ping` every 20 ms, whether or not the last answer has come. The server draws on its event loop, in a
 * thread (`worker: true`), and in a thread that leaves one core to the server (`threads`).
 *
 * A picture has 6 steps instead of 50, so that its decoding and its PNG fall into the time that is measured too. The
 * weights, 4 GB, are made once and kept in `.cache/bench`.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { loadavg } from "node:os";
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
import { BenchError, type BenchOptions, columns, type Percentiles, percentiles, root, store } from "./harness.js";
import type { Drawn, ServerRun } from "./server-run.js";

const PICTURES = 5;
const STEPS = 6;
const EVERY_MS = 20;
/** How long is asked while nothing is drawn, and while pictures are. */
const SECONDS = { full: { idle: 3, drawing: 30 }, tiny: { idle: 1, drawing: 3 } };
/** The first step waits for texts to be encoded. */
const FIRST_STEP_SECONDS = 60;

interface Result {
  way: string;
  threads: number;
  /** Milliseconds from the moment of asking to the answer. */
  pingMilliseconds: Percentiles;
  /** The same with no picture in progress. */
  idleMilliseconds: Percentiles;
  /** Steps that were computed meanwhile, and pictures that were sent. */
  steps: number;
  pictures: number;
  seconds: number;
  loadAverage: number;
}

export async function server(options: BenchOptions): Promise<void> {
  const cores = getNumThreads();
  const ways: [string, Omit<ServerRun, "folder">][] = [
    ["on the event loop", { worker: false, threads: cores, steps: STEPS }],
    ["in a thread", { worker: true, threads: cores, steps: STEPS }],
    ["in a thread, one core left to the server", { worker: true, threads: Math.max(1, cores - 1), steps: STEPS }],
  ];
  const folder = await keptModel(options.size);
  const results: Result[] = [];
  for (let round = 0; round < options.rounds; round++)
    for (const [way, run] of ways) results.push(await measure(way, { folder, ...run }, SECONDS[options.size]));
  const milliseconds = ({ p50, p99, max }: Percentiles) => [p50, p99, max].map((value) => value.toFixed(1));
  console.log(
    columns([
      [
        "/ping while 5 pictures are drawn, ms",
        ...["threads", "median", "p99", "max", "steps a second", "pictures", "p99 when idle"],
      ],
      ...results.map((result) => [
        result.way,
        String(result.threads),
        ...milliseconds(result.pingMilliseconds),
        (result.steps / result.seconds).toFixed(2),
        String(result.pictures),
        result.idleMilliseconds.p99.toFixed(1),
      ]),
    ]),
  );
  const config = { size: options.size, network: NETWORKS[options.size], ...frozenParts(options.size) };
  const asked = { pictures: PICTURES, stepsOfAPicture: STEPS, everyMs: EVERY_MS };
  console.log(`written: ${store(options, { ...config, ...asked }, { results })}`);
}

async function measure(way: string, run: ServerRun, seconds: { idle: number; drawing: number }): Promise<Result> {
  const program = fileURLToPath(new URL("server-run.js", import.meta.url));
  const child = spawn(process.execPath, [program, JSON.stringify(run)], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const leave = new AbortController();
  try {
    const begun = performance.now();
    const url = `http://127.0.0.1:${await portOf(child)}`;
    console.log(`${way}: ready after ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    const idleMilliseconds = await ping(url, seconds.idle);
    let failure: unknown = null;
    const pictures = Array.from({ length: PICTURES }, (_, seed) =>
      get(`${url}/draw?seed=${seed}`, leave.signal).catch((error: unknown) => {
        if (!leave.signal.aborted) failure ??= error;
      }),
    );
    const drawn = async () => {
      const state = JSON.parse((await get(`${url}/drawn`)).toString()) as Drawn;
      if (failure) throw failure;
      return state;
    };
    const patience = performance.now() + 1000 * FIRST_STEP_SECONDS;
    while ((await drawn()).steps === 0) {
      if (performance.now() > patience) throw new BenchError(`${way}: no step in ${FIRST_STEP_SECONDS} s`);
      await sleep(50);
    }
    const before = await drawn();
    const start = performance.now();
    const pingMilliseconds = await ping(url, seconds.drawing);
    const after = await drawn();
    const taken = (performance.now() - start) / 1000;
    leave.abort();
    await Promise.all(pictures);
    return {
      way,
      threads: run.threads,
      pingMilliseconds,
      idleMilliseconds,
      steps: after.steps - before.steps,
      pictures: after.pictures,
      seconds: taken,
      loadAverage: loadavg()[0]!,
    };
  } finally {
    leave.abort();
    child.kill("SIGKILL");
    await ended; // the next server has the machine for itself
  }
}

/**
 * The body of an answer, however late it comes: fetch gives up a connection that is not taken within 10 s.
 * @throws BenchError with what came instead of it
 */
async function get(url: string, signal?: AbortSignal): Promise<Buffer> {
  let body: Buffer;
  let status: number | undefined;
  try {
    const request = http.get(url, { agent: false, ...(signal && { signal }) });
    const [answer] = (await once(request, "response")) as [http.IncomingMessage];
    status = answer.statusCode;
    body = Buffer.concat(await answer.toArray());
  } catch (error) {
    throw new BenchError(`${url}: ${(error as Error).message}`, { cause: error });
  }
  if (status === 200 && body.length > 0) return body;
  throw new BenchError(`${url}: the server answered ${status} with ${JSON.stringify(body.toString().slice(0, 500))}`);
}

async function portOf(child: ChildProcess): Promise<string> {
  const said = await Promise.race([once(child.stdout!, "data"), once(child, "exit")]);
  if (child.exitCode !== null || child.signalCode !== null)
    throw new BenchError(`the server ended with ${child.exitCode ?? child.signalCode}`);
  return String(said[0]).trim();
}

/** Asks for `/ping` at a steady pace: an answer that is late keeps no later question waiting. */
async function ping(url: string, duration: number): Promise<Percentiles> {
  const answers: Promise<number>[] = [];
  const start = performance.now();
  for (let due = start; due < start + 1000 * duration; due += EVERY_MS) {
    await sleep(Math.max(0, due - performance.now()));
    const asked = performance.now();
    const answer = get(`${url}/ping`).then(() => performance.now() - asked);
    answer.catch(() => {}); // is told at the end, with the others
    answers.push(answer);
  }
  return percentiles(await Promise.all(answers));
}

/** The folder of a model with random weights, which is made where no earlier run of the same sizes has left it. */
async function keptModel(size: "full" | "tiny"): Promise<string> {
  const sizes = JSON.stringify([NETWORKS[size], frozenParts(size)]);
  const kept = join(root(), ".cache", "bench");
  const folder = join(kept, `server-${size}-${createHash("sha256").update(sizes).digest("hex").slice(0, 12)}`);
  const isThere = existsSync(folder);
  const begun = performance.now();
  if (!isThere) {
    mkdirSync(kept, { recursive: true });
    const unfinished = mkdtempSync(`${folder}-unfinished-`);
    try {
      await writeModel(unfinished, size);
      renameSync(unfinished, folder);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(`weights: ${folder} (${isThere ? "of an earlier run" : `made in ${seconds} s`})`);
  return folder;
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
      network,
      preconditioning,
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
