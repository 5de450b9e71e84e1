/**
 * Stages `rewards` and `vqa`: scorers score pictures and captions, and the values go to the shard's score file.
 *
 * A scorer fills the column of its key with the score of the original caption and, for samples with a synthetic
 * caption, `synthetic_<key>` with that of the synthetic one; which of the two synthetic captions is upstream's choice:
 * the short one for some scorers, the long one (the one that is embedded) for the others. Scorers that do not read
 * captions give both columns the same value. A score that cannot be computed, or is not finite, is an empty cell and a
 * line of the report; a sample of which there is no score at all is left out.
 */
import { MiroError } from "../../errors.js";
import { sha256 } from "../../files/sha256.js";
import { message, option } from "../../message.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { scorerSpecs } from "../../rewards/registry.js";
import { type Scorer, type ScorerSpec, storedScore } from "../../rewards/scorer.js";
import { syntheticName } from "../dataset/caption-source.js";
import type { Outcome } from "./manifest.js";
import type { ResolvedOptions, Stage } from "./options.js";
import { LONG_COLUMN, resolveCaptions, type SampleCaptions, SHORT_COLUMN } from "./sample-captions.js";
import { isTextColumn, mergeScores, readScores, type ScoreRow, type ScoreTable, writeScores } from "./scores-csv.js";
import {
  type DecodedSample,
  decodedBatches,
  noTimings,
  outcomeOf,
  SkipList,
  type StageContext,
  scoresPath,
  timed,
} from "./shard-work.js";
import type { RawSample, Skipped, SourceShard } from "./sources/raw-sample.js";

/** Pixels of one call of the scorers, in bytes: large pictures go in smaller batches. */
const MAX_BATCH_BYTES = 128 * 2 ** 20;
/** Samples of one call on a processor: larger batches save nothing there, but are waited for. */
const CPU_BATCH = 8;

/** Which synthetic caption a scorer is given. */
export function judgedText(
  spec: Pick<ScorerSpec, "syntheticCaption"> | undefined,
  mode: "published" | "long",
): "short" | "long" {
  return mode === "published" ? (spec?.syntheticCaption ?? "long") : "long";
}

/**
 * Scores a shard and merges the values into its score file.
 * @param mayPublish asked right before the file is replaced
 */
export async function scoreShard(
  shard: SourceShard,
  {
    context,
    stage,
    scorers,
    mayPublish,
  }: { context: StageContext; stage: Stage; scorers: readonly Scorer[]; mayPublish: () => void },
): Promise<{ outcome: Outcome; skipped: Skipped[] }> {
  const { options, table, csvDir } = context;
  const timings = noTimings();
  const started = performance.now();
  const path = scoresPath(csvDir, shard);
  const skips = new SkipList(shard.label, options.strict);
  const content = await timed(timings, "read", () => shard.read());
  skips.add(...content.skipped);
  // The stage that comes first decides on the captions; the later one takes what it has stored.
  const texts = await resolveCaptions(content.samples, {
    table,
    stored: stage === "vqa" ? readScores(path) : new Map(),
    scoresPath: path,
    use: options.synthetic,
  });
  const { captions } = texts;
  if (stage === "rewards" && !options.overwrite) refuseOtherCaptions(path, captions, scorers);
  const results: ScoreTable = new Map();
  const cut = new Map<string, number>();
  const size = options.device === "cpu" ? Math.min(CPU_BATCH, options.batchSize) : options.batchSize;
  const job = ({ image }: RawSample) => ({
    image,
    sides: [],
    keepBytes: false,
    keepPixels: true,
    maxPixels: options.maxPixels,
    orient: options.exifOrientation,
  });
  const batches = decodedBatches(content.samples, job, context, { size, maxBytes: MAX_BATCH_BYTES, timings, skips });
  for await (const batch of batches)
    await timed(timings, "compute", () => score(batch, { captions, scorers, results, skips, cut, options }));
  mayPublish();
  const text = await timed(timings, "write", () =>
    writeScores(path, mergeScores(withoutReplaced(readScores(path), results, scorers), results)),
  );
  timings.total = performance.now() - started;
  const cutCaptions = [...cut].map(([key, count]) => [`cutCaptions.${key}`, count]);
  return outcomeOf(
    { content, skips, texts, timings },
    {
      output: { file: path, bytes: Buffer.byteLength(text), sha256: sha256(text) },
      written: new Set(results.keys()),
      details: { ...countGaps(skips.entries), ...Object.fromEntries(cutCaptions) },
    },
  );
}

/** Name of the manifest's count of samples that lack a column's score alone. */
export function gapName(column: string): string {
  return `missing.${column}`;
}

function countGaps(skipped: readonly Skipped[]): Record<string, number> {
  const result: Record<string, number> = {};
  for (const { column } of skipped)
    if (column !== undefined) result[gapName(column)] = (result[gapName(column)] ?? 0) + 1;
  return result;
}

/**
 * Scores of synthetic captions that are to be replaced would stay beside new texts: only their scorers can bring them
 * up to date.
 */
function refuseOtherCaptions(
  path: string,
  captions: ReadonlyMap<string, SampleCaptions>,
  scorers: readonly Scorer[],
): void {
  const renewed = new Set(scorers.map(({ key }) => syntheticName(key)));
  for (const [key, row] of readScores(path)) {
    const now = captions.get(key);
    if (now === undefined || row.get(LONG_COLUMN) === now.synthetic?.long) continue;
    const stale = [...row.keys()].find((name) => isSyntheticScore(name) && !renewed.has(name));
    if (stale === undefined) continue;
    throw new MiroError(
      message`${path}, key ${key}: ${stale} scores ${JSON.stringify(row.get(LONG_COLUMN) ?? "another caption")}, which is no longer the sample's synthetic caption; run its scorer too, or drop such scores with ${option("overwrite", true)}`,
    );
  }
}

