/**
 * The measurement of the bundled model, part by part.
 *
 * | part      | asked for                                                     | checked by |
 * |-----------|---------------------------------------------------------------|------------|
 * | retrieval | every name, plain and on a named background                   | `retrieval.ts` |
 * | counts    | one to five of each of a sample of names                      | `layouts.ts`, `detector.ts` |
 * | relations | pairs of things in each relation                              | the same |
 * | aliases   | other names of things; names in the sentences of the training | `retrieval.ts` |
 * | rewards   | the same prompts and seeds at five targets of each reward     | `reward-axes.ts` |
 * | edges     | a sample of names; held against true renders of the same      | `edges.ts` |
 * | samples   | captions of scenes that nobody chose                          | who looks at them |
 *
 * Pictures are checked as they are drawn, and only those of the sheets are kept.
 */
import { invalid } from "../../errors.js";
import { inRows, labelledSheet, type SheetCell } from "../../pictures/labelled-sheet.js";
import type { RgbImage } from "../../pictures/rgb.js";
import type { MiroPipeline } from "../../pipeline/pipeline.js";
import { RELATIONS } from "../scenes/captions.js";
import { EmojiScenes } from "../scenes/scenes.js";
import type { EmojiClassifier } from "./classifier.js";
import { countObjects, isRightCount, isRightPair, locatePair, observe } from "./detector.js";
import { type EdgeMeasures, EdgeMeter } from "./edges.js";
import {
  type AskedCount,
  type AskedPair,
  askedCounts,
  askedPairs,
  COUNTS,
  type CountScore,
  type CountVerdict,
  countable,
  foundInPair,
  type PairScore,
  type PairVerdict,
  summariseCounts,
  summarisePairs,
} from "./layouts.js";
import { atLeastEight, rendersOf } from "./renders.js";
import {
  type Asked,
  askedByAlias,
  askedInSentences,
  askedOnColours,
  askedPlainly,
  type Judged,
  judge,
  type RetrievalScore,
  summariseRetrieval,
} from "./retrieval.js";
import { REWARD_MEASURES, REWARD_TARGETS, type RewardAxis, rewardAxis, rewardChart } from "./reward-axes.js";
import { sampleEvenly } from "./sampling.js";

export const EVALUATION_PARTS = ["retrieval", "counts", "relations", "aliases", "rewards", "edges", "samples"] as const;
export type EvaluationPart = (typeof EVALUATION_PARTS)[number];

