/**
 * Does a scorer know a better picture when it sees one? Several pictures are drawn for each name; the classifier of the
 * retrieval test (`classifier.ts`), which knows nothing of the scorer, says which of them show it. If the scorer is of
 * use, the picture that it ranks first is recognised more often than the first drawn.
 */
import { rankCorrelation } from "../../evaluation/statistics.js";
import type { RgbImage } from "../../pictures/rgb.js";
import type { MiroPipeline } from "../../pipeline/pipeline.js";
import { bestOf } from "../../rewards/best-of.js";
import type { Scorer } from "../../rewards/scorer.js";
import type { EmojiClassifier } from "./classifier.js";
import { toBatch } from "./picture-batch.js";
import { type Asked, askedOnColours, askedPlainly } from "./retrieval.js";

export interface EvaluateBestOfOptions {
  /** Pictures for each prompt; default 4. */
  n?: number;
  /** Names to draw; default: all that the classifier knows. */
  labels?: readonly string[];
  seed?: number;
  /** Sampling steps and guidance; default: the checkpoint's. */
  steps?: number;
  guidanceScale?: number;
  /** What the rewards are asked to be; a low `clip_score` makes pictures that do not show their prompts. */
  rewardTargets?: Record<string, number>;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Pictures of one prompt in the order in which they were drawn, with their scores. */
export interface ScoredGroup {
  label: string;
  images: readonly RgbImage[];
  scores: readonly number[];
}

/** All shares are of prompts, except `each`, which is of pictures. */
export interface BestOfFigures {
  prompts: number;
  pictures: number;
  /** The classifier names the first picture right; the one that the scorer ranks first; at least one of them. */
  first: number;
  best: number;
  any: number;
  /** The classifier names a picture right, over all pictures. */
  each: number;
  /**
   * Of the pairs of a recognised and an unrecognised picture of one prompt: the share that the scorer orders so. NaN
   * without such pairs.
   */
  pairsInOrder: number;
  /** Spearman's correlation of score and the classifier's probability of the name, over all pictures. */
  rankCorrelation: number;
}

export interface BestOfEvaluation {
  n: number;
  scorer: string;
  /** "a fox" */
  plain: BestOfFigures;
  /** "a fox on a red background" */
  coloured: BestOfFigures;
}

/** Prompts of one call. */
const CHUNK = 4;

/** Draws, scores and judges. */
export async function evaluateBestOf(
  pipeline: MiroPipeline,
  classifier: EmojiClassifier,
  scorer: Scorer,
  { n = 4, labels = classifier.config.labels, seed = 0, onProgress, ...generate }: EvaluateBestOfOptions = {},
): Promise<BestOfEvaluation> {
  const total = 2 * labels.length * n;
  let done = 0;
  const measure = async (asked: readonly Asked[]): Promise<BestOfFigures> => {
    const groups: ScoredGroup[] = [];
    for (let start = 0; start < asked.length; start += CHUNK) {
      const part = asked.slice(start, start + CHUNK);
      const prompts = part.map(({ prompt }) => prompt);
      const result = await bestOf(pipeline, prompts, { ...generate, n, scorer, seed: seed + start * n });
      for (const [i, { ranked }] of result.prompts.entries()) {
        const drawn = [...ranked].sort((a, b) => a.index - b.index);
        groups.push({
          label: part[i]!.label,
          images: drawn.map(({ image }) => image),
          scores: drawn.map(({ score }) => score),
        });
      }
      done += part.length * n;
      onProgress?.(done, total);
    }
    return summarise(groups, classifier);
  };
  return {
    n,
    scorer: scorer.key,
    plain: await measure(askedPlainly(labels)),
    coloured: await measure(askedOnColours(labels)),
  };
}

/** Figures of pictures that are drawn and scored. */
export function summarise(groups: readonly ScoredGroup[], classifier: EmojiClassifier): BestOfFigures {
  let [first, best, any, each, pictures] = [0, 0, 0, 0, 0];
  let [inOrder, pairs] = [0, 0];
  const scores: number[] = [];
  const probabilities: number[] = [];
  for (const group of groups) {
    const batch = toBatch(group.images);
    const judged = classifier.judge(batch, group.label);
    batch.dispose();
    const right = judged.map(({ first }) => first);
    const top = group.scores.indexOf(Math.max(...group.scores));
    if (right[0]) first++;
    if (right[top]) best++;
    if (right.includes(true)) any++;
    each += right.filter(Boolean).length;
    pictures += right.length;
    for (const [i, a] of group.scores.entries()) {
      for (const [j, b] of group.scores.entries()) {
        if (!right[i] || right[j]) continue;
        pairs++;
        inOrder += a > b ? 1 : a === b ? 0.5 : 0;
      }
    }
    scores.push(...group.scores);
    probabilities.push(...judged.map(({ probability }) => probability));
  }
  const n = groups.length;
  return {
    prompts: n,
    pictures,
    first: first / n,
    best: best / n,
    any: any / n,
    each: each / pictures,
    pairsInOrder: inOrder / pairs,
    rankCorrelation: rankCorrelation(scores, probabilities),
  };
}
