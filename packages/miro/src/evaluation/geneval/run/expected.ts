/** How long an evaluation takes: what a few steps take here, times how many there are. */
import { DeviceEvent, type Tensor } from "@miro-t2i/torch";
import { parseOptions } from "../../../options.js";
import type { RgbImage } from "../../../pictures/rgb.js";
import { type GenerateProgress, generateSchema } from "../../../pipeline/generate-options.js";
import type { MiroPipeline } from "../../../pipeline/pipeline.js";
import type { PromptOptions } from "../../../pipeline/requests/prompt-file.js";
import type { ColourClassifier } from "../colours.js";
import type { Detector } from "../detection.js";

/** Seconds of the parts of an evaluation on one device. */
export interface PartSeconds {
  /** A sampling step of one picture, all its evaluations of the network included. */
  step: number;
  /** The text of a prompt. */
  text: number;
  /** From latents to a picture. */
  decode: number;
  /** Finding the objects of a picture. */
  detect: number;
  /** Classifying the colour of an object. */
  colour: number;
  /** The texts that classify the colours of a class of objects, once for all its pictures. */
  colourTexts: number;
}

/** Work that is left. */
export interface Workload {
  prompts: number;
  /** That are to be drawn. */
  pictures: number;
  /** That are to be looked at. */
  detections: number;
  steps: number;
  /** Whose colour is asked for. */
  objects: number;
  /** Classes that these are of. */
  classes: number;
}

/** Hours on some devices that share the work. */
export function expectedHours(
  { prompts, pictures, detections, steps, objects, classes }: Workload,
  { step, text, decode, detect, colour, colourTexts }: PartSeconds,
  devices = 1,
): number {
  const drawing = pictures * (steps * step + decode) + prompts * text;
  const seconds = drawing + detections * detect + objects * colour + classes * colourTexts;
  return seconds / devices / 3600;
}

/**
 * The parts for the published model of 360 million parameters, FLAN-T5-XL and Mask2Former. On the processor: measured
 * (docs/benchmarks.md) on 2 cores of an AMD EPYC with AVX-512 BF16, the network in bfloat16; but the colours, which are
 * computed from CLIP's arithmetic (0.16 TFLOP an object, 0.39 for the texts of a class) at the network's speed there.
 * On an H100: computed, not measured, from the arithmetic of each part at 30 % of 989 TFLOP/s.
 */
export const PUBLISHED_SECONDS: Readonly<Record<"2 CPU cores" | "H100, computed", PartSeconds>> = {
  "2 CPU cores": { step: 1.19, text: 0.68, decode: 1.87, detect: 2.5, colour: 0.58, colourTexts: 1.4 },
  "H100, computed": { step: 0.0011, text: 0.003, decode: 0.005, detect: 0.01, colour: 0.0006, colourTexts: 0.0013 },
};

/** Steps that are timed; the first one warms up. */
const TIMED_STEPS = 3;

/** Times drawing on this machine. */
export async function measureDrawing(
  pipe: MiroPipeline,
  prompt: string,
  options: PromptOptions,
): Promise<Pick<PartSeconds, "step" | "text" | "decode">> {
  const times: number[] = [];
  const checked = parseOptions(generateSchema, {
    ...options,
    steps: TIMED_STEPS,
    deterministic: true,
    onStep: ({ x }: GenerateProgress) => {
      computed(x);
      times.push(performance.now());
    },
  });
  const started = performance.now();
  const encoded = await pipe.encodePrompt(prompt); // loads the encoder too
  encoded.embeddings.dispose();
  const loaded = performance.now();
  const again = await pipe.encodePrompt(prompt);
  computed(again.embeddings);
  again.embeddings.dispose();
  const text = (performance.now() - loaded) / 1000;
  let drawn = started;
  for await (const { latents } of pipe.draw(await pipe.plan(prompt, checked))) {
    drawn = performance.now();
    latents?.dispose();
  }
  const steps = times.slice(1).map((time, i) => time - times[i]!);
  return {
    step: steps.reduce((sum, one) => sum + one, 0) / steps.length / 1000,
    text,
    decode: (drawn - times.at(-1)!) / 1000,
  };
}

/** Waits until a GPU has computed a tensor that it was asked for. */
function computed(x: Tensor): void {
  using event = new DeviceEvent(x);
  event.wait();
}

/** Two squares on white, 256 × 256 pixels. */
function squares(): RgbImage {
  const side = 256;
  const data = Uint8Array.from({ length: 3 * side * side }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % side, Math.floor(i / 3 / side)];
    return y > 90 && y < 170 && x % 128 > 30 && x % 128 < 100 ? (i % 3) * 100 : 255;
  });
  return { width: side, height: side, data };
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** Times the detector on a picture; the first one warms up. */
export async function measureLooking(detector: Detector): Promise<number> {
  const look = () => detector.detect([squares()]);
  await look();
  return secondsOf(look);
}

/** Times the colours of one object, and the texts of a class; the first ones warm up. */
export async function measureColours(
  classifier: ColourClassifier,
): Promise<Pick<PartSeconds, "colour" | "colourTexts">> {
  const classify = () => classifier.classify(squares(), [{ box: [30, 90, 100, 170] }], "bench");
  await classify();
  return { colour: await secondsOf(classify), colourTexts: await secondsOf(() => classifier.weightsOf("clock")) };
}
