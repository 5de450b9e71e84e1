/**
 * `npm run bench -- training [--batch 2] [--steps 3] [--precision 32-true|bf16-mixed|16-mixed] [--device cuda]`:
 * seconds of one optimizer step of the recipe multi_cad_synth (360.4M parameters; two passes for self-conditioning,
 * backward, clipping, LAMB, EMA) on random data with 77 text tokens, this implementation and the published Python one
 * in eager mode in the same run, and the share of the matrix-product ceiling that each reaches.
 *
 * The two sides train alternately, each in a process of its own; the first step of each, in which the optimizer's state
 * is made, is not counted. The published code computes text and rewards in both passes, this one once: each is credited
 * with what it computes.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { forwardFlops, parseRinConfig } from "miro-t2i/networks";
import { composeRecipe, parseRecipe, recipeToJson } from "miro-t2i/training";
import { NETWORKS } from "./configurations.js";
import { gemmCeiling } from "./gemm.js";
import { BenchError, type BenchOptions, columns, root, runReference, type Spread, spread, store } from "./harness.js";
import { TEXT_TOKENS } from "./sampling.js";
import type { TrainingFigures, TrainingRun } from "./training-run.js";

const RECIPE = "multi_cad_synth";
const PARTS = ["gradients", "clip", "optimizer", "ema"] as const;
const PRODUCTS_IN = { "32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16" } as const;

interface Result {
  name: string;
  batch: number;
  threads: number;
  secondsPerStep: Spread;
  /** Of which. */
  parts: Record<(typeof PARTS)[number], Spread>;
  imagesPerSecond: number;
  /** Floating-point operations of a step. */
  tflopPerStep: number;
  tflops: number;
  /** Part of the measured matrix-product ceiling. */
  shareOfCeiling: number;
  peakBytes: number;
}

export async function training(options: BenchOptions): Promise<void> {
  const { batches, device, precision, python, rounds, size, steps } = options;
  const ceiling = gemmCeiling(PRODUCTS_IN[precision], device);
  const sides: { name: string; batch: number; runs: TrainingFigures[]; run: () => TrainingFigures; python: boolean }[] =
    batches.flatMap((batch) => {
      const recipe = recipeFor(options, batch);
      const ours = () => ourTraining({ recipe, steps });
      const theirs = () =>
        runReference<TrainingFigures>(python!, "training.py", [JSON.stringify(recipe), String(steps)]);
      return [
        { name: `miro, ${precision}`, batch, runs: [], run: ours, python: false },
        ...(python ? [{ name: `Python reference, ${precision}`, batch, runs: [], run: theirs, python: true }] : []),
      ];
    });
  // Alternating, so that a change of the machine's speed in between meets all of them.
  for (let round = 0; round < rounds; round++) {
    for (const side of sides) side.runs.push(side.run());
    console.error(`round ${round + 1} of ${rounds} done`);
  }

  const config = parseRinConfig(NETWORKS[size]);
  const results = sides.map(({ name, batch, runs, python }): Result => {
    const ofPart = (part: (typeof PARTS)[number]) => runs.flatMap(({ seconds }) => seconds[part]);
    const secondsPerStep = spread(
      ofPart("gradients").map((_, step) => PARTS.reduce((sum, part) => sum + ofPart(part)[step]!, 0)),
    );
    // The pass without gradient, the one with it, and twice the latter backwards.
    const first = forwardFlops(config, TEXT_TOKENS, { conditioning: python });
    const tflopPerStep = (batch * (first + 3 * forwardFlops(config, TEXT_TOKENS))) / 1e12;
    const tflops = tflopPerStep / secondsPerStep.median;
    return {
      name,
      batch,
      threads: runs[0]!.threads,
      secondsPerStep,
      parts: {
        gradients: spread(ofPart("gradients")),
        clip: spread(ofPart("clip")),
        optimizer: spread(ofPart("optimizer")),
        ema: spread(ofPart("ema")),
      },
      imagesPerSecond: batch / secondsPerStep.median,
      tflopPerStep,
      tflops,
      shareOfCeiling: (1000 * tflops) / ceiling.gflops,
      peakBytes: Math.max(...runs.map(({ peakBytes }) => peakBytes)),
    };
  });

  const theirs = (batch: number) => results.find((r) => r.name.startsWith("Python") && r.batch === batch);
  console.log(
    columns([
      [
        `one training step, ${device}`,
        ...["batch", "seconds", "min - max", ...PARTS, "images/s", "TFLOP/s", "of ceiling", "peak GB", "speed"],
      ],
      ...results.map((r) => [
        r.name,
        String(r.batch),
        r.secondsPerStep.median.toFixed(3),
        `${r.secondsPerStep.min.toFixed(3)} - ${r.secondsPerStep.max.toFixed(3)}`,
        ...PARTS.map((part) => r.parts[part].median.toFixed(3)),
        r.imagesPerSecond.toFixed(3),
        r.tflops.toFixed(3),
        `${(100 * r.shareOfCeiling).toFixed(0)} %`,
        (r.peakBytes / 1e9).toFixed(1),
        theirs(r.batch) ? `${(theirs(r.batch)!.secondsPerStep.median / r.secondsPerStep.median).toFixed(2)}x` : "",
      ]),
    ]),
  );
  console.log(
    `matrix product ${ceiling.shape.join(" x ")}, ${ceiling.dtype}: ${(ceiling.gflops / 1000).toFixed(3)} TFLOP/s`,
  );
  const file = store(
    options,
    { recipe: RECIPE, size, network: NETWORKS[size], precision, device, textTokens: TEXT_TOKENS, steps, rounds },
    { results, ceiling },
    sides.find((side) => side.python)?.runs[0]?.versions,
  );
  console.log(`written: ${file}`);
}

/** The recipe with random data and the batch, precision and device that are measured, every value included. */
function recipeFor({ size, device, precision }: BenchOptions, batch: number): unknown {
  const { json } = composeRecipe(RECIPE);
  const { data: _d, validation: _v, samples: _s, ...rest } = json;
  return recipeToJson(
    parseRecipe({
      ...rest,
      network: { ...(json.network as object), ...NETWORKS[size] },
      data: { kind: "random", text_len: TEXT_TOKENS },
      trainer: {
        ...(json.trainer as object),
        device,
        precision,
        batch_size: batch,
        device_batch_size: batch,
        loss_scale: { init: 1024 }, // no overflow, so that every step is made
      },
    }),
  );
}

function ourTraining(run: TrainingRun): TrainingFigures {
  const script = join(root(), "bench", "dist", "training-run.js");
  const result = spawnSync(process.execPath, [script, JSON.stringify(run)], { encoding: "utf8" });
  if (result.status !== 0) throw new BenchError(`${script} failed:\n${result.stderr || result.error?.message}`);
  return JSON.parse(result.stdout.trim().split("\n").at(-1)!) as TrainingFigures;
}
