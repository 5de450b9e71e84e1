/**
 * Does a model count to five, and put things where it is told? Each of a sample of names is asked for one to five times
 * ("three foxes"), and with another thing to its left, its right, above, below or just with it; the detector
 * (`detector.ts`) says what is there.
 */
import { type ColourName, countPrompt, pairPrompt, RELATIONS, type Relation } from "../scenes/captions.js";
import { SceneRandom } from "../scenes/random.js";
import { loadVocabulary } from "../scenes/vocabulary.js";
import { bothFound, type Counted, isFound, isPlacedPair, isRightCount, isRightPair, type Located } from "./detector.js";
import { colourInTurn, shareOf } from "./retrieval.js";

/** How many of a thing are asked for. */
export const COUNTS = [1, 2, 3, 4, 5] as const;

export interface AskedCount {
  prompt: string;
  label: string;
  count: number;
}

export interface AskedPair {
  prompt: string;
  labels: readonly [string, string];
  relation: Relation;
}

/** What was asked for and what was found; `located` is null where there were no two objects. */
export type CountVerdict = AskedCount & { counted: Counted };
export type PairVerdict = AskedPair & { located: Located | null };

export interface CountShares {
  pictures: number;
  /** The number is right, and every object can be taken for what it should be (top-5). */
  right: number;
  /** The number is right. */
  counted: number;
}

export interface CountScore extends CountShares {
  /** By the number that was asked for. */
  counts: Record<number, CountShares>;
  /** How often each number was found, by the number that was asked for. */
  found: Record<number, Record<number, number>>;
  /** "three foxes → 4, 3 of them foxes", in short. */
  wrong: string[];
}

export interface PairShares {
  pictures: number;
  /** Both things are found (top-5) and stand as asked. */
  right: number;
  /** Two objects stand so that each is more like the thing asked for there than in any other places, found or not. */
  placed: number;
  /** Both are found, wherever they stand. */
  both: number;
  /** Both are the likeliest names of their objects. */
  bothTop1: number;
}

export interface PairScore extends PairShares {
  /** By relation; of "and" the places are left open. */
  relations: Partial<Record<Relation, PairShares>>;
  wrong: string[];
}

/** Stream of random numbers that chooses the second of a pair. */
const PARTNER_STREAM = 22;

/** The names of which there can be several: "two bread" is no English. */
export function countable(labels: readonly string[]): string[] {
  return loadVocabulary(labels).flatMap(({ label, article }) => (article === "" ? [] : [label]));
}

/**
 * Each name at each count; every second name on a named background, the others on white, which the caption does not
 * name.
 */
export function askedCounts(labels: readonly string[]): AskedCount[] {
  return loadVocabulary(labels).flatMap((entry, i) =>
    COUNTS.map((count) => ({ prompt: countPrompt(entry, count, everySecond(i)), label: entry.label, count })),
  );
}

/** Each name with another from `others` in each relation; backgrounds as for counts. */
export function askedPairs(labels: readonly string[], others: readonly string[], seed: number): AskedPair[] {
  const pool = loadVocabulary(others);
  return loadVocabulary(labels).flatMap((entry, i) => {
    const rest = pool.filter(({ label }) => label !== entry.label);
    const partner = new SceneRandom(seed, i, PARTNER_STREAM).pick(rest);
    return RELATIONS.map((relation) => ({
      prompt: pairPrompt([entry, partner], relation, everySecond(i)),
      labels: [entry.label, partner.label] as const,
      relation,
    }));
  });
}

function everySecond(i: number): ColourName | undefined {
  return i % 2 === 0 ? undefined : colourInTurn(i);
}

/** Figures of counts. */
export function summariseCounts(verdicts: readonly CountVerdict[]): CountScore {
  const isRight = ({ counted, count }: CountVerdict) => isRightCount(counted, count);
  const shares = (list: readonly CountVerdict[]): CountShares => ({
    pictures: list.length,
    right: shareOf(list, isRight),
    counted: shareOf(list, ({ counted, count }) => counted.found === count),
  });
  const found: CountScore["found"] = {};
  for (const { count, counted } of verdicts) {
    found[count] ??= {};
    found[count][counted.found] = (found[count][counted.found] ?? 0) + 1;
  }
  const asked = COUNTS.map((count) => [count, verdicts.filter((verdict) => verdict.count === count)] as const);
  return {
    ...shares(verdicts),
    counts: Object.fromEntries(asked.flatMap(([count, list]) => (list.length > 0 ? [[count, shares(list)]] : []))),
    found,
    wrong: verdicts.flatMap((verdict) =>
      isRight(verdict) ? [] : [`${verdict.prompt} → ${verdict.counted.found}, ${verdict.counted.named} named`],
    ),
  };
}

/** Figures of pairs. */
export function summarisePairs(verdicts: readonly PairVerdict[]): PairScore {
  const isRight = ({ located, relation }: PairVerdict) => isRightPair(located, relation);
  const shares = (list: readonly PairVerdict[]): PairShares => ({
    pictures: list.length,
    right: shareOf(list, isRight),
    placed: shareOf(list, ({ located, relation }) => isPlacedPair(located, relation)),
    both: shareOf(list, ({ located }) => bothFound(located)),
    bothTop1: shareOf(list, ({ located }) => located?.ranks.every((rank) => rank === 0) ?? false),
  });
  const relations: PairScore["relations"] = {};
  for (const relation of RELATIONS) {
    const list = verdicts.filter((verdict) => verdict.relation === relation);
    if (list.length > 0) relations[relation] = shares(list);
  }
  return {
    ...shares(verdicts),
    relations,
    wrong: verdicts.flatMap((verdict) => (isRight(verdict) ? [] : [`${verdict.prompt} → ${foundInPair(verdict)}`])),
  };
}

/** What was found instead of what was asked for, in words. */
export function foundInPair({ labels, located }: PairVerdict): string {
  if (located === null) return "no two objects";
  const missing = labels.filter((_, i) => !isFound(located.ranks[i]!));
  return missing.length > 0 ? `no ${missing.join(", no ")}` : located.relation;
}
