/**
 * The bundled model through GenEval's rules: names, counts and relations of the emoji world, and a detector that finds
 * emoji. It tries every step of an evaluation from a fresh clone; its scores say nothing of other models.
 */
import { invalid } from "../../errors.js";
import type { Detection, DetectOptions, Detector, Mask } from "../../evaluation/geneval/detection.js";
import type { PromptMetadata, Relation } from "../../evaluation/geneval/metadata.js";
import type { PromptSet } from "../../evaluation/geneval/prompts.js";
import type { Suite } from "../../evaluation/geneval/run/suites.js";
import { pythonJson } from "../../files/python-json.js";
import { sha256 } from "../../files/sha256.js";
import { message } from "../../message.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { breathe } from "../../pipeline/interruption.js";
import { bundledFolder } from "../../pipeline/loading/bundled.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import type { Relation as Placed } from "../scenes/captions.js";
import { loadVocabulary } from "../scenes/vocabulary.js";
import { EmojiClassifier } from "./classifier.js";
import { evenOnes, observe, TOP, type View } from "./detector.js";
import { askedCounts, askedPairs, countable } from "./layouts.js";
import { askedOnColours, askedPlainly } from "./retrieval.js";
import { sampleEvenly } from "./sampling.js";

/** Names of each part. */
const NAMES = { single: 20, counting: 5, pairs: 5 };
const SEED = 0;

const RELATION: Readonly<Record<Exclude<Placed, "and">, Relation>> = {
  left: "left of",
  right: "right of",
  above: "above",
  below: "below",
};

/** The prompts: some everyday names alone, two to five of a thing, and pairs with and without a relation. */
export function emojiPrompts(): PromptSet {
  const labels = loadVocabulary("everyday").map(({ label }) => label);
  const sample = (list: readonly string[], count: number) => sampleEvenly(list, count, SEED);
  const one = (name: string) => ({ class: name, count: 1 });
  const names = sample(labels, NAMES.single);
  const single = [...askedPlainly(names.slice(0, names.length / 2)), ...askedOnColours(names.slice(names.length / 2))];
  const pairs = askedPairs(sample(labels, NAMES.pairs), labels, SEED);
  const prompts: PromptMetadata[] = [
    ...single.map(({ label, prompt }) => ({ tag: "single_object", include: [one(label)], prompt })),
    ...pairs
      .filter(({ relation }) => relation === "and")
      .map(({ labels: [a, b], prompt }) => ({ tag: "two_object", include: [one(a), one(b)], prompt })),
    ...askedCounts(sample(countable(labels), NAMES.counting))
      .filter(({ count }) => count > 1)
      .map(({ label, count, prompt }) => ({
        tag: "counting",
        include: [{ class: label, count }],
        exclude: [{ class: label, count: count + 1 }],
        prompt,
      })),
    ...pairs.flatMap(({ labels: [a, b], relation, prompt }) =>
      relation === "and"
        ? []
        : [
            {
              tag: "position",
              include: [one(b), { ...one(a), position: [RELATION[relation], 0] as [Relation, number] }],
              prompt,
            },
          ],
    ),
  ];
  return { name: "emoji", sha256: sha256(prompts.map((prompt) => `${pythonJson(prompt)}\n`).join("")), prompts };
}

/** Finds emoji on plain backgrounds. */
export class EmojiDetector implements Detector {
  readonly name = "emoji classifier on the objects of a picture";
  readonly trainingRun = "comes with the program";
  readonly classes: readonly string[];
  readonly #classifier: EmojiClassifier;

  constructor(classifier: EmojiClassifier) {
    this.#classifier = classifier;
    this.classes = classifier.config.labels;
  }

  /**
   * @throws InvalidInputError for a device that is none; MiroError naming the file of the classifier that is missing or
   *   broken
   */
  static load(folder: string, device: string): EmojiDetector {
    const classifier = EmojiClassifier.fromPretrained(folder).to({ device: checkDevice(device) });
    return new EmojiDetector(classifier);
  }

  async detect(
    images: readonly RgbImage[],
    { minScore = 0, classes, signal }: DetectOptions = {},
  ): Promise<Detection[][]> {
    const found: Detection[][] = [];
    for (const image of images) {
      await breathe(signal);
      const all = this.#detect(image);
      found.push(all.filter(({ score, classIndex }) => score > minScore && (classes?.includes(classIndex) ?? true)));
    }
    return found;
  }

  /** The five likeliest names of each object, in the division that is believed. */
  #detect(image: RgbImage): Detection[] {
    const { divisions, halves, mask } = observe(image, this.#classifier);
    const views = evenOnes([...divisions, ...halves]).map((view) => ({ view, belief: beliefIn(view) }));
    const best = views.sort((a, b) => b.belief - a.belief)[0]?.view;
    if (best === undefined) return [];
    const { regions, looks, owner } = best;
    const detections = regions.flatMap(({ left, top, right, bottom }, i) => {
      const shape = maskOf(image, mask, owner, i);
      return likeliest(looks[i]!).map((classIndex, rank): Detection => {
        return { classIndex, score: 1 - STEP * rank, box: [left, top, right, bottom], mask: shape };
      });
    });
    return detections.sort((a, b) => b.score - a.score);
  }

  dispose(): void {
    this.#classifier.dispose();
  }
}

/** From one of the likeliest names to the next; all of them stay above GenEval's threshold for counting. */
const STEP = 0.02;

/**
 * How far a division is believed whose objects are not known: mean log-probability of the likeliest names, and how near
 * to a square the narrowest object is, as emoji mostly are. The classifier alone is sure of a name also for what is no
 * object: the upper third of one, or two of them at once.
 */
function beliefIn({ regions, looks }: View): number {
  const likeness = looks.reduce((sum, look) => sum + look.reduce((most, value) => Math.max(most, value)), 0);
  const shapes = regions.map(({ left, top, right, bottom }) => {
    const [width, height] = [right - left, bottom - top];
    return Math.min(width, height) / Math.max(width, height);
  });
  return likeness / looks.length + 2 * Math.log(Math.min(...shapes));
}

function likeliest(look: Float32Array): number[] {
  return [...look.keys()].sort((a, b) => look[b]! - look[a]!).slice(0, TOP);
}

function maskOf({ width, height }: RgbImage, foreground: Uint8Array, owner: Uint8Array, region: number): Mask {
  const bits = new Uint8Array(Math.ceil((width * height) / 8));
  for (let at = 0; at < width * height; at++)
    if (foreground[at] && owner[at] === region) bits[at >> 3]! |= 128 >> (at & 7);
  return { width, height, bits };
}

/** Registered as the prompts `emoji`. */
export const emojiSuite: Suite = {
  name: "emoji",
  summary: "names, counts and relations of the bundled model's world, with a detector that finds emoji",
  prompts: emojiPrompts,
  samples: 1,
  compare: false,
  needsWeights: false,
  classes: (source) => EmojiClassifier.configOf(classifierFolder(source)).labels,
  loadDetector: async ({ source, device }) => EmojiDetector.load(classifierFolder(source), device),
};

function classifierFolder(source: string | undefined): string {
  const folder = source ?? bundledFolder("emoji-classifier");
  if (folder === null)
    throw invalid("detector", "the folder of an emoji classifier, as this copy has none", message`none`);
  return folder;
}
