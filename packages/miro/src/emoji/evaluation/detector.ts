/**
 * How many of a thing a picture shows, and which of two things stands where: the classifier of the retrieval test,
 * applied to the single objects of a picture.
 *
 * Every way to divide the picture (`object-regions.ts`) is looked at, each object by itself, at the size at which the
 * classifier was trained; the division whose objects are most like what was asked for is believed. How many or where
 * was asked for has no say in it. What it finds in true renders is the most that a model can be credited with:
 * `detector-check.ts`.
 */
import { cat, nn, scope } from "@miro-t2i/torch";
import { invalid } from "../../errors.js";
import type { RgbImage } from "../../pictures/rgb.js";
import type { Relation } from "../scenes/captions.js";
import { CLASSIFIER_SIZE } from "../scenes/scene-options.js";
import type { EmojiClassifier } from "./classifier.js";
import {
  centre,
  cropOf,
  type Division,
  divisions,
  halves,
  longerEdge,
  type Region,
  segment,
} from "./object-regions.js";
import { toBatch } from "./picture-batch.js";

/** A division of a picture and what each of its objects looks like. */
export interface View {
  regions: Region[];
  /** For each pixel, the region that it is nearest to. */
  owner: Uint8Array;
  /** Logarithms of the probabilities of all labels, for each region. */
  looks: Float32Array[];
}

/** What the detector has seen of a picture, to be asked about. */
export interface Observation {
  labels: readonly string[];
  /** 1 where something stands before the background. */
  mask: Uint8Array;
  divisions: View[];
  /** The picture cut in two, across and down. */
  halves: View[];
}

/** An answer to "how many?". */
export interface Counted {
  /** Objects in the picture. */
  found: number;
  /** Those that have the name among their five likeliest. */
  named: number;
}

/** An answer to "where?". */
export interface Located {
  /** Places of the two names among the likeliest of their objects, from 0. */
  ranks: [number, number];
  /** Where the first stands, seen from the second. */
  relation: Exclude<Relation, "and">;
}

/**
 * Share of a crop's side that an object takes: that of single objects in the scenes that the classifier was trained on.
 */
const FILL = 0.82;
/**
 * Objects of one count are of one size; a division into larger and smaller pieces is believed only where there is no
 * other.
 */
const EVEN = 0.6;
/** A name is found when it is among this many of the likeliest. */
export const TOP = 5;
/** A division into more objects than this is not one into two, with something beside them. */
const PAIR_MOST = 4;

/** Looks at every object of every division of a picture. */
export function observe(image: RgbImage, classifier: EmojiClassifier): Observation {
  const segmented = segment(image);
  const parted = divisions(segmented);
  const cut = (["x", "y"] as const).flatMap((axis) => halves(segmented, axis) ?? []);
  const all = [...parted, ...cut];
  const crops = all.flatMap((division) => division.regions.map((_, i) => cropOf(segmented, division, i, FILL)));
  const looks = crops.length === 0 ? [] : lookAt(crops, classifier);
  let next = 0;
  const view = ({ regions, owner }: Division): View => ({ regions, owner, looks: regions.map(() => looks[next++]!) });
  const { mask } = segmented;
  return { labels: classifier.config.labels, mask, divisions: parted.map(view), halves: cut.map(view) };
}

function lookAt(crops: readonly RgbImage[], classifier: EmojiClassifier): Float32Array[] {
  return scope(() => {
    const sized = crops.map((crop) =>
      nn.functional.interpolate(toBatch([crop]), { size: CLASSIFIER_SIZE, mode: "bilinear", antialias: true }),
    );
    return classifier.logProbabilities(cat(sized, 0));
  });
}

/** Counts the objects of a picture, taking them for `label` as far as they look like it. */
export function countObjects({ labels, divisions }: Observation, label: string): Counted {
  const at = indexOf(labels, label);
  let best: (Counted & { share: number; likelihood: number }) | null = null;
  for (const { regions, looks } of evenOnes(divisions)) {
    const named = looks.filter((look) => isFound(rankOf(look, at))).length;
    const share = named / regions.length;
    const likelihood = looks.reduce((sum, look) => sum + look[at]!, 0) / regions.length;
    if (best === null || share > best.share || (share === best.share && likelihood > best.likelihood))
      best = { found: regions.length, named, share, likelihood };
  }
  return { found: best?.found ?? 0, named: best?.named ?? 0 };
}

/** Divisions into objects of about one size; all where there are none. */
export function evenOnes(views: readonly View[]): readonly View[] {
  const even = views.filter(({ regions }) => {
    const edges = regions.map(longerEdge);
    return Math.min(...edges) >= EVEN * Math.max(...edges);
  });
  return even.length > 0 ? even : views;
}

/** Finds two things in a picture; null where there are no two objects. */
export function locatePair(
  { labels, divisions, halves }: Observation,
  pair: readonly [string, string],
): Located | null {
  const [first, second] = [indexOf(labels, pair[0]), indexOf(labels, pair[1])];
  let best: { ranks: [number, number]; a: Region; b: Region; found: number; likelihood: number } | null = null;
  for (const { regions, looks } of [...halves, ...divisions.filter(({ regions }) => regions.length <= PAIR_MOST)]) {
    for (const [i, a] of regions.entries()) {
      for (const [j, b] of regions.entries()) {
        if (i === j) continue;
        const ranks: [number, number] = [rankOf(looks[i]!, first), rankOf(looks[j]!, second)];
        const found = ranks.filter(isFound).length;
        const likelihood = looks[i]![first]! + looks[j]![second]!;
        if (best === null || found > best.found || (found === best.found && likelihood > best.likelihood))
          best = { ranks, a, b, found, likelihood };
      }
    }
  }
  return best && { ranks: best.ranks, relation: relationOf(best.a, best.b) };
}

/** Whether exactly `count` objects were found and all of them can be taken for what was asked for. */
export function isRightCount({ found, named }: Counted, count: number): boolean {
  return found === count && named === count;
}

/** Whether a name in this place, from 0, is near enough to the likeliest. */
export function isFound(rank: number): boolean {
  return rank < TOP;
}

/** Whether both things were found. */
export function bothFound(located: Located | null): boolean {
  return located?.ranks.every(isFound) ?? false;
}

/** Whether both things were found and stand as asked; "and" leaves their places open. */
export function isRightPair(located: Located | null, relation: Relation): boolean {
  return bothFound(located) && isPlacedPair(located, relation);
}

/**
 * Whether the two, however poor their likeness, are more like what was asked for as they stand than in any other
 * places.
 */
export function isPlacedPair(located: Located | null, relation: Relation): boolean {
  return located !== null && (relation === "and" || located.relation === relation);
}

/** Where `a` stands, seen from `b`: the direction in which their middles are further apart. */
function relationOf(a: Region, b: Region): Located["relation"] {
  const [x, y] = centre(a).map((value, axis) => value - centre(b)[axis]!) as [number, number];
  if (Math.abs(x) > Math.abs(y)) return x < 0 ? "left" : "right";
  return y < 0 ? "above" : "below";
}

function indexOf(labels: readonly string[], label: string): number {
  const at = labels.indexOf(label);
  if (at < 0) throw invalid("label", "one that the classifier knows", label);
  return at;
}

function rankOf(look: Float32Array, at: number): number {
  let rank = 0;
  for (const value of look) if (value > look[at]!) rank++;
  return rank;
}
