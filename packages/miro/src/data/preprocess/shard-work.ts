/**
 * What the stages share: a shard under work, its timings, its progress, and the names of the files beside its output.
 */
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { MiroError } from "../../errors.js";
import { type Message, message, option } from "../../message.js";
import type { DecodedImage, DecodeJob, DecodePool } from "./decode-pool.js";
import { countReasons, type Outcome } from "./manifest.js";
import type { ResolvedOptions, Stage } from "./options.js";
import type { ShardCaptions } from "./sample-captions.js";
import {
  type RawSample,
  type ShardContent,
  type Skipped,
  type SourceShard,
  seenSamples,
} from "./sources/raw-sample.js";
import type { SyntheticSource, SyntheticTable } from "./synthetic-captions.js";

/**
 * Milliseconds by part of the work. `wait` is the time that the computation stood still for want of a decoded picture.
 */
export interface Timings {
  read: number;
  decode: number;
  wait: number;
  compute: number;
  write: number;
  total: number;
}

/** What a finished shard reports. */
export interface ShardReport {
  stage: Stage;
  shard: string;
  status: "done" | "skipped" | "locked" | "failed";
  /** Path of the tar or the CSV file. */
  output: string;
  /** Samples found, written, and left out by reason. */
  seen: number;
  written: number;
  skipped: Record<string, number>;
  /** Pictures whose EXIF orientation was not followed, where there are some. */
  unturned?: number;
  /** Samples without a synthetic caption. */
  withoutSynthetic?: number;
  /** Samples for which a table has rows that differ, where there are some. */
  ambiguousSynthetic?: number;
  seconds: Record<string, number>;
  /** Why it failed, or why nothing was done. */
  message?: string;
  /** The message in parts, where it mentions options. */
  wording?: Message;
}

/** Everything that a stage works with. */
export interface StageContext {
  options: ResolvedOptions;
  csvDir: string;
  pool: DecodePool;
  table: SyntheticTable | null;
  /** Called after each sample with the number of samples done and in all. */
  onSample: (done: number, total: number) => void;
}

/** The score file of a shard. */
export function scoresPath(csvDir: string, { stem }: Pick<SourceShard, "stem">): string {
  return join(csvDir, `${stem}_scores.csv`);
}

/** The list of what was left out of a shard. @param output its tar or score file */
export function skippedPath(output: string, stage: Stage): string {
  return output.replace(/\.(?:tar|csv)$/, stage === "vae" ? ".skipped.jsonl" : `.${stage}.skipped.jsonl`);
}

/** Name of the manifest's count of samples without a synthetic caption. */
export const WITHOUT_SYNTHETIC = "syntheticFrom.none";

/** Name of the manifest's count of samples for which a table has rows that differ. */
export const AMBIGUOUS_SYNTHETIC = "ambiguousSyntheticCaptions";

/** Name of the manifest's count of pictures whose EXIF orientation was not followed. */
export const UNTURNED = "unturnedPictures";

/** Fresh timings, all zero. */
export function noTimings(): Timings {
  return { read: 0, decode: 0, wait: 0, compute: 0, write: 0, total: 0 };
}

/** Timings as seconds of three decimals. */
function inSeconds(timings: Timings): Record<string, number> {
  return Object.fromEntries(Object.entries(timings).map(([name, ms]) => [name, Math.round(ms) / 1000]));
}

/** Adds the time that `work` takes. */
export async function timed<T>(timings: Timings, part: keyof Timings, work: () => T | Promise<T>): Promise<T> {
  const started = performance.now();
  try {
    return await work();
  } finally {
    timings[part] += performance.now() - started;
  }
}

/** Notes what is left out of samples, and of their pictures; with `strict` a sample that is left out is an error. */
export class SkipList {
  readonly entries: Skipped[] = [];
  /** Pictures that were taken as they are stored although EXIF says to turn them. */
  unturned = 0;
  readonly #label: string;
  readonly #strict: boolean;

  constructor(label: string, strict: boolean) {
    this.#label = label;
    this.#strict = strict;
  }

  add(...entries: Skipped[]): void {
    for (const entry of entries) {
      if (this.#strict) {
        const where = entry.key === "" ? this.#label : `${this.#label}, sample ${entry.key}`;
        const fate = entry.column === undefined ? "it is left out" : `${entry.column} stays empty`;
        throw new MiroError(
          message`${where}: ${entry.message} (${entry.reason}); without ${option("strict", true)} ${fate}`,
        );
      }
      this.entries.push(entry);
    }
  }
}

/**
 * What a shard came to, for its manifest.
 * @param written the keys of the samples that were not left out
 * @param details what the stage counts besides captions
 */
export function outcomeOf(
  { content, skips, texts, timings }: FinishedWork,
  {
    output,
    written,
    details,
  }: { output: Outcome["output"]; written: ReadonlySet<string>; details: Record<string, number> },
): { outcome: Outcome; skipped: Skipped[] } {
  const sources: Record<SyntheticSource, number> = { table: 0, json: 0, scores: 0, none: 0 };
  for (const key of written) sources[texts.captions.get(key)!.source]++;
  return {
    skipped: skips.entries,
    outcome: {
      output,
      samples: { seen: seenSamples(content), written: written.size, skipped: countReasons(skips.entries) },
      details: {
        ...Object.fromEntries(Object.entries(sources).map(([name, count]) => [`syntheticFrom.${name}`, count])),
        [AMBIGUOUS_SYNTHETIC]: [...written].filter((key) => texts.ambiguous.has(key)).length,
        ...(skips.unturned > 0 && { [UNTURNED]: skips.unturned }),
        ...details,
      },
      seconds: inSeconds(timings),
    },
  };
}

/** A shard that a stage has worked on. */
interface FinishedWork {
  content: ShardContent;
  skips: SkipList;
  texts: ShardCaptions;
  timings: Timings;
}

/** A sample whose picture is decoded. */
export interface DecodedSample {
  sample: RawSample;
  image: DecodedImage;
}

/**
 * The samples of a shard with their pictures, decoded by the pool while the caller computes, in batches in order. What
 * cannot be decoded is left out.
 *
 * @param size most samples of a batch
 * @param maxBytes bytes of pixels from which a batch is given before it has all its samples
 */
export async function* decodedBatches(
  samples: readonly RawSample[],
  job: (sample: RawSample) => DecodeJob,
  { options, pool, onSample }: StageContext,
  { size, maxBytes = Number.POSITIVE_INFINITY, timings, skips }: BatchOptions,
): AsyncGenerator<DecodedSample[]> {
  let batch: DecodedSample[] = [];
  let batchBytes = 0;
  let done = 0;
  const results = pool.inOrder(samples, job, { ahead: pool.capacity + size, signal: options.signal });
  for await (const { item, result, waitedMs } of results) {
    timings.wait += waitedMs;
    if ("reason" in result) skips.add({ key: item.key, ...result });
    else {
      if (result.unturned) skips.unturned++;
      timings.read += result.readMs;
      timings.decode += result.decodeMs;
      batch.push({ sample: item, image: result });
      batchBytes += result.pixels?.length ?? 0;
      if (batch.length >= size || batchBytes >= maxBytes) {
        yield batch;
        batch = [];
        batchBytes = 0;
        await nextTurn();
      }
    }
    onSample(++done, samples.length);
  }
  if (batch.length > 0) yield batch;
}

/** What {@link decodedBatches} makes batches by, and where it notes what it does. */
interface BatchOptions {
  size: number;
  maxBytes?: number;
  timings: Timings;
  skips: SkipList;
}
