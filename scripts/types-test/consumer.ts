/**
 * An application that uses the package, as far as types go: it is compiled by every release of TypeScript that is
 * supported, and never run. What is given is as unchangeable as an application's own data may be.
 */

import { type DType, F, memory, randn, scope, setNumThreads, type Tensor, zeros } from "@miro-t2i/torch";
import { SafetensorsFile } from "@miro-t2i/torch/io";
import { LayerNorm, Linear, RMSNorm, Sequential } from "@miro-t2i/torch/nn";
import { AdamW } from "@miro-t2i/torch/optim";
import {
  availableDevices,
  type BestOfOptions,
  bestOf,
  contactSheet,
  DrawRequest,
  encodeImage,
  type FromPretrainedOptions,
  type GeneratedImage,
  type GenerateOptions,
  type GenerateResult,
  type ImageSettings,
  InterruptedError,
  InvalidInputError,
  listModels,
  loadScorer,
  MiroError,
  MiroPipeline,
  planPictures,
  type RgbImage,
  readImageFile,
  readPromptFile,
  readSettings,
  registerSampler,
  registerScorer,
  scoreFiles,
  scorerSpecs,
  settingsToText,
  TorchError,
  version,
  type WorkerGenerateOptions,
  type WorkerPipeline,
} from "miro-t2i";
import { ShardSet, tarsIn } from "miro-t2i/data";
import { parseAxis, runSweep } from "miro-t2i/evaluation";
import { LinearSchedule, resolveDType } from "miro-t2i/networks";
import { listScorers } from "miro-t2i/rewards";
import { type RunningStudio, type StudioOptions, startStudio } from "miro-t2i/studio";
import { loadRecipe, runTraining } from "miro-t2i/training";

/** Unchangeable all the way down, but for objects that own something. */
type Frozen<T> = T extends ((...args: never[]) => unknown) | Tensor | AbortSignal
  ? T
  : T extends object
    ? { readonly [K in keyof T]: Frozen<T[K]> }
    : T;

const load = { device: "cpu", dtype: "auto", threads: 2, lowMemory: false } as const satisfies FromPretrainedOptions;
const prompts = ["a fox", "a cat"] as const;
const targets = [{ sharpness: 1 }, { sharpness: 0.5 }] as const;
const options = {
  rewardTargets: targets,
  negativeRewardTargets: { sharpness: 0 },
  negativePrompt: ["blur", "noise"],
  seed: [1, 2],
  steps: 8,
  guidanceWindow: [0, null],
  sampler: "euler_ancestral",
  samplerOptions: { eta: 0.5 },
  shift: "dynamic",
} as const satisfies GenerateOptions;
declare const frozen: Frozen<GenerateOptions>;
declare const frozenForThread: Frozen<WorkerGenerateOptions>;
declare const frozenForBest: Frozen<BestOfOptions>;
declare const frozenToLoad: Frozen<FromPretrainedOptions>;
declare const latents: Tensor;

/** A pipeline on the event loop. */
export async function draw(signal: AbortSignal): Promise<Uint8Array> {
  await using pipe = await MiroPipeline.fromPretrained("miro-emoji", load);
  const result: GenerateResult = await pipe.generate(prompts, {
    ...options,
    signal,
    previewEvery: 2,
    onStep: ({ step, steps, gamma, x, previews }) => {
      const preview: RgbImage | undefined = previews?.[0];
      console.log(step, steps, gamma.toFixed(2), x.shape, preview?.width);
    },
    onImage: async (image, index) => image.save(`${index}-${image.seed}.png`, { overwrite: false }),
    onWarning: (warning: string) => console.log(warning.length),
  });
  await pipe.generate("a fox", frozen);
  const { latents: kept } = await pipe.generate("a fox", { keepLatents: true });
  const shape: number[] = kept.shape;
  kept.dispose();
  const before: null | Tensor = result.latents;
  const [settings] = await pipe.describe(prompts, options);
  const stored: ImageSettings | undefined = settings;
  for await (const image of pipe.stream("a bell", { imagesPerPrompt: 2, noise: latents })) console.log(image.prompt);
  console.log(shape, before, stored?.versions.miro, pipe.coherenceKeys.join(), pipe.latentShape[0]);
  const bytes: Buffer = await result.images[0]!.toBuffer("webp", { quality: 80 });
  return bytes;
}

/** A pipeline in a thread. */
export async function serve(model: string | undefined): Promise<GeneratedImage[]> {
  const pipe: WorkerPipeline = await MiroPipeline.fromPretrained(model, { ...load, worker: true });
  await using frozenPipe = await MiroPipeline.fromPretrained(model, { ...frozenToLoad, worker: true });
  const { images, warnings } = await pipe.generate(prompts, options);
  await frozenPipe.generate("a fox", frozenForThread);
  // @ts-expect-error: tensors do not leave their thread
  await pipe.generate("a fox", { noise: latents }).catch(() => {});
  // @ts-expect-error: a name that no option has
  await pipe.generate("a fox", { stepz: 3 }).catch(() => {});
  console.log(warnings.length, (await pipe.describe("a fox"))[0]?.steps);
  await pipe.dispose();
  return images;
}