export interface EmojiEvaluationOptions {
  /** Default: all. */
  parts?: readonly EvaluationPart[];
  /** Names to draw; default: all that the classifier knows. */
  labels?: readonly string[];
  /**
   * At most so many names in each part, from all over the list; default: all, but a sample for counts and what follows.
   */
  limit?: number;
  /** Prompts for each reward target; default 24. */
  rewardPrompts?: number;
  /** Sampling steps and guidance; default: the checkpoint's. */
  steps?: number;
  guidanceScale?: number;
  seed?: number;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** What the parts give. */
export interface EvaluationFigures {
  retrieval: { plain: RetrievalScore; coloured: RetrievalScore };
  counts: CountScore;
  relations: PairScore;
  aliases: { aliases: RetrievalScore; sentences: RetrievalScore };
  /** By reward key. */
  rewards: Record<string, RewardAxis>;
  edges: { drawn: EdgeMeasures; renders: EdgeMeasures };
  samples: { prompts: string[] };
}

/** A part that is done. */
export interface FinishedPart {
  part: EvaluationPart;
  figures: EvaluationFigures[EvaluationPart];
  /** Pictures to look at, by name. */
  sheets: Record<string, RgbImage>;
}

/** Draws a picture for each prompt and hands them on, some at a time. */
type Draw = <A extends { prompt: string }>(
  asked: readonly A[],
  see: (image: RgbImage, asked: A) => void,
  rewardTargets?: Record<string, number>,
) => Promise<void>;

/** What a part consists of: how many pictures it takes, and how they are drawn and judged. */
interface Plan {
  pictures: number;
  run(draw: Draw): Promise<Omit<FinishedPart, "part">>;
}

/** Names in the parts that do not draw all. */
const SAMPLES = { counts: 60, relations: 60, aliases: 240, edges: 100 };
/** Captions of the part that is looked at, pictures in a row of it, and the first scene whose caption is taken. */
const UNCHOSEN = { count: 24, columns: 6, first: 2 ** 31 };
/** Pictures drawn in one call. */
const CHUNK = 16;
/** Pictures on a sheet, those in a row, and the side that each is shrunk to. */
const SHEET = { pictures: 96, columns: 12, side: 128 };

/** Draws and judges part after part; yields each when it is done. @throws as `MiroPipeline.generate` */
export async function* evaluateEmoji(
  pipeline: MiroPipeline,
  classifier: EmojiClassifier,
  {
    parts = EVALUATION_PARTS,
    labels = classifier.config.labels,
    limit = labels.length,
    rewardPrompts = 24,
    seed = 0,
    onProgress,
    ...generate
  }: EmojiEvaluationOptions = {},
): AsyncGenerator<FinishedPart> {
  const unknown = labels.find((label) => !classifier.config.labels.includes(label));
  if (unknown !== undefined) throw invalid("labels", "names that the classifier knows", unknown);
  const sample = <T>(list: readonly T[], most: number) => sampleEvenly(list, Math.min(most, limit), seed);
  const planners: Record<EvaluationPart, () => Plan> = {
    retrieval: () => {
      const names = sample(labels, labels.length);
      return retrievalPlan({ plain: askedPlainly(names), coloured: askedOnColours(names) }, classifier);
    },
    counts: () => countsPlan(askedCounts(sample(countable(labels), SAMPLES.counts)), classifier),
    relations: () => relationsPlan(askedPairs(sample(labels, SAMPLES.relations), labels, seed), classifier),
    aliases: () => {
      const sentences = askedInSentences(sample(labels, SAMPLES.aliases), seed);
      return retrievalPlan({ aliases: sample(askedByAlias(labels, seed), SAMPLES.aliases), sentences }, classifier);
    },
    rewards: () => rewardsPlan(askedOnColours(sample(labels, rewardPrompts)), pipeline.coherenceKeys, classifier),
    edges: () => edgesPlan(askedPlainly(sample(labels, SAMPLES.edges)), seed),
    samples: () => samplesPlan({ labels, count: Math.min(UNCHOSEN.count, limit), seed }),
  };
  const plans = parts.map((part) => ({ part, plan: planners[part]() }));
  const total = plans.reduce((sum, { plan }) => sum + plan.pictures, 0);
  let done = 0;
  const draw: Draw = async (asked, see, rewardTargets) => {
    for (let start = 0; start < asked.length; start += CHUNK) {
      const some = asked.slice(start, start + CHUNK);
      const prompts = some.map(({ prompt }) => prompt);
      const options = { ...generate, seed: seed + start, ...(rewardTargets && { rewardTargets }) };
      const { images } = await pipeline.generate(prompts, options);
      for (const [i, one] of some.entries()) see(images[i]!, one);
      done += some.length;
      onProgress?.(done, total);
    }
  };
  for (const { part, plan } of plans) yield { part, ...(await plan.run(draw)) };
}

/** Things to be named, by the form in which they are asked for; a sheet for each form. */
function retrievalPlan<Form extends string>(forms: Record<Form, Asked[]>, classifier: EmojiClassifier): Plan {
  const lists = Object.entries(forms) as [Form, Asked[]][];
  return {
    pictures: lists.reduce((sum, [, asked]) => sum + asked.length, 0),
    async run(draw) {
      const figures = {} as Record<Form, RetrievalScore>;
      const sheets: Record<string, RgbImage> = {};
      for (const [form, asked] of lists) {
        const judged: Judged[] = [];
        const cells: SheetCell[] = [];
        const every = Math.ceil(asked.length / SHEET.pictures);
        await draw(asked, (image, one) => {
          const verdict = judge(image, one, classifier);
          if (judged.length % every === 0) {
            const [first] = verdict.named;
            cells.push({ image, label: first === one.label ? one.label : `${one.label} → ${first}` });
          }
          judged.push(verdict);
        });
        figures[form] = summariseRetrieval(judged);
        sheets[form] = await labelledSheet({ cells: inRows(cells, SHEET.columns), cellSize: SHEET.side });
      }
      return { figures: figures as EvaluationFigures["retrieval" | "aliases"], sheets };
    },
  };
}

function countsPlan(asked: AskedCount[], classifier: EmojiClassifier): Plan {
  return {
    pictures: asked.length,
    async run(draw) {
      const verdicts: CountVerdict[] = [];
      const cells: SheetCell[] = [];
      await draw(asked, (image, one) => {
        const counted = countObjects(observe(image, classifier), one.label);
        verdicts.push({ ...one, counted });
        if (cells.length < SHEET.columns * COUNTS.length)
          cells.push({
            image,
            label: isRightCount(counted, one.count) ? "right" : `${counted.named} of ${counted.found}`,
          });
      });
      const columns = asked.filter(({ count }) => count === COUNTS[0]).map(({ label }) => label);
      const sheet = await tableSheet(cells, COUNTS.map(String), columns);
      return { figures: summariseCounts(verdicts), sheets: { counts: sheet } };
    },
  };
}

function relationsPlan(asked: AskedPair[], classifier: EmojiClassifier): Plan {
  return {
    pictures: asked.length,
    async run(draw) {
      const verdicts: PairVerdict[] = [];
      const cells: SheetCell[] = [];
      await draw(asked, (image, one) => {
        const verdict = { ...one, located: locatePair(observe(image, classifier), one.labels) };
        verdicts.push(verdict);
        if (cells.length < SHEET.columns * RELATIONS.length)
          cells.push({ image, label: isRightPair(verdict.located, one.relation) ? "right" : foundInPair(verdict) });
      });
      const columns = asked.filter(({ relation }) => relation === RELATIONS[0]).map(({ labels }) => labels.join(", "));
      const sheet = await tableSheet(cells, RELATIONS, columns);
      return { figures: summarisePairs(verdicts), sheets: { relations: sheet } };
    },
  };
}

function rewardsPlan(asked: Asked[], coherenceKeys: readonly string[], classifier: EmojiClassifier): Plan {
  const keys = coherenceKeys.filter((key) => key in REWARD_MEASURES);
  return {
    // All targets at 1 are the same pictures for every reward.
    pictures: asked.length * (keys.length * (REWARD_TARGETS.length - 1) + 1),
    async run(draw) {
      const drawAt = async (rewardTargets?: Record<string, number>): Promise<RgbImage[]> => {
        const images: RgbImage[] = [];
        await draw(asked, (image) => images.push(image), rewardTargets);
        return images;
      };
      const full = await drawAt();
      const axes: Record<string, RewardAxis> = {};
      const cells: SheetCell[][] = [];
      for (const key of keys) {
        const values: number[] = [];
        const row: SheetCell[] = [];
        for (const target of REWARD_TARGETS) {
          const images = target === 1 ? full : await drawAt({ [key]: target });
          values.push(REWARD_MEASURES[key]!.of(images, asked, classifier));
          row.push({ image: images[0]! });
        }
        axes[key] = rewardAxis(key, values);
        cells.push(row);
      }
      const sheet = await labelledSheet({ cells, rowLabels: keys, columnLabels: REWARD_TARGETS.map(String) });
      return { figures: axes, sheets: { rewards: await rewardChart(axes).toImage(), "reward-pictures": sheet } };
    },
  };
}

/** Steps and outlines of single things on white, drawn and true. */
function edgesPlan(asked: Asked[], seed: number): Plan {
  return {
    pictures: asked.length,
    async run(draw) {
      const [drawn, renders] = [new EdgeMeter(), new EdgeMeter()];
      let size = 0;
      await draw(asked, (image) => {
        size = image.width;
        drawn.see(image);
      });
      const labels = asked.map(({ label }) => label);
      for (const image of await rendersOf(labels, size, seed)) renders.see(image);
      return { figures: { drawn: drawn.measures, renders: renders.measures }, sheets: {} };
    },
  };
}

/** Captions that come as those of the training do, at full size. */
function samplesPlan({ labels, count, seed }: { labels: readonly string[]; count: number; seed: number }): Plan {
  return {
    pictures: count,
    async run(draw) {
      const scenes = await EmojiScenes.load({ vocabulary: atLeastEight(labels), seed, size: 32 });
      const prompts = Array.from({ length: count }, (_, i) => scenes.describe(UNCHOSEN.first + i).trueCaption);
      const cells: SheetCell[] = [];
      await draw(
        prompts.map((prompt) => ({ prompt })),
        (image, { prompt }) => cells.push({ image, label: prompt }),
      );
      return {
        figures: { prompts },
        sheets: { samples: await labelledSheet({ cells: inRows(cells, UNCHOSEN.columns) }) },
      };
    },
  };
}

/** Cells that come column by column, as a table with names on two sides. */
function tableSheet(
  cells: SheetCell[],
  rowLabels: readonly string[],
  columnNames: readonly string[],
): Promise<RgbImage> {
  const columns = cells.length / rowLabels.length;
  return labelledSheet({
    cells: rowLabels.map((_, row) => Array.from({ length: columns }, (_, i) => cells[i * rowLabels.length + row]!)),
    rowLabels,
    columnLabels: columnNames.slice(0, columns),
    cellSize: SHEET.side,
  });
}
