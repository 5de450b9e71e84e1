/**
 * `npm run bench -- sampling`: seconds for one guided step of the sampler (one picture, so two rows; 77 text tokens), this
 * implementation and the Python reference in the same run, and the share of the matrix-product ceiling that each reaches.
 *
 * Weights are random: the time does not depend on them. Ours runs the pipeline itself, conditioning computed before the first
 * step; the reference runs its own sampler. A step is the time from one report to the next; the first step is not counted.
 */
import { Generator, getNumThreads, manualSeed, type nn, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import {
  AutoencoderKL,
  FlowPrecond,
  MiroPipeline,
  parseAutoencoderKLConfig,
  parsePrecondConfig,
  parseRinConfig,
  Rin,
  resolveDType,
} from "miro-t2i";
import { forwardFlops, NETWORKS } from "./configurations.js";
import { gemmCeiling } from "./gemm.js";
import { type BenchOptions, columns, runReference, type Spread, spread, store } from "./harness.js";

const TEXT_TOKENS = 77;
const GUIDANCE = 7;

interface ReferenceRun {
  steps: number[];
  threads: number;
  parameters: number;
  versions: Record<string, string>;
}

interface Result {
  name: string;
  dtype: string;
  threads: number;
  secondsPerStep: Spread;
  /** Floating-point operations that this implementation does in one step. */
  gflopPerStep: number;
  gflops: number;
  /** Part of the measured matrix-product ceiling at the same dtype. */
  shareOfCeiling: number;
}

export async function sampling(options: BenchOptions): Promise<void> {
  const args = NETWORKS[options.size];
  const chosen = resolveDType("auto", "cpu");
  const dtypes = ["float32", "bfloat16"] as const;
  const ours = new Map(dtypes.map((dtype) => [dtype, [] as number[]]));
  const reference: number[] = [];
  let python: ReferenceRun | null = null;
  const ceilings = new Map(dtypes.map((dtype) => [dtype, gemmCeiling(dtype)]));

  // Alternating, so that a change of the machine's speed in between meets all of them.
  for (let round = 0; round < options.rounds; round++) {
    for (const dtype of dtypes) ours.get(dtype)!.push(...(await ourSteps(options, dtype)));
    if (options.python) {
      const network = JSON.stringify(args);
      python = runReference<ReferenceRun>(options.python, "sampling.py", [
        network,
        String(TEXT_TOKENS),
        String(GUIDANCE),
      ]);
      reference.push(...python.steps);
    }
    console.error(`round ${round + 1} of ${options.rounds} done`);
  }

  const cached = forwardFlops(args, 2, TEXT_TOKENS, false);
  const whole = forwardFlops(args, 2, TEXT_TOKENS, true);
  const result = (
    name: string,
    dtype: (typeof dtypes)[number],
    threads: number,
    steps: number[],
    flops: number,
  ): Result => {
    const secondsPerStep = spread(steps);
    const gflops = flops / secondsPerStep.median / 1e9;
    return {
      name,
      dtype,
      threads,
      secondsPerStep,
      gflopPerStep: flops / 1e9,
      gflops,
      shareOfCeiling: gflops / ceilings.get(dtype)!.gflops,
    };
  };
  const results = dtypes.map((dtype) =>
    result(
      `miro, ${dtype}${dtype === chosen ? " (default here)" : ""}`,
      dtype,
      getNumThreads(),
      ours.get(dtype)!,
      cached,
    ),
  );
  if (python) results.push(result("Python reference, float32 (default)", "float32", python.threads, reference, whole));

  const base = python && results.at(-1)!.secondsPerStep.median;
  console.log(
    columns([
      ["one guided step (1 picture, 2 rows)", "seconds", "min - max", "GFLOP/s", "of ceiling", "speed"],
      ...results.map((r) => [
        r.name,
        r.secondsPerStep.median.toFixed(3),
        `${r.secondsPerStep.min.toFixed(3)} - ${r.secondsPerStep.max.toFixed(3)}`,
        r.gflops.toFixed(0),
        `${(100 * r.shareOfCeiling).toFixed(0)} %`,
        base ? `${(base / r.secondsPerStep.median).toFixed(2)}x` : "",
      ]),
      ...[...ceilings.values()].map((c) => [
        `matrix product ${c.shape.join(" x ")}, ${c.dtype}`,
        "",
        "",
        c.gflops.toFixed(0),
        "100 %",
        "",
      ]),
    ]),
  );
  if (!python)
    console.log(
      "The reference was not measured: name a Python that has it with --python (see tests/reference/README.md).",
    );
  const file = store(
    options,
    {
      size: options.size,
      network: args,
      rows: 2,
      textTokens: TEXT_TOKENS,
      guidanceScale: GUIDANCE,
      rounds: options.rounds,
    },
    {
      results,
      ceilings: [...ceilings.values()],
      ...(python && { parameters: python.parameters }),
    },
    python?.versions,
  );
  console.log(`written: ${file}`);
}

/** Seconds of each step but the first, of one call of the pipeline. */
async function ourSteps(options: BenchOptions, dtype: "float32" | "bfloat16"): Promise<number[]> {
  const pipe = randomPipeline(NETWORKS[options.size], dtype);
  const embeddings = randn([TEXT_TOKENS, NETWORKS[options.size].label_dim], {
    generator: new Generator().manualSeed(1),
  });
  const times: number[] = [];
  try {
    let last = 0;
    const { latents } = await pipe.generate("benchmark", {
      promptEmbeddings: [embeddings],
      steps: 5,
      guidanceScale: GUIDANCE,
      seed: 0,
      onStep: () => {
        const now = performance.now();
        if (last > 0) times.push((now - last) / 1000);
        last = now;
      },
    });
    latents.dispose();
  } finally {
    embeddings.dispose();
    await pipe.dispose();
  }
  return times;
}

/** A pipeline of a given configuration with seeded random weights and a decoder that costs nothing. */
function randomPipeline(args: (typeof NETWORKS)["full"], dtype: "float32" | "bfloat16"): MiroPipeline {
  manualSeed(0);
  const network = new Rin(parseRinConfig(args));
  const preconditioning = new FlowPrecond(
    parsePrecondConfig({ num_latents: args.num_latents, latents_dim: args.latents_dim }),
  );
  const autoencoder = new AutoencoderKL(
    parseAutoencoderKLConfig({
      _class_name: "AutoencoderKL",
      block_out_channels: [8],
      down_block_types: ["DownEncoderBlock2D"],
      up_block_types: ["UpDecoderBlock2D"],
      layers_per_block: 1,
      norm_num_groups: 4,
      latent_channels: args.num_input_channels,
    }),
  );
  for (const module of [network, preconditioning, autoencoder] as nn.Module[]) module.requiresGrad_(false).eval();
  for (const module of [network, preconditioning]) module.to({ dtype });
  const kept = (make: () => Tensor) => scope(() => make().keep());
  const identity = () => ({ scale: kept(() => zeros([1, 1, 1, 1]).add(1)), bias: kept(() => zeros([1, 1, 1, 1])) });
  return new MiroPipeline({
    config: {
      network: network.config,
      preconditioning: preconditioning.config,
      settings: { data_resolution: args.data_size, max_text_len: TEXT_TOKENS },
      coherenceKeys: args.coherence_keys,
    },
    network,
    preconditioning,
    preprocessing: identity(),
    postprocessing: identity(),
    uncondEmbedding: kept(() => randn([1, args.label_dim], { generator: new Generator().manualSeed(2) })),
    autoencoder,
    loadTextEncoder: () => Promise.reject(new Error("embeddings are given")),
    dtype,
  });
}
