/** `miro convert`: training checkpoints to release folders, and back. Parses, calls, prints. */
import "./extensions.js";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { InvalidInputError } from "../errors.js";
import { createFolder, removeIfEmpty } from "../files/make-folder.js";
import { formatSize, parseSize } from "../files/sizes.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { message, option } from "../message.js";
import { counted } from "../numbers.js";
import { field, flag } from "../options.js";
import { releaseConfigToJson } from "../pipeline/loading/release-config.js";
import { isRun } from "../pipeline/loading/run-checkpoint.js";
import { type ConvertOptions, convertToRelease } from "../release/convert.js";
import { drawSamples } from "../release/draw-samples.js";
import { isReleaseFolder } from "../release/open-folder.js";
import { openSource } from "../release/open-source.js";
import { writeCkpt } from "../release/to-ckpt.js";
import type { OnBytes } from "../release/weights.js";
import { RELEASE_DTYPES } from "../release/write-weights.js";
import { declare, refuseWithout } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { helpText } from "./help-text.js";
import { untilStopped } from "./interruption.js";
import { Progress, tellerOf } from "./progress.js";
import { cardShape, OF_SAMPLES, samplesShape } from "./release-options.js";

const EXAMPLES = `
Examples:
  miro convert runs/emoji --output release                        the newest checkpoint's EMA weights, while the run goes on
  miro convert runs/emoji --step 20000 --ema 1 --output release
  miro convert CC12M_256_RIN_small_flow_multi_cad/last.ckpt --output release --dtype float16
  miro convert last.ckpt --output release --max-shard-size 500MB --samples 4
  miro convert runs/emoji --to ckpt --output resumed              resumed/last.ckpt, which the published code resumes from
  miro convert release --to ckpt --output finetune                finetune/init.ckpt: weights to start from

Of a .ckpt file nothing is executed. config.yaml beside it says what its tensors cannot. Names, shapes, dtypes and one
forward pass are checked before the folder appears; docs/publishing.md tells more.
`;

const DEFAULT_SHARD_BYTES = 5e9;

const schema = z.strictObject({
  source: field(z.string().min(1), {
    expected: "a run, a .ckpt file or a release folder",
    help: "run of miro train or one of its checkpoints, .ckpt file of the published code, or release folder",
    flag: "<run|file.ckpt|folder>",
  }),
  output: field(z.string().min(1), {
    expected: "a folder",
    help: "folder to write",
    flag: "--output <dir>",
    writes: "folder",
  }),
  to: field(z.enum(["release", "ckpt"]).default("release"), {
    expected: "release or ckpt",
    help: "what to write: a release folder, or a training checkpoint of the published code",
    flag: "--to <kind>",
  }),
  ema: field(z.union([z.int().min(0), z.literal("raw")]).optional(), {
    expected: "an integer of at least 0, or raw",
    help: "which EMA weights, counted from 0; raw takes the network's own weights",
    flag: "--ema <n>",
    otherwise: "those that the run draws samples with",
  }),
  step: field(z.int().min(0).optional(), {
    expected: "an integer of at least 0",
    help: "checkpoint of a run",
    flag: "--step <n>",
    otherwise: "the newest",
  }),
  dtype: field(z.enum(RELEASE_DTYPES).default("float32"), {
    expected: RELEASE_DTYPES.join(", "),
    help: "dtype of the parameters; buffers stay float32",
    flag: "--dtype <dtype>",
  }),
  maxShardSize: field(z.int().min(1).default(DEFAULT_SHARD_BYTES), {
    expected: "a size such as 500MB or 5GB",
    help: "largest file of weights; more go into several files with an index",
    flag: "--max-shard-size <size>",
    otherwise: `${DEFAULT_SHARD_BYTES / 1e9}GB`,
    parse: parseSize,
  }),
  uncondEmbedding: field(z.string().min(1).optional(), {
    expected: "a file",
    help: "text states of the empty prompt",
    flag: "--uncond-embedding <file.npy>",
    otherwise: "the checkpoint's own, or a file beside it",
  }),
  overwrite: flag("replace a release that is there", "--overwrite"),
  ...cardShape,
  ...samplesShape,
  json,
});

type Options = z.output<typeof schema>;

export const register: Register = (command, context) => {
  declare(command, schema, (options, _, typed) => {
    if (options.samples === 0) refuseWithout(option("samples"), typed, OF_SAMPLES);
    return convert(options, context);
  }).addHelpText("after", helpText(EXAMPLES));
};

