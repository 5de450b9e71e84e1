/**
 * Samples a second of a training in two processes with one thread each, against one process with one thread (which
 * computes half the samples of a step), and against two such trainings that know nothing of each other: what the
 * machine gives without any communication.
 *
 * Each is a `miro train` on random data, one after the other in every round. Speeds are means over the last steps of
 * its log. Two processes of the full network (`--size full`) need more than 24 GiB of memory.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NETWORKS } from "./configurations.js";
import { BenchError, type BenchOptions, columns, root, spread, store } from "./harness.js";

/** The network of the bundled model. */
const BUNDLED = {
  ...NETWORKS.tiny,
  data_size: 32,
  patch_size: 4,
  label_dim: 128,
  num_cond_tokens: 32,
  data_dim: 128,
  num_latents: 48,
  latents_dim: 192,
  num_blocks: 3,
  num_processing_layers: 2,
  read_write_heads: 4,
  compute_heads: 4,
  use_self_conditioning: false,
  coherence_keys: ["clip_score"],
};

const SIZES = {
  full: { network: NETWORKS.full, text: 77, perProcess: 8, atOnce: 2, steps: 2, warmup: 1 },
  // As many samples a process as the recipes of the paper have.
  tiny: { network: BUNDLED, text: 16, perProcess: 64, atOnce: 16, steps: 8, warmup: 2 },
};

interface Figures {
  imagesPerSecond: number;
  communicationMs: number | null;
  hiddenMs: number | null;
}

/** `npm run bench -- scaling` */
export async function scaling(options: BenchOptions): Promise<void> {
  const size = SIZES[options.size];
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-"));
  const results: Record<"alone" | "together" | "apart", Figures[]> = { alone: [], together: [], apart: [] };
  try {
    for (let round = 0; round < options.rounds; round++) {
      const run = (name: string, processes: number) => train(join(folder, `${name}-${round}`), size, processes);
      results.alone.push(await run("alone", 1));
      results.together.push(await run("together", 2));
      const [one, other] = await Promise.all([run("apart-a", 1), run("apart-b", 1)]);
      results.apart.push({ ...one, imagesPerSecond: one.imagesPerSecond + other.imagesPerSecond });
      console.error(`round ${round + 1} of ${options.rounds}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const rate = (name: keyof typeof results) => spread(results[name].map(({ imagesPerSecond }) => imagesPerSecond));
  const pairs = results.together.map(({ imagesPerSecond }, i) => ({
    ofTwice: imagesPerSecond / (2 * results.alone[i]!.imagesPerSecond),
    ofApart: imagesPerSecond / results.apart[i]!.imagesPerSecond,
  }));
  const efficiency = spread(pairs.map(({ ofTwice }) => ofTwice));
  const ofMachine = spread(pairs.map(({ ofApart }) => ofApart));
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const shown = (value: number) => value.toPrecision(3);
  console.log(
    columns([
      ["training, one thread a process", "samples/s", "least", "most"],
      ...(
        [
          ["one process", "alone"],
          ["two processes, one training", "together"],
          ["two trainings beside each other", "apart"],
        ] as const
      ).map(([label, name]) => {
        const { median, min, max } = rate(name);
        return [label, shown(median), shown(min), shown(max)];
      }),
    ]),
  );
  console.log(`of twice one process: ${percent(efficiency.median)}`);
  console.log(`of two trainings beside each other: ${percent(ofMachine.median)}`);
  const { communicationMs, hiddenMs } = results.together.at(-1)!;
  console.log(`gradients under way ${communicationMs} ms a step, ${hiddenMs} ms of it while others were computed`);
  const file = store(
    options,
    {
      network: size.network,
      samplesPerProcess: size.perProcess,
      atOnce: size.atOnce,
      textTokens: size.text,
      measuredSteps: size.steps,
    },
    {
      samplesPerSecond: { alone: rate("alone"), together: rate("together"), apart: rate("apart") },
      efficiency,
      ofMachine,
      rounds: results,
    },
  );
  console.log(file);
}

/** Trains for a few steps; the log has one line with the means over the measured steps. */
async function train(output: string, size: (typeof SIZES)["full"], processes: number): Promise<Figures> {
  const steps = size.warmup + size.steps;
  const recipe = {
    name: "scaling",
    data: { kind: "random", text_len: size.text },
    network: size.network,
    preconditioning: { do_gradnorm_reweighting: true },
    optimizer: { name: "lamb", lr: 1e-3 },
    lr_scheduler: { warmup_steps: 1, total_steps: 1000 },
    logger: { tensorboard: false, peak_tflops: 1 },
    trainer: {
      max_steps: steps,
      batch_size: size.perProcess * processes,
      device_batch_size: size.atOnce,
      devices: processes,
      threads: 1,
      log_every_n_steps: 1,
      // No checkpoint but the last.
      checkpoint_every_n_steps: steps,
    },
  };
  const file = `${output}.yaml`;
  writeFileSync(file, JSON.stringify(recipe)); // JSON is YAML
  const miro = join(root(), "packages/miro/bin/miro.mjs");
  const child = spawn(process.execPath, [miro, "train", file, "--output", output], {
    env: { ...process.env, OMP_NUM_THREADS: "1" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  if (code !== 0) throw new BenchError(`miro train failed: ${stderr.trim().split("\n").at(-1)}`);
  const lines = readFileSync(join(output, "log.jsonl"), "utf8").trim().split("\n");
  const measured = lines.map((line) => JSON.parse(line) as Record<string, number>).slice(size.warmup);
  rmSync(output, { recursive: true });
  const stepMs = measured.reduce((sum, line) => sum + line["speed/step_ms"]!, 0) / measured.length;
  const last = measured.at(-1)!;
  return {
    imagesPerSecond: (size.perProcess * processes * 1000) / stepMs,
    communicationMs: last["speed/communication_ms"] ?? null,
    hiddenMs: last["speed/communication_hidden_ms"] ?? null,
  };
}
