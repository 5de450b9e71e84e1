/**
 * Does a model draw what it is asked for? The retrieval test of the bundled model.
 *
 * 1. Each name of the vocabulary is drawn once ("a fox"), and once on a named background; a classifier that was trained on renders
 *    alone (`emoji-classifier.ts`) names what it sees: top-1 and top-5.
 * 2. The corners' colour must be nearest to the colour that was asked for, among all named colours and white.
 * 3. Prompts and seeds are kept and one reward target moves through 0, ¼, ½, ¾, 1 (the others stay 1): sharpness (Laplacian
 *    energy), colourfulness (Hasler and Süsstrunk) and alignment (share of top-1) must each rise with their own target.
 */
import { scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import { COLOUR_NAMES, type ColourName, NAMED_COLOURS, simplePrompt, WHITE } from "../data/emoji/captions.js";
import { loadVocabulary } from "../data/emoji/vocabulary.js";
import { invalid } from "../errors.js";
import { contactSheet, type RgbImage } from "../pipeline/pictures/images.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import { colourfulness, laplacianEnergy } from "../rewards/measured.js";
import { backgroundColour, distance, nearestColour } from "./backgrounds.js";
import type { EmojiClassifier } from "./emoji-classifier.js";

export interface RetrievalOptions {
  /** Sampling steps and guidance; default: the checkpoint's. */
  steps?: number;
  guidanceScale?: number;
  seed?: number;
  /** Prompts for each reward target; 0 leaves the reward axes out. */
  rewardPrompts?: number;
  /** Names to draw; default: all that the classifier knows. */
  labels?: readonly string[];
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface RetrievalScore {
  pictures: number;
  top1: number;
  top5: number;
  /** Share of pictures whose background is nearest to the colour that was asked for. */
  background: number;
  /** Mean distance between the background and that colour, in levels of 8-bit sRGB. */
  backgroundDistance: number;
  /** What was taken for something else: "fox → cat face". */
  confusions: string[];
}

export interface RewardAxis {
  targets: number[];
  /** The measure at each target, averaged over prompts. */
  values: number[];
  /** Whether the measure at 1 exceeds that at 0. */
  rises: boolean;
}

export interface RetrievalResult {
  plain: RetrievalScore;
  coloured: RetrievalScore;
  /** By reward key. */
  rewards: Record<string, RewardAxis>;
  sheets: { plain: RgbImage; coloured: RgbImage };
}

const TARGETS = [0, 0.25, 0.5, 0.75, 1];
/** Pictures drawn in one call. */
const CHUNK = 16;
const SHEET_COLUMNS = 12;

/** What a prompt asks for. */
export interface Asked {
  prompt: string;
  label: string;
  colour: ColourName | "white";
}

/** Runs the three parts. */
export async function evaluateRetrieval(
  pipeline: MiroPipeline,
  classifier: EmojiClassifier,
  options: RetrievalOptions = {},
): Promise<RetrievalResult> {
  const { labels = classifier.config.labels, rewardPrompts = 24 } = options;
  const plainPrompts = askedPlainly(labels);
  const colouredPrompts = askedOnColours(labels);
  const rewardKeys = pipeline.coherenceKeys.filter((key) => key in MEASURES);
  const asked = rewardPrompts > 0 ? colouredPrompts.slice(0, rewardPrompts) : [];
  const total = plainPrompts.length + colouredPrompts.length + rewardKeys.length * TARGETS.length * asked.length;
  let done = 0;

  const draw = async (prompts: readonly Asked[], rewardTargets?: Record<string, number>): Promise<RgbImage[]> => {
    const images: RgbImage[] = [];
    for (let start = 0; start < prompts.length; start += CHUNK) {
      const part = prompts.slice(start, start + CHUNK);
      const { images: drawn, latents } = await pipeline.generate(
        part.map(({ prompt }) => prompt),
        {
          seed: (options.seed ?? 0) + start,
          ...(options.steps !== undefined && { steps: options.steps }),
          ...(options.guidanceScale !== undefined && { guidanceScale: options.guidanceScale }),
          ...(rewardTargets && { rewardTargets }),
          ...(options.signal && { signal: options.signal }),
        },
      );
      latents.dispose();
      images.push(...drawn);
      done += part.length;
      options.onProgress?.(done, total);
    }
    return images;
  };

  const plain = await draw(plainPrompts);
  const coloured = await draw(colouredPrompts);
  const rewards: Record<string, RewardAxis> = {};
  if (asked.length > 0) {
    for (const key of rewardKeys) {
      const values: number[] = [];
      for (const target of TARGETS)
        values.push(MEASURES[key]!(await draw(asked, { [key]: target }), asked, classifier));
      rewards[key] = { targets: TARGETS, values, rises: values.at(-1)! > values[0]! };
    }
  }
  return {
    plain: score(plain, plainPrompts, classifier),
    coloured: score(coloured, colouredPrompts, classifier),
    rewards,
    sheets: {
      plain: contactSheet(plain, { columns: SHEET_COLUMNS }),
      coloured: contactSheet(coloured, { columns: SHEET_COLUMNS }),
    },
  };
}

/** "a fox" for each name: white is behind what says nothing of its background. */
export function askedPlainly(labels: readonly string[]): Asked[] {
  return loadVocabulary(labels).map((entry) => ({
    prompt: simplePrompt(entry),
    label: entry.label,
    colour: "white",
  }));
}

/** "a fox on a red background" for each name, with the colours in turn. */
export function askedOnColours(labels: readonly string[]): Asked[] {
  return loadVocabulary(labels).map((entry, i) => {
    const colour = COLOUR_NAMES[(7 * i) % COLOUR_NAMES.length]!;
    return { prompt: simplePrompt(entry, colour), label: entry.label, colour };
  });
}

const average = (images: RgbImage[], measure: (image: RgbImage) => number) =>
  images.reduce((sum, image) => sum + measure(image), 0) / images.length;

/** What each reward is held against. */
const MEASURES: Record<string, (images: RgbImage[], asked: readonly Asked[], classifier: EmojiClassifier) => number> = {
  clip_score: (images, asked, classifier) => score(images, asked, classifier).top1,
  sharpness: (images) => average(images, laplacianEnergy),
  colorfulness: (images) => average(images, colourfulness),
};

/** Names what the pictures show and compares. */
export function score(
  images: readonly RgbImage[],
  asked: readonly Asked[],
  classifier: EmojiClassifier,
): RetrievalScore {
  if (images.length !== asked.length) invalid("images", `${asked.length} pictures, one for each prompt`, images.length);
  const { labels } = classifier.config;
  let [top1, top5, background, away] = [0, 0, 0, 0];
  const confusions: string[] = [];
  for (let start = 0; start < images.length; start += 64) {
    const part = images.slice(start, start + 64);
    const guesses = classifyImages(part, classifier);
    part.forEach((image, i) => {
      const { label, colour } = asked[start + i]!;
      const named = guesses[i]!.map((index) => labels[index]!);
      if (named[0] === label) top1++;
      else confusions.push(`${label} → ${named[0]}`);
      if (named.includes(label)) top5++;
      const found = backgroundColour(image);
      if (nearestColour(found) === colour) background++;
      away += distance(found, colour === "white" ? WHITE : NAMED_COLOURS[colour]);
    });
  }
  const n = images.length;
  return {
    pictures: n,
    top1: top1 / n,
    top5: top5 / n,
    background: background / n,
    backgroundDistance: away / n,
    confusions,
  };
}

function classifyImages(images: readonly RgbImage[], classifier: EmojiClassifier): number[][] {
  const batch = toBatch(images);
  try {
    return classifier.classify(batch);
  } finally {
    batch.dispose();
  }
}

/** Pictures of one size as (B, 3, H, W) in [-1, 1]; the caller owns the tensor. */
export function toBatch(images: readonly RgbImage[]): Tensor {
  return scope(() => {
    const pixels = images.map(({ data, width, height }) => tensor(data, { shape: [height, width, 3] }));
    return stack(pixels, 0).permute(0, 3, 1, 2).float().div(127.5).sub(1);
  });
}
