/** `npm run bench -- NAME`: one benchmark (`--help` lists them and the options). */

import { commaSeparated, field, flag, runProgram } from "miro-t2i/cli";
import { PRECISIONS } from "miro-t2i/training";
import { z } from "zod";
import { checkpoint } from "./checkpoint.js";
import { detector } from "./detector.js";
import { generate } from "./generate.js";
import { BenchError, type BenchOptions, referencePython } from "./harness.js";
import { loader } from "./loader.js";
import { ops } from "./ops.js";
import { pipeline } from "./pipeline.js";
import { preparation } from "./preparation.js";
import { quantization } from "./quantization.js";
import { sampling } from "./sampling.js";
import { scaling } from "./scaling.js";
import { scorers } from "./scorers.js";
import { server } from "./server.js";
import { studio } from "./studio.js";
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
  detector: {
    run: detector,
    rounds: 3,
    help: "seconds of GenEval's detector on one picture, against Python's transformers",
  },
  ops: { run: ops, rounds: 1, help: "host cost of one operation, against Python" },
  loader: { run: loader, rounds: 3, help: "samples a second out of shards, against Python's wids and webdataset" },
  preparation: {
    run: preparation,
    rounds: 5,
    help: "processor time of decoding and resizing one JPEG, against Pillow",
  },
  scorers: {
    run: scorers,
    rounds: 3,
    help: "pictures a second and peak memory of each scorer, and of all together, against transformers and open_clip",
  },
  server: {
    run: server,
    rounds: 1,
    help: "how fast a web server answers while five pictures are drawn in its process",
  },
  studio: {
    run: studio,
    rounds: 5,
    help: "seconds of pictures over HTTP beside the library's own, jobs drawn together, and of /health meanwhile",
  },
  generate: {
    run: generate,
    rounds: 5,
    help: "seconds from process start to a picture, and of the next ones, bundled model",
  },
};

const count = z.int().min(1);

const schema = z.strictObject({
  benchmark: field(z.enum(Object.keys(BENCHMARKS)), {
    expected: `one of ${Object.keys(BENCHMARKS).join(", ")}`,
    help: "what is measured (below)",
    flag: "<benchmark>",
  }),
  size: field(z.enum(["full", "tiny"]).default("full"), {
    expected: "full or tiny",
    help: "size of the network",
    flag: "--size <size>",
  }),
  rounds: field(count.optional(), {
    expected: "an integer of at least 1",
    help: "rounds of measuring",
    flag: "--rounds <n>",
    otherwise: "that of the benchmark",
  }),
  python: field(z.string().optional(), {
    expected: "a program",
    help: "Python with the reference implementation, made as tests/reference/README.md says",
    flag: "--python <path>",
    otherwise: "$MIRO_BENCH_PYTHON, or python3 where it has that",
  }),
  device: field(z.string().default("cpu"), { expected: "cpu or cuda", help: "cpu or cuda", flag: "--device <name>" }),
  batch: field(z.array(count).min(1).default([1]), {
    expected: "integers of at least 1",
    help: "batch sizes, separated by commas",
    flag: "--batch <sizes>",
    parse: (text) => commaSeparated(text).map(Number),
  }),
  result: field(z.string().optional(), {
    expected: "a name",
    help: "name of the result: bench/results/NAME.json",
    flag: "--name <name>",
    otherwise: "the benchmark's, with -tiny at that size",
  }),
  by: field(z.array(z.string()).default([]), {
    expected: "keys of scorers",
    help: "of scorers: those that are measured, separated by commas",
    flag: "--by <keys>",
    otherwise: "all but vqa_score",
    parse: commaSeparated,
  }),
  pictures: field(count.default(16), {
    expected: "an integer of at least 1",
    help: "of scorers: pictures that are scored together",
    flag: "--pictures <n>",
  }),
  dtypes: field(
    z
      .array(z.enum(["auto", "float32", "bfloat16"]))
      .min(1)
      .default(["auto", "float32"]),
    {
      expected: "auto, float32 or bfloat16, with commas between them",
      help: "of scorers: what they compute in, one measurement for each",
      flag: "--dtypes <list>",
      parse: commaSeparated,
    },
  ),
  together: field(z.boolean().default(false), {
    expected: "true or false",
    help: "of scorers: all of them over the same pictures, and none alone",
    flag: "--together",
  }),
  recording: field(z.string().optional(), {
    expected: "a folder",
    help: "of scorers: a recording of tests/reference/make_scorer_reference.py with their weights",
    flag: "--recording <dir>",
    otherwise: "weights are made with the Python",
  }),
  steps: field(count.optional(), {
    expected: "an integer of at least 1",
    help: "of training: steps that are measured",
    flag: "--steps <n>",
    otherwise: "3 on a CPU, 20 on a GPU",
  }),
  thin: flag("of training: full depth and tiny width on one thread, whose processor time is the host's", "--thin"),
  precision: field(z.enum(PRECISIONS).default("32-true"), {
    expected: `one of ${PRECISIONS.join(", ")}`,
    help: "of training: precision",
    flag: "--precision <name>",
  }),
});

async function main({ benchmark, batch, result, ...options }: z.output<typeof schema>): Promise<number> {
  const { run, rounds } = BENCHMARKS[benchmark]!;
  try {
    await run({
      ...options,
      rounds: options.rounds ?? rounds,
      steps: options.steps ?? (options.device === "cpu" ? 3 : 20),
      batches: batch,
      python: referencePython(options.python),
      name: result ?? `${benchmark}${options.thin ? "-thin" : options.size === "full" ? "" : `-${options.size}`}`,
      command: `npm run bench -- ${process.argv
        .slice(2)
        .filter((arg, i, all) => arg !== "--python" && all[i - 1] !== "--python")
        .join(" ")}`,
    });
    return 0;
  } catch (error) {
    if (!(error instanceof BenchError)) throw error;
    console.error(error.message);
    return 1;
  }
}

process.exitCode = await runProgram({
  name: "npm run bench --",
  summary: "Runs one benchmark, prints its table and writes bench/results/NAME.json. Measure on a quiet machine.",
  schema,
  notes: Object.entries(BENCHMARKS)
    .map(([name, { help }]) => `  ${name.padEnd(12)} ${help}`)
    .join("\n"),
  run: main,
});
