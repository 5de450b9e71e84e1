/**
 * `npm run bench -- training [--batch 2] [--steps 3] [--precision 32-true|bf16-mixed|16-mixed] [--device cuda]`:
 * seconds of one optimizer step of the recipe multi_cad_synth (360.4M parameters; two passes for self-conditioning,
 * backward, clipping, LAMB, EMA) on shards of random data with 77 text tokens, as `miro train` makes it, this
 * implementation and the published Python one in eager mode (on batches that are there already) in the same run, the
 * share of the measured matrix-product ceiling that each reaches, and its share of the peak of the GPU's data sheet
 * where that is known (MFU).
 *
 * The two sides train alternately, each in a process of its own; the first steps, in which the optimizer's state is
 * made, are not counted. On a CPU the samples are the single steps. On a GPU the host only queues them: a sample is the
 * mean of all steps of a round, from when the GPU had done the uncounted ones to when it had done the last
 * (training-run.ts), with the EMA and the loading of batches, without log and checkpoints. Python waits for the GPU
 * after each part of a step, and its samples are single steps everywhere. The published code computes text and rewards
 * in both passes, this one once: each is credited with what it computes. On a GPU this implementation is measured with
 * CUDA graphs as well.
 *
 * `--thin` has the network at full depth and tiny width, on one thread: its processor time is what the host spends
 * on a step of any width.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cuda } from "@miro-t2i/torch";
import { forwardFlops, parseRinConfig } from "miro-t2i/networks";
import { composeRecipe, parseRecipe, recipeToJson } from "miro-t2i/training";
import { NETWORKS } from "./configurations.js";
import { dataSheetTflops } from "./data-sheet.js";
import { gemmCeiling } from "./gemm.js";
import {
  type BenchOptions,
  columns,
  failuresOf,
  inTurns,
  runOurs,
  runReference,
  type Side,
  type Spread,
  spread,
  store,
} from "./harness.js";
import { makeShards } from "./loader.js";
import { TEXT_TOKENS } from "./sampling.js";
import type { TrainingFigures, TrainingRun } from "./training-run.js";

const RECIPE = "multi_cad_synth";
const PRODUCTS_IN = { "32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16" } as const;

interface Result {
  name: string;
  batch: number;
  threads: number;
  secondsPerStep: Spread;
  /** Processor seconds of all threads; ours only. */
  cpuSecondsPerStep?: Spread;
  imagesPerSecond: number;
  /** Floating-point operations of a step. */
  tflopPerStep: number;
  tflops: number;
  /** Part of the measured matrix-product ceiling. */
  shareOfCeiling: number;
  /** Part of what the GPU can do by its data sheet; null where that is not known. */
  mfu: number | null;
  peakBytes: number;
}

/** What Python says. */
interface ReferenceFigures extends Omit<TrainingFigures, "seconds" | "cpuSeconds"> {
  /** Seconds of each measured step, by part. */
  seconds: Record<string, number[]>;
}

