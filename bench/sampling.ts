/**
 * `npm run bench -- sampling [--device cuda --batch 1,8,32]`: seconds for one guided step of the sampler (two rows a
 * picture; 77 text tokens), this implementation and the Python reference in the same run, and the share of the
 * matrix-product ceiling that each reaches; int8 is held against the ceiling of the dtype around it.
 *
 * Weights are random: the time does not depend on them. Ours runs the pipeline itself, conditioning computed before the
 * first step; the reference runs its own sampler. A step is the time from one report to the next; the first two are not
 * counted.
 */
import { Generator, getNumThreads, manualSeed, type nn, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { MiroPipeline } from "miro-t2i";
import {
  AutoencoderKL,
  FlowPrecond,
  forwardFlops,
  parseAutoencoderKLConfig,
  parsePrecondConfig,
  parseRinConfig,
  Rin,
  resolveDType,
} from "miro-t2i/networks";
import { NETWORKS } from "./configurations.js";
import { gemmCeiling } from "./gemm.js";
import {
  BenchError,
  type BenchOptions,
  columns,
  failuresOf,
  inTurns,
  runReference,
  type Side,
  type Spread,
  spread,
  store,
  waitForDevice,
} from "./harness.js";

export const TEXT_TOKENS = 77;
export const GUIDANCE = 7;
/** Steps of a picture. */
export const STEPS = 50;
/** What the reference computes in on a device. */
const REFERENCE_DTYPE = { cpu: "float32", cuda: "bfloat16" } as const;

interface ReferenceRun {
  steps: number[];
  threads: number;
  parameters: number;
  versions: Record<string, string>;
}

interface Result {
  name: string;
  dtype: string;
  quantization?: "int8";
  /** Pictures at a time. */
  batch: number;
  threads: number;
  secondsPerStep: Spread;
  /** Floating-point operations that this implementation does in one step. */
  gflopPerStep: number;
  gflops: number;
  /** Part of the measured matrix-product ceiling at the same dtype. */
  shareOfCeiling: number;
  /** All steps of one picture, without text encoder and decoder. */
  secondsPerImage: number;
}

/** What is measured on a device: precision, and pictures drawn at a time. */
interface Case {
  dtype: "float32" | "bfloat16" | "float16";
  quantization: "none" | "int8";
  batch: number;
}

export async function sampling(options: BenchOptions): Promise<void> {
  const args = NETWORKS[options.size];
  const { device, batches } = options;
  const chosen = resolveDType("auto", device);
  const kinds: Omit<Case, "batch">[] =
    device === "cpu"
      ? [
          { dtype: "float32", quantization: "none" },
          { dtype: "bfloat16", quantization: "none" },
          { dtype: chosen === "float32" ? "float32" : "bfloat16", quantization: "int8" },
        ]
      : [
          { dtype: "bfloat16", quantization: "none" },
          { dtype: "float16", quantization: "none" },
        ];
  const cases = batches.flatMap((batch) => kinds.map((kind) => ({ ...kind, batch })));
  const dtypes = [...new Set(["float32", ...kinds.map(({ dtype }) => dtype)])] as Case["dtype"][];
  const ceilings = new Map(dtypes.map((dtype) => [dtype, gemmCeiling(dtype, device)]));

  let python: ReferenceRun | null = null;
  type Measured = Side & { of: Case; seconds: number[]; threads(): number; whole: boolean };
  const sides: Measured[] = cases.map((of) => {
    const kind = of.quantization === "int8" ? `int8 (rest ${of.dtype})` : of.dtype;
    const byDefault = of.quantization === "none" && of.dtype === chosen ? " (default here)" : "";
    const seconds: number[] = [];
    const run = async () => void seconds.push(...(await ourSteps(options, of)));
    return {
      name: `miro, ${kind}${byDefault}`,
      batch: of.batch,
      of,
      seconds,
      threads: getNumThreads,
      whole: false,
      run,
    };
  });
  const theirs = options.python;
  for (const batch of theirs === null ? [] : batches) {
    const dtype = REFERENCE_DTYPE[deviceType(device)];
    const given = [JSON.stringify(args), TEXT_TOKENS, GUIDANCE, 5, device, batch, dtype].map(String);
    const seconds: number[] = [];
    sides.push({
      name: `Python reference, ${dtype}${device === "cpu" ? " (its default)" : " autocast"}`,
      batch,
      of: { dtype, quantization: "none", batch },
      seconds,
      threads: () => python!.threads,
      whole: true,
      run() {
        python = runReference<ReferenceRun>(theirs!, "sampling.py", given);
        seconds.push(...python.steps);
      },
    });
  }

  const resultOf = ({ name, batch, of: { dtype, quantization }, seconds, threads, whole }: Measured): Result => {
    const secondsPerStep = spread(seconds);
    const flops = 2 * batch * forwardFlops(parseRinConfig(args), TEXT_TOKENS, { conditioning: whole });
    const gflops = flops / secondsPerStep.median / 1e9;
    return {
      name,
      dtype,
      ...(quantization === "int8" && { quantization }),
      batch,
      threads: threads(),
      secondsPerStep,
      gflopPerStep: flops / 1e9,
      gflops,
      shareOfCeiling: gflops / ceilings.get(dtype)!.gflops,
      secondsPerImage: (secondsPerStep.median * STEPS) / batch,
    };
  };
  const resultsSoFar = () => sides.filter(({ seconds }) => seconds.length > 0).map(resultOf);
  const keep = () => {
    const { size, rounds } = options;
    const config = {
      size,
      network: args,
      device,
      textTokens: TEXT_TOKENS,
      guidanceScale: GUIDANCE,
      steps: STEPS,
      rounds,
    };
    const figures = {
      results: resultsSoFar(),
      failures: failuresOf(sides),
      ceilings: [...ceilings.values()],
      ...(python && { parameters: python.parameters }),
    };
    return store(options, config, figures, python?.versions);
  };
  await inTurns(options.rounds, sides, keep);
  const results = resultsSoFar();

  const base = (batch: number) => results.find((r) => r.name.startsWith("Python") && r.batch === batch);
  console.log(
    columns([
      [`one guided step, ${device}`, "pictures", "seconds", "min - max", "GFLOP/s", "of ceiling", "s/picture", "speed"],
      ...results.map((r) => [
        r.name,
        String(r.batch),
        r.secondsPerStep.median.toFixed(4),
        `${r.secondsPerStep.min.toFixed(4)} - ${r.secondsPerStep.max.toFixed(4)}`,
        r.gflops.toFixed(0),
        `${(100 * r.shareOfCeiling).toFixed(0)} %`,
        r.secondsPerImage.toFixed(3),
        base(r.batch) ? `${(base(r.batch)!.secondsPerImage / r.secondsPerImage).toFixed(2)}x` : "",
      ]),
      ...[...ceilings.values()].map((c) => [
        `matrix product ${c.shape.join(" x ")}, ${c.dtype}`,
        "",
        "",
        "",
        c.gflops.toFixed(0),
        "100 %",
        "",
        "",
      ]),
    ]),
  );
  console.log(`s/picture: ${STEPS} steps at the measured speed, without text encoder and decoder`);
  if (!python)
    console.log(
      "The reference was not measured: name a Python that has it with --python (see tests/reference/README.md).",
    );
  console.log(`written: ${keep()}`);
}

const deviceType = (device: string): "cpu" | "cuda" => (device === "cpu" ? "cpu" : "cuda");

/** Seconds of each step but the first two (on CUDA the second one is captured), of one call of the pipeline. */
export async function ourSteps(options: BenchOptions, { dtype, quantization, batch }: Case): Promise<number[]> {
  const { device } = options;
  const pipe = randomPipeline(NETWORKS[options.size], dtype, quantization, device);
  const embeddings = randn([TEXT_TOKENS, NETWORKS[options.size].label_dim], {
    generator: new Generator().manualSeed(1),
  });
  const marks: number[] = [];
  try {
    const { warnings } = await pipe.generate("benchmark", {
      promptEmbeddings: [embeddings],
      imagesPerPrompt: batch,
      batchSize: batch,
      steps: device === "cpu" ? 6 : 40,
      guidanceScale: GUIDANCE,
      seed: 0,
      onStep: () => {
        waitForDevice(device);
        marks.push(performance.now());
      },
    });
    // Such as that steps were not recorded as CUDA graphs, which would be measured as if they were.
    if (warnings.length > 0) throw new BenchError(warnings.join("\n"));
  } finally {
    embeddings.dispose();
    await pipe.dispose();
  }
  return marks.slice(2).map((mark, i) => (mark - marks[i + 1]!) / 1000);
}

/** A pipeline of a given configuration with seeded random weights and a decoder that costs nothing. */
function randomPipeline(
  args: (typeof NETWORKS)["full"],
  dtype: Case["dtype"],
  quantization: Case["quantization"],
  device: string,
): MiroPipeline {
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
  for (const module of [network, preconditioning]) module.to({ dtype, device });
  autoencoder.to({ device });
  if (quantization === "int8") network.quantize();
  const kept = (make: () => Tensor) => scope(() => make().to({ device }).keep());
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
    device,
  });
}