async function convert(options: Options, context: CliContext): Promise<void> {
  const { source: path, to, ema, step, uncondEmbedding } = options;
  const progress = await Progress.for(context);
  const say = tellerOf(context, progress);
  const onBytes = (done: number, total: number) =>
    progress.update("writing", done, total, { count: `${formatSize(done)} of ${formatSize(total)}` });
  using source = openSource(path, { ema, step, uncondEmbedding, onMessage: say });
  if (to === "ckpt") return await toCkpt(source, options, { context, progress, onBytes });
  const { output, dtype, maxShardSize, overwrite, samples } = options;
  const { repo = source.preset?.repository, variant = source.preset?.variant, title, description, license } = options;
  say(`${source.path}: ${source.average}${source.step === null ? "" : `, step ${source.step}`}`);
  const work: ConvertOptions = {
    output,
    dtype,
    maxShardBytes: maxShardSize,
    overwrite,
    card: { repo, variant, title, description, license },
    onMessage: say,
    onBytes,
    signal: context.signal,
    onFilled: async (folder) => {
      if (samples === 0) return;
      say(`drawing ${counted(samples, "picture")}`);
      const { seed, steps, textEncoder, vae } = options;
      const prompts = options.prompt.length > 0 ? options.prompt : (source.recipe?.samples.prompts ?? []);
      const { signal } = context;
      await drawSamples({ folder, count: samples, prompts, seed, steps, textEncoder, vae, signal, onMessage: say });
    },
  };
  const result = await untilStopped(context, leftAsItWas(output), () => convertToRelease(source, work)).finally(() =>
    progress.stop(),
  );
  if (options.json)
    context.stdout(`${JSON.stringify({ ...result, dtype, average: source.average, step: source.step })}\n`);
  else {
    const { parameters, tensors, check } = result;
    say(
      `${counted(tensors, "tensor")}, ${(parameters / 1e6).toFixed(1)}M parameters, forward pass ${check.sha256.slice(0, 16)}`,
    );
    context.stdout(`${output}\n`);
  }
}

/** What is left where the writing is stopped. */
const leftAsItWas = (output: string) => () => `${output} is as it was; the same command begins anew`;

/** Into a folder: `last.ckpt` of a run, `init.ckpt` of a release, with the configuration beside it. */
async function toCkpt(
  source: ReturnType<typeof openSource>,
  options: Options,
  { context, progress, onBytes }: { context: CliContext; progress: Progress; onBytes: OnBytes },
): Promise<void> {
  const { output, overwrite } = options;
  for (const name of ["ema", "maxShardSize", "samples", "dtype"] as const) {
    const isDefault = options[name] === schema.shape[name].parse(undefined);
    if (!isDefault) throw new InvalidInputError(message`${option(name)}: applies to ${option("to", "release")} only`);
  }
  const named = /\.ckpt$/i.test(output);
  const file = named ? output : join(output, source.recipe === null ? "init.ckpt" : "last.ckpt");
  const config = named ? null : join(output, "config.json");
  // Its config.json would be replaced, and the checkpoint published with it.
  const holds = named ? null : isRun(output) ? "a run" : isReleaseFolder(output) ? "a release" : null;
  if (holds !== null)
    throw new InvalidInputError(message`${option("output")}: ${output} holds ${holds}; name another folder`);
  const there = [file, ...(config === null ? [] : [config])].find((path) => existsSync(path));
  if (there !== undefined && !overwrite)
    throw new InvalidInputError(
      message`${option("output")}: ${there} exists; ${option("overwrite", true)} replaces it`,
    );
  const made = createFolder(dirname(file));
  const { tensors, step } = await untilStopped(context, leftAsItWas(file), () =>
    writeCkpt(file, source, { onBytes, signal: context.signal }),
  ).finally(() => {
    progress.stop();
    removeIfEmpty(dirname(file), made);
  });
  if (config !== null)
    writeFileAtomic(config, `${JSON.stringify(releaseConfigToJson(source.config), null, 2)}\n`, { overwrite: true });
  const bytes = statSync(file).size;
  context.note(`${counted(tensors, "tensor")}, step ${step}, ${formatSize(bytes)}\n`);
  context.stdout(options.json ? `${JSON.stringify({ file, tensors, step, bytes })}\n` : `${file}\n`);
}