/**
 * The old rows without what the new ones replace: the scorers' own columns in every row, as a value that is not among
 * the new ones is of another picture, caption or model, and what belongs to synthetic captions that have changed.
 */
function withoutReplaced(old: ScoreTable, results: ScoreTable, scorers: readonly Scorer[]): ScoreTable {
  const renewed = new Set(scorers.flatMap(({ key }) => [key, syntheticName(key)]));
  const kept: ScoreTable = new Map();
  for (const [key, row] of old) {
    const now = results.get(key);
    const others = now !== undefined && now.get(LONG_COLUMN) !== row.get(LONG_COLUMN);
    const values = [...row].filter(
      ([name]) => !renewed.has(name) && !(others && (isTextColumn(name) || isSyntheticScore(name))),
    );
    if (values.some(([name]) => !isTextColumn(name))) kept.set(key, new Map(values));
  }
  return kept;
}

function isSyntheticScore(name: string): boolean {
  return name.startsWith(syntheticName("")) && !isTextColumn(name);
}

interface ScoreContext {
  captions: ReadonlyMap<string, SampleCaptions>;
  scorers: readonly Scorer[];
  results: ScoreTable;
  skips: SkipList;
  /** By scorer, the captions of which it read only the beginning. */
  cut: Map<string, number>;
  options: ResolvedOptions;
}

/** A picture with one of its captions, and the column that their score goes to. */
interface Pair {
  /** Place in the batch. */
  i: number;
  column: string;
  text: string;
}

async function score(batch: readonly DecodedSample[], context: ScoreContext): Promise<void> {
  if (batch.length === 0) return;
  const { captions, scorers, results, skips, cut, options } = context;
  const images = batch.map(({ image: { width, height, pixels } }) => ({ width, height, data: pixels! }));
  const texts = batch.map(({ sample }) => captions.get(sample.key)!);
  const rows = texts.map(({ synthetic }): ScoreRow => {
    return new Map(
      synthetic === null
        ? []
        : [
            [LONG_COLUMN, synthetic.long],
            [SHORT_COLUMN, synthetic.short],
          ],
    );
  });
  const scored = new Set<number>();
  const gaps: Skipped[][] = batch.map(() => []);
  for (const scorer of scorers) {
    const spec = scorerSpecs().find(({ key }) => key === scorer.key);
    const judged = judgedText(spec, options.syntheticText);
    const ofSynthetic = syntheticName(scorer.key);
    const ownText = ({ original, synthetic }: SampleCaptions): string | null =>
      synthetic !== null && scorer.usesText && synthetic[judged] !== original ? synthetic[judged] : null;
    // Both captions of a picture stand side by side, so that a scorer sees the picture once for both.
    const pairs = texts.flatMap((text, i): Pair[] => {
      const own = ownText(text);
      const pair = { i, column: scorer.key, text: text.original };
      return own === null ? [pair] : [pair, { i, column: ofSynthetic, text: own }];
    });
    const cutHere = pairs.filter(({ text }) => scorer.truncates?.(text)).length;
    if (cutHere > 0) cut.set(scorer.key, (cut.get(scorer.key) ?? 0) + cutHere);
    const values = await scorePairs(scorer, images, pairs, options.signal);
    for (const [p, { i, column }] of pairs.entries()) {
      const value = values[p]!;
      const both = texts[i]!.synthetic !== null && ownText(texts[i]!) === null;
      for (const name of both ? [column, ofSynthetic] : [column]) {
        if (typeof value === "number") {
          rows[i]!.set(name, storedScore(spec, value));
          scored.add(i);
        } else {
          const { key } = batch[i]!.sample;
          gaps[i]!.push({ key, reason: "score-failed", message: `${scorer.key}: ${value.message}`, column: name });
        }
      }
    }
  }
  batch.forEach(({ sample: { key } }, i) => {
    if (scored.has(i)) {
      results.set(key, rows[i]!);
      skips.add(...gaps[i]!);
    } else skips.add({ key, reason: "score-failed", message: gaps[i]![0]!.message });
  });
}

/**
 * The values of pairs. When the scorer fails for all of them together, they are tried one by one, so that one of them
 * does not spoil the others; what fails alone has its error in place of a value.
 */
async function scorePairs(
  scorer: Scorer,
  images: readonly RgbImage[],
  pairs: readonly Pair[],
  signal: AbortSignal | undefined,
): Promise<(number | Error)[]> {
  const score = (some: readonly Pair[]) =>
    scorer.score(
      some.map(({ i }) => images[i]!),
      some.map(({ text }) => text),
      { signal },
    );
  try {
    return await score(pairs);
  } catch (error) {
    signal?.throwIfAborted();
    if (!isAboutPictures(error)) throw error;
    const values: (number | Error)[] = [];
    for (const pair of pairs) {
      try {
        values.push((await score([pair]))[0]!);
      } catch (single) {
        signal?.throwIfAborted();
        if (!isAboutPictures(single)) throw single;
        values.push(single);
      }
    }
    return values;
  }
}

/** Whether an error may be of one picture or caption; anything else is a fault of the program. */
function isAboutPictures(error: unknown): error is Error {
  return error instanceof MiroError || (error instanceof Error && error.name === "TorchError");
}
