/**
 * Stages `rewards` and `vqa`: scorers score pictures and captions, and the values go to the shard's score file.
 *
 * A scorer fills the column of its key with the score of the original caption and, for samples with a synthetic
 * caption, `synthetic_<key>` with that of the synthetic one; which of the two synthetic captions is upstream's choice:
 * the short one for some scorers, the long one (the one that is embedded) for the others. Scorers that do not read
 * captions give both columns the same value.
 */
import { MiroError } from "../../errors.js";
import { sha256 } from "../../files/sha256.js";
import { message, option } from "../../message.js";
import { scorerSpecs } from "../../rewards/registry.js";
import { type Scorer, storedScore } from "../../rewards/scorer.js";
import { captionDetails } from "./latent-stage.js";
import { countReasons, type Outcome } from "./manifest.js";
import type { Stage } from "./options.js";
import { LONG_COLUMN, resolveCaptions, type SampleCaptions, SHORT_COLUMN } from "./sample-captions.js";
import { isTextColumn, mergeScores, readScores, type ScoreRow, type ScoreTable, writeScores } from "./scores-csv.js";
import {
  type DecodedSample,
  decodedBatches,
  inSeconds,
  noTimings,
  SkipList,
  scoresPath,
  timed,
  type Workplace,
} from "./shard-work.js";
import { type RawSample, type Skipped, type SourceShard, seenSamples } from "./sources.js";

/** Columns whose `synthetic_` values score the short synthetic caption, as published; all others score the long one. */
const JUDGES_SHORT = new Set(["image_reward_score", "pick_a_score_score", "hpsv2_score", "sciscore_score"]);
/** Pixels of one call of the scorers, in bytes: large pictures go in smaller batches. */
const MAX_BATCH_BYTES = 128 * 2 ** 20;
/** Samples of one call on a processor: larger batches save nothing there, but are waited for. */
const CPU_BATCH = 8;

/** Which synthetic caption a scorer is given. */
export function judgedText(key: string, mode: "published" | "long"): "short" | "long" {
  return mode === "published" && JUDGES_SHORT.has(key) ? "short" : "long";
}

/**
 * Scores a shard and merges the values into its score file.
 * @param mayPublish asked right before the file is replaced
 */
