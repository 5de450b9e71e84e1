/**
 * What the classifier and the detector say of true renders: the ceiling of every figure that a model can get, and how
 * often they say yes to what is not there.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { noGrad, scope, tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../../autoencoder/index.js";
import { type RgbImage, toRgb } from "../../pictures/rgb.js";
import { SceneRandom } from "../scenes/random.js";
import { toRgb8 } from "../scenes/render.js";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";
import type { EmojiClassifier } from "./classifier.js";
import { countObjects, isRightCount, isRightPair, locatePair, observe } from "./detector.js";
import {
  type CountScore,
  type CountVerdict,
  type PairScore,
  type PairVerdict,
  summariseCounts,
  summarisePairs,
} from "./layouts.js";
import { shareOf } from "./retrieval.js";

export interface DetectorCheckOptions {
  /** Names to show; default: all that the classifier knows. */
  labels?: readonly string[];
  /** Scenes of one to five of a thing, and as many of pairs; default 300. */
  pictures?: number;
  /** Side of the pictures; default 256, the bundled model's. */
  size?: number;
  seed?: number;
  /** What the pictures go through before they are judged, for the ceiling of models that draw with it. */
  autoencoder?: Autoencoder;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface DetectorCheck {
  counts: CountScore & {
    /** Share of pictures where the right number of something else is taken for what they show. */
    otherThing: number;
  };
  relations: PairScore & {
    /** Share of pictures that count as right with the two names exchanged; "and" left out. */
    exchanged: number;
    /** The same with the second name replaced by another. */
    otherThing: number;
  };
}

/** Stream of random numbers that chooses names of what is not there. */
const OTHER_STREAM = 24;

/** Counts and locates in renders of scenes on all backgrounds, undamaged, with true names. */
export async function checkDetector(
  classifier: EmojiClassifier,
  {
    labels = classifier.config.labels,
    pictures = 300,
    size = 256,
    seed = 0,
    autoencoder,
    onProgress,
    signal,
  }: DetectorCheckOptions = {},
): Promise<DetectorCheck> {
  const load = (kinds: Record<string, number>) =>
    EmojiScenes.load({
      vocabulary: [...labels],
      size,
      seed,
      kinds,
      tint: 0,
      degraded: 0,
      wrongCaption: 0,
      aliasShare: 0,
    });
  const other = (scene: Scene): string => {
    const shown = scene.entries.map(({ label }) => label);
    return new SceneRandom(seed, scene.index, OTHER_STREAM).pick(labels.filter((label) => !shown.includes(label)));
  };
  let done = 0;
  const step = async () => {
    onProgress?.(++done, 2 * pictures);
    // Yields to the event loop, so that an abort can arrive.
    await nextTurn();
    signal?.throwIfAborted();
  };

  const counts: CountVerdict[] = [];
  let otherCounted = 0;
  const several = await load({ one: 0.2, count: 0.8 });
  for (let i = 0; i < pictures; i++) {
    const scene = several.describe(i);
    const observation = observe(draw(several, scene, autoencoder), classifier);
    const { label } = scene.entries[0]!;
    counts.push({ prompt: scene.caption, label, count: scene.count, counted: countObjects(observation, label) });
    if (isRightCount(countObjects(observation, other(scene)), scene.count)) otherCounted++;
    await step();
  }

  const pairs: (PairVerdict & { exchanged: boolean; otherThing: boolean })[] = [];
  const two = await load({ pair: 1 });
  for (let i = 0; i < pictures; i++) {
    const scene = two.describe(i);
    const observation = observe(draw(two, scene, autoencoder), classifier);
    const [first, second] = scene.entries.map(({ label }) => label) as [string, string];
    const relation = scene.relation!;
    const isRight = (a: string, b: string) => isRightPair(locatePair(observation, [a, b]), relation);
    pairs.push({
      prompt: scene.caption,
      labels: [first, second],
      relation,
      located: locatePair(observation, [first, second]),
      exchanged: isRight(second, first),
      otherThing: isRight(first, other(scene)),
    });
    await step();
  }
  const ordered = pairs.filter(({ relation }) => relation !== "and");
  return {
    counts: { ...summariseCounts(counts), otherThing: otherCounted / pictures },
    relations: {
      ...summarisePairs(pairs),
      exchanged: shareOf(ordered, ({ exchanged }) => exchanged),
      otherThing: shareOf(pairs, ({ otherThing }) => otherThing),
    },
  };
}

function draw(scenes: EmojiScenes, scene: Scene, autoencoder: Autoencoder | undefined): RgbImage {
  const { size } = scenes;
  const pixels = new Float32Array(3 * size * size);
  scenes.render(scene, pixels);
  if (autoencoder === undefined) return { width: size, height: size, data: toRgb8(pixels, size) };
  return noGrad(() =>
    scope(() => {
      const device = [...autoencoder.parameters()][0]!.device;
      const { mean } = autoencoder.encode(tensor(pixels, { shape: [1, 3, size, size], device }));
      return toRgb(autoencoder.decode(mean))[0]!;
    }),
  );
}
