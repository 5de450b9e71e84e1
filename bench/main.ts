/**
 * `npm run bench -- NAME [--size full|tiny] [--rounds N] [--python PATH] [--device cpu|cuda] [--batch 1,8,32] [--name RESULT]`
 * and for `training` `[--steps N] [--precision 32-true|bf16-mixed|16-mixed]`
 *
 * Runs one benchmark, prints its table and writes bench/results/RESULT.json. Measure on a quiet machine.
 */
import { parseArgs } from "node:util";
import { PRECISIONS } from "miro-t2i/training";
import { checkpoint } from "./checkpoint.js";
import { generate } from "./generate.js";
import { BenchError, type BenchOptions, referencePython } from "./harness.js";
import { loader } from "./loader.js";
import { ops } from "./ops.js";
import { pipeline } from "./pipeline.js";
import { quantization } from "./quantization.js";
import { sampling } from "./sampling.js";
import { scaling } from "./scaling.js";
import { training } from "./training.js";

const BENCHMARKS: Record<
  string,
  { run: (options: BenchOptions) => void | Promise<void>; rounds: number; help: string }
> = {
  sampling: {
    run: sampling,
    rounds: 3,
    help: "seconds per guided step, against the Python reference and the GEMM ceiling",
  },
  pipeline: {
    run: pipeline,
    rounds: 3,
    help: "seconds of each part of one picture at the published size, against Python",
  },
  training: {
    run: training,
    rounds: 2,
    help: "seconds per training step of multi_cad_synth, against the Python reference and the GEMM ceiling",
  },
  quantization: { run: quantization, rounds: 1, help: "what int8 does to pictures of the bundled model" },
  scaling: { run: scaling, rounds: 3, help: "training in two processes, against one and against two apart" },
  checkpoint: { run: checkpoint, rounds: 3, help: "how long storing a training checkpoint keeps the training waiting" },
  ops: { run: ops, rounds: 1, help: "host cost of one operation, against Python" },
  loader: { run: loader, rounds: 3, help: "samples a second out of shards, against Python's wids and webdataset" },
  generate: {
    run: generate,
    rounds: 5,
    help: "seconds from process start to a picture, and of the next ones, bundled model",
  },
};

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      size: { type: "string", default: "full" },
      rounds: { type: "string" },
      python: { type: "string" },
      name: { type: "string" },
      device: { type: "string", default: "cpu" },
      batch: { type: "string", default: "1" },
      steps: { type: "string", default: "3" },
      precision: { type: "string", default: "32-true" },
    },
  });
  const benchmark = BENCHMARKS[positionals[0] ?? ""];
  const batches = values.batch.split(",").map(Number);
  const rounds = Number(values.rounds ?? benchmark?.rounds);
  const steps = Number(values.steps);
  const precision = PRECISIONS.find((name) => name === values.precision);
  const whole = [rounds, steps, ...batches].every((n) => Number.isInteger(n) && n > 0);
  if (!benchmark || (values.size !== "full" && values.size !== "tiny") || !whole || !precision) {
    console.error(
      "npm run bench -- NAME [--size full|tiny] [--rounds N] [--python PATH] [--device cpu|cuda] [--batch 1,8,32] [--name RESULT]\n" +
        `  training: [--steps N] [--precision ${PRECISIONS.join("|")}]`,
    );
    for (const [name, { help }] of Object.entries(BENCHMARKS)) console.error(`  ${name.padEnd(10)} ${help}`);
    return 2;
  }
  await benchmark.run({
    size: values.size,
    rounds,
    device: values.device,
    batches,
    steps,
    precision,
    python: referencePython(values.python),
    name: values.name ?? `${positionals[0]!}${values.size === "full" ? "" : `-${values.size}`}`,
    command: `npm run bench -- ${process.argv
      .slice(2)
      .filter((arg, i, all) => arg !== "--python" && all[i - 1] !== "--python")
      .join(" ")}`,
  });
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof BenchError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