export async function scoreShard(
  shard: SourceShard,
  {
    place,
    stage,
    scorers,
    mayPublish,
  }: { place: Workplace; stage: Stage; scorers: readonly Scorer[]; mayPublish: () => void },
): Promise<{ outcome: Outcome; skipped: Skipped[] }> {
  const { options, table, csvDir } = place;
  const timings = noTimings();
  const started = performance.now();
  const path = scoresPath(csvDir, shard);
  const skips = new SkipList(shard.label, options.strict);
  const content = await timed(timings, "read", () => shard.read());
  skips.add(...content.skipped);
  // The stage that comes first decides on the captions; the later one takes what it has stored.
  const { captions, counts } = await resolveCaptions(content.samples, {
    table,
    stored: stage === "vqa" ? readScores(path) : new Map(),
    scoresPath: path,
    use: options.synthetic,
  });
  if (stage === "rewards" && !options.overwrite) refuseOtherCaptions(path, captions, scorers);
  const results: ScoreTable = new Map();
  const size = options.device === "cpu" ? Math.min(CPU_BATCH, options.batchSize) : options.batchSize;
  const job = ({ image }: RawSample) => ({
    image,
    sides: [],
    keepBytes: false,
    keepPixels: true,
    maxPixels: options.maxPixels,
    orient: options.exifOrientation,
  });
  const batches = decodedBatches(content.samples, job, place, { size, maxBytes: MAX_BATCH_BYTES, timings, skips });
  for await (const batch of batches)
    await timed(timings, "compute", () => score(batch, { captions, scorers, results, skips, place }));
  mayPublish();
  const text = await timed(timings, "write", () =>
    writeScores(path, mergeScores(withoutOldCaptions(readScores(path), results), results)),
  );
  timings.total = performance.now() - started;
  return {
    skipped: skips.entries,
    outcome: {
      output: { file: path, bytes: Buffer.byteLength(text), sha256: sha256(text) },
      samples: {
        seen: seenSamples(content),
        written: results.size,
        skipped: countReasons(skips.entries),
      },
      details: { ...captionDetails(counts.sources), ambiguousSyntheticCaptions: counts.ambiguous },
      seconds: inSeconds(timings),
    },
  };
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
  const renewed = new Set(scorers.map(({ key }) => `synthetic_${key}`));
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

/** The old rows without what belongs to synthetic captions that are replaced or gone. */
function withoutOldCaptions(old: ScoreTable, results: ScoreTable): ScoreTable {
  return new Map(
    [...old].map(([key, row]) => {
      const now = results.get(key);
      if (now === undefined || now.get(LONG_COLUMN) === row.get(LONG_COLUMN)) return [key, row];
      const kept = [...row].filter(
        ([name]) => name !== LONG_COLUMN && name !== SHORT_COLUMN && !isSyntheticScore(name),
      );
      return [key, new Map(kept)];
    }),
  );
}

function isSyntheticScore(name: string): boolean {
  return name.startsWith("synthetic_") && !isTextColumn(name);
}

interface ScoreContext {
  captions: ReadonlyMap<string, SampleCaptions>;
  scorers: readonly Scorer[];
  results: ScoreTable;
  skips: SkipList;
  place: Workplace;
}

async function score(batch: readonly DecodedSample[], context: ScoreContext): Promise<void> {
  if (batch.length === 0) return;
  const { captions, scorers, results, skips, place } = context;
  const rows = batch.map(({ sample }): ScoreRow => {
    const { synthetic } = captions.get(sample.key)!;
    return new Map(
      synthetic === null
        ? []
        : [
            [LONG_COLUMN, synthetic.long],
            [SHORT_COLUMN, synthetic.short],
          ],
    );
  });
  const failed = new Map<number, string>();
  for (const scorer of scorers) {
    const judged = judgedText(scorer.key, place.options.syntheticText);
    const texts = batch.map(({ sample }) => captions.get(sample.key)!);
    const values = await scoreEach(
      scorer,
      batch,
      texts.map(({ original }) => original),
      failed,
      place,
    );
    const others = texts.flatMap(({ original, synthetic }, i) =>
      synthetic !== null && scorer.usesText && synthetic[judged] !== original ? [{ i, text: synthetic[judged] }] : [],
    );
    const otherValues = await scoreEach(
      scorer,
      others.map(({ i }) => batch[i]!),
      others.map(({ text }) => text),
      failed,
      place,
      others.map(({ i }) => i),
    );
    const synthetic = new Map(others.map(({ i }, row) => [i, otherValues[row]]));
    rows.forEach((row, i) => {
      const value = values[i];
      if (value !== undefined) row.set(scorer.key, value);
      if (texts[i]!.synthetic === null) return;
      const other = synthetic.has(i) ? synthetic.get(i) : value;
      if (other !== undefined) row.set(`synthetic_${scorer.key}`, other);
    });
  }
  rows.forEach((row, i) => {
    const { key } = batch[i]!.sample;
    const message = failed.get(i);
    if (message === undefined) results.set(key, row);
    else skips.add({ key, reason: "score-failed", message });
  });
}

/**
 * The values of a batch. When the scorer fails for the batch, its samples are tried one by one, so that one of them
 * does not spoil the others; what fails alone is noted in `failed` under its place.
 */
async function scoreEach(
  scorer: Scorer,
  batch: readonly DecodedSample[],
  texts: readonly string[],
  failed: Map<number, string>,
  { options: { signal } }: Workplace,
  places: readonly number[] = batch.map((_, i) => i),
): Promise<(number | undefined)[]> {
  if (batch.length === 0) return [];
  const images = batch.map(({ image: { width, height, pixels } }) => ({ width, height, data: pixels! }));
  const spec = scorerSpecs().find(({ key }) => key === scorer.key);
  try {
    return (await scorer.score(images, texts, { signal })).map((value) => storedScore(spec, value));
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof MiroError) && (error as Error).name !== "TorchError") throw error;
    const values: (number | undefined)[] = [];
    for (const [i, image] of images.entries()) {
      try {
        const [value] = await scorer.score([image], [texts[i]!], { signal });
        values.push(storedScore(spec, value!));
      } catch (single) {
        signal?.throwIfAborted();
        failed.set(places[i]!, `${scorer.key}: ${(single as Error).message}`);
        values.push(undefined);
      }
    }
    return values;
  }
}