declare const frozenStudio: Frozen<StudioOptions>;

/** The studio in a program. */
export async function page(): Promise<string> {
  await using studio: RunningStudio = await startStudio({ models: ["miro-emoji"], port: 0, device: "cpu" });
  await (await startStudio(frozenStudio)).close();
  // @ts-expect-error: a name that no option has
  await startStudio({ prot: 0 }).catch(() => {});
  return studio.url;
}

/** A pipeline whose kind a setting decides. */
export async function either(worker: boolean): Promise<string> {
  const pipe = await MiroPipeline.fromPretrained(undefined, { worker });
  const { images } = await pipe.generate("a fox", { steps: 4, seed: 1 });
  await pipe.dispose();
  return images[0]!.prompt;
}

/** What is thrown. */
export function explain(error: unknown): string {
  if (error instanceof InvalidInputError) return `${error.parameter}: ${error.message}`;
  if (error instanceof InterruptedError || error instanceof MiroError || error instanceof TorchError)
    return error.message;
  return String(error);
}

/** Files, scorers and requests of many pictures. */
export async function judge(pipe: MiroPipeline): Promise<unknown[]> {
  const best = await bestOf(pipe, prompts, { n: 2, scorer: ["sharpness", "colorfulness"] as const, steps: 4 });
  await bestOf(pipe, "a fox", frozenForBest);
  const scored = await scoreFiles(["a.png", "b.png"] as const, { by: ["sharpness"] as const });
  using scorer = await loadScorer("sharpness");
  const pictures = planPictures([{ prompt: "a fox", options: { steps: 4 }, seed: 3 }] as const, { seed: 7 });
  const request = new DrawRequest({ pictures, files: { output: "pictures" } });
  const report = await request.draw(pipe, { onPicture: ({ image }) => console.log(image?.width) });
  const sheet = contactSheet(best.prompts.map(({ best: image }) => image));
  const { text } = await readImageFile("a.png");
  const file: Uint8Array = await encodeImage(sheet, settingsToText(readSettings(text, "a.png")), { format: "png" });
  return [scored[0]?.scores, scorer.key, report.warnings, file.length, readPromptFile("prompts.txt").length];
}

/** Extensions and the rest. */
export async function extend(): Promise<void> {
  registerSampler("own", {
    order: 1,
    evaluations: (steps) => steps,
    step: ({ x, velocity, h }) => x.sub(velocity.mul(h)),
  });
  registerScorer({
    key: "grey",
    name: "grey",
    description: "how grey",
    stage: "rewards",
    usesText: false,
    load: async () => ({ name: "grey", batchSize: 16, score: (images) => images.map(() => 0), dispose() {} }),
  });
  const load = async () => ({ name: "white", batchSize: 16, score: () => [1], dispose() {} });
  registerScorer("white", { load, module: import.meta.url });
  setNumThreads(1);
  const sum = scope(() => randn([2, 2]).sum().item());
  const network = new Sequential(new Linear(2, 3));
  const optimizer = new AdamW(network.parameters(), { lr: 1e-3 });
  using weights = SafetensorsFile.open("model.safetensors");
  console.log(sum, optimizer, weights.keys(), memory.stats().liveBytes, resolveDType("auto", "cpu"));
  console.log(availableDevices(), listModels().published.length, scorerSpecs().length, version());
  console.log(listScorers, loadRecipe, runTraining, parseAxis, runSweep, ShardSet, tarsIn, LinearSchedule);
}

/** Options that are passed on, given or not, and lists and tables that are only read. */
export function passOn(
  x: Tensor,
  state: ReadonlyMap<string, Tensor>,
  sizes: readonly number[],
  { dtype, dim, lr, bias, size }: { dtype?: DType; dim?: number; lr?: number; bias?: boolean; size?: number },
): Tensor[] {
  const map = new Linear(2, 2, { dtype, bias });
  map.loadStateDict(state, { strict: undefined });
  console.log(new AdamW([{ params: map.parameters(), lr }], { lr }), new LayerNorm(sizes), new RMSNorm(sizes));
  const normalized = F.rmsNorm(F.layerNorm(x, sizes), sizes);
  const resized = F.interpolate(F.pad(normalized, sizes), { size, scaleFactor: size === undefined ? 2 : undefined });
  return [zeros(sizes, { dtype }), resized.to({ dtype }).sum({ dim, keepdim: true, dtype })];
}