export async function training(options: BenchOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-shards-"));
  try {
    const { label_dim: width, data_size: side, coherence_keys: scores } = networkOf(options);
    const samples = Math.max(64, 2 * Math.max(...options.batches));
    await makeShards(folder, 2, samples / 2, { width, side, scores });
    await measureAndStore(options, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureAndStore(options: BenchOptions, shards: string): Promise<void> {
  const { batches, device, precision, python, rounds, steps, thin } = options;
  const ceiling = gemmCeiling(PRODUCTS_IN[precision], device);
  const gpu = device === "cpu" ? undefined : cuda.devices()[Number(device.split(":")[1] ?? 0)];
  const peakTflops = gpu === undefined ? null : dataSheetTflops(gpu.name, PRODUCTS_IN[precision]);
  const sides: (Side & { runs: TrainingFigures[]; python: boolean })[] = batches.flatMap((batch) => {
    const data = { kind: "shards", root: shards, max_text_len: tokensOf(options), synthetic_embedding_prob: 0 };
    const ours = (graphs: boolean) =>
      ourTraining({ recipe: recipeFor(options, batch, data, { cuda_graphs: graphs }), steps }, thin);
    const random = recipeFor(options, batch, { kind: "random", text_len: tokensOf(options) });
    const side = (name: string, measure: () => TrainingFigures, python = false) => {
      const runs: TrainingFigures[] = [];
      return { name, batch, runs, run: () => void runs.push(measure()), python };
    };
    return [
      side(`miro, ${precision}`, () => ours(false)),
      ...(device === "cpu" ? [] : [side(`miro, ${precision}, CUDA graphs`, () => ours(true))]),
      ...(python ? [side(`Python reference, ${precision}`, () => theirTraining(python, random, steps), true)] : []),
    ];
  });
  const config = parseRinConfig(networkOf(options));
  const tokens = tokensOf(options);
  const resultOf = ({ name, batch, runs, python }: (typeof sides)[number]): Result => {
    const secondsPerStep = spread(runs.flatMap(({ seconds }) => seconds));
    const cpuSeconds = runs.flatMap(({ cpuSeconds }) => cpuSeconds);
    // The pass without gradient, the one with it, and twice the latter backwards.
    const first = forwardFlops(config, tokens, { conditioning: python });
    const tflopPerStep = (batch * (first + 3 * forwardFlops(config, tokens))) / 1e12;
    const tflops = tflopPerStep / secondsPerStep.median;
    return {
      name,
      batch,
      threads: runs[0]!.threads,
      secondsPerStep,
      ...(cpuSeconds.length > 0 && { cpuSecondsPerStep: spread(cpuSeconds) }),
      imagesPerSecond: batch / secondsPerStep.median,
      tflopPerStep,
      tflops,
      shareOfCeiling: (1000 * tflops) / ceiling.gflops,
      mfu: peakTflops === null ? null : tflops / peakTflops,
      peakBytes: Math.max(...runs.map(({ peakBytes }) => peakBytes)),
    };
  };
  const results = () => sides.filter(({ runs }) => runs.length > 0).map(resultOf);
  const keep = () =>
    store(
      options,
      { recipe: RECIPE, network: networkOf(options), precision, device, textTokens: tokens, steps, rounds },
      { results: results(), failures: failuresOf(sides), ceiling, dataSheetTflops: peakTflops },
      sides.find((side) => side.python)?.runs[0]?.versions,
    );
  await inTurns(rounds, sides, keep);
  const file = keep();
  print(options, results());
  console.log(
    `matrix product ${ceiling.shape.join(" x ")}, ${ceiling.dtype}: ${(ceiling.gflops / 1000).toFixed(3)} TFLOP/s`,
  );
  if (peakTflops !== null) console.log(`${gpu!.name} by its data sheet: ${peakTflops} TFLOP/s`);
  console.log(`written: ${file}`);
}

function print({ device }: BenchOptions, results: readonly Result[]): void {
  const theirs = (batch: number) => results.find((r) => r.name.startsWith("Python") && r.batch === batch);
  console.log(
    columns([
      [
        `one training step, ${device}`,
        ...["batch", "seconds", "min - max", "CPU seconds", "images/s"],
        ...["TFLOP/s", "of ceiling", "MFU", "peak GB", "speed"],
      ],
      ...results.map((r) => [
        r.name,
        String(r.batch),
        r.secondsPerStep.median.toFixed(4),
        `${r.secondsPerStep.min.toFixed(4)} - ${r.secondsPerStep.max.toFixed(4)}`,
        r.cpuSecondsPerStep?.median.toFixed(4) ?? "",
        r.imagesPerSecond.toFixed(3),
        r.tflops.toFixed(3),
        `${(100 * r.shareOfCeiling).toFixed(0)} %`,
        r.mfu === null ? "" : `${(100 * r.mfu).toFixed(1)} %`,
        (r.peakBytes / 1e9).toFixed(1),
        theirs(r.batch) ? `${(theirs(r.batch)!.secondsPerStep.median / r.secondsPerStep.median).toFixed(2)}x` : "",
      ]),
    ]),
  );
}

/** Text tokens: four are as much work for the host as many. */
const tokensOf = ({ thin }: BenchOptions) => (thin ? 4 : TEXT_TOKENS);

function networkOf({ size, thin }: BenchOptions) {
  return NETWORKS[thin ? "thin" : size];
}

/** The recipe with other data, and the batch, precision and device that are measured, every value included. */
function recipeFor(options: BenchOptions, batch: number, data: object, trainer: object = {}): unknown {
  const { device, precision } = options;
  const { json } = composeRecipe(RECIPE);
  const { data: _d, validation: _v, samples: _s, ...rest } = json;
  return recipeToJson(
    parseRecipe({
      ...rest,
      network: { ...(json.network as object), ...networkOf(options) },
      data,
      trainer: {
        ...(json.trainer as object),
        device,
        precision,
        batch_size: batch,
        device_batch_size: batch,
        loss_scale: { init: 1024 }, // no overflow, so that every step is made
        ...trainer,
      },
    }),
  );
}

function ourTraining(run: TrainingRun, oneThread: boolean): TrainingFigures {
  return runOurs("training", run, oneThread ? { OMP_NUM_THREADS: "1" } : {});
}

function theirTraining(python: string, recipe: unknown, steps: number): TrainingFigures {
  const figures = runReference<ReferenceFigures>(python, "training.py", [JSON.stringify(recipe), String(steps)]);
  const parts = Object.values(figures.seconds);
  const seconds = Array.from({ length: steps }, (_, step) => parts.reduce((sum, part) => sum + part[step]!, 0));
  return { ...figures, seconds, cpuSeconds: [] };
}
