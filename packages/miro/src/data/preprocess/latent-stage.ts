/**
 * Stage `vae`: latents of the pictures at 256 and 512, states of the captions, and the scores of earlier stages, in
 * tars with upstream's member names, dtypes and order:
 *
 *   <name>.npy, synthetic_<name>.npy        (tokens, width) float16, name = flan_t5_xl_embeddings
 *   vae_embeddings_{mean,std}_{256,512}.npy (C, side/8, side/8) float16, not scaled
 *   jpg (or jpeg, png, webp), txt           the source's bytes; the caption uncleaned
 *   json                                    the source's fields, then the scores in order of their names
 */
import { join } from "node:path";
import { MiroError } from "../../errors.js";
import { type PythonJson, writePythonJson } from "../../files/python-json.js";
import { message, option } from "../../message.js";
import { counted } from "../../numbers.js";
import { listed } from "../../printable.js";
import { TarWriter } from "../shards/tar-writer.js";
import type { DecodeJob } from "./decode-pool.js";
import { type EncodedPicture, type LatentModels, NotFiniteError, sidesOf } from "./latent-models.js";
import { type Outcome, readReport } from "./manifest.js";
import type { ResolvedOptions } from "./options.js";
import { resolveCaptions, type SampleCaptions } from "./sample-captions.js";
import { isTextColumn, type ScoreRow, type ScoreTable } from "./scores-csv.js";
import {
  type DecodedSample,
  decodedBatches,
  noTimings,
  outcomeOf,
  SkipList,
  type StageContext,
  scoresPath,
  skippedPath,
  timed,
} from "./shard-work.js";
import type { RawSample, Skipped, SourceShard } from "./sources/raw-sample.js";

/** Keys listed in the error about missing scores. */
const LISTED_KEYS = 5;

/**
 * Makes a shard's enriched tar.
 *
 * @param scores of the earlier stages; empty when there are none
 * @param mayPublish asked right before the tar gets its name
 */
export async function latentShard(
  shard: SourceShard,
  output: string,
  {
    context,
    models,
    scores,
    mayPublish,
  }: { context: StageContext; models: LatentModels; scores: ScoreTable; mayPublish: () => void },
): Promise<{ outcome: Outcome; skipped: Skipped[] }> {
  const { options, table, csvDir } = context;
  const timings = noTimings();
  const started = performance.now();
  const skips = new SkipList(shard.label, options.strict);
  const content = await timed(timings, "read", () => shard.read());
  skips.add(...content.skipped);
  const job = ({ image }: RawSample): DecodeJob => ({
    image,
    sides: sidesOf(options),
    keepBytes: true,
    keepPixels: false,
    maxPixels: options.maxPixels,
    orient: options.exifOrientation,
  });
  const samples = await withScores(content.samples, scores, { shard, context, skips, job });
  const texts = await resolveCaptions(samples, {
    table,
    stored: scores,
    scoresPath: scoresPath(csvDir, shard),
    use: options.synthetic,
  });
  const cutBefore = models.cutCaptions;
  let notFinite = 0;
  const written = new Set<string>();
  const writer = await TarWriter.create(output);
  try {
    const write = async (batch: DecodedSample[]): Promise<void> => {
      const encoded = await timed(timings, "compute", () => encode(batch, texts.captions, models, options));
      await timed(timings, "write", async () => {
        for (const [i, { sample, image }] of batch.entries()) {
          const fields = encoded[i]!;
          if (fields instanceof NotFiniteError) {
            skips.add({ key: sample.key, reason: "not-finite", message: fields.message });
            continue;
          }
          const json = mergeScores(sample.metadata, scores.get(sample.key), () => notFinite++);
          await writer.addSample(sample.key, {
            ...fields,
            [sample.extension]: image.bytes!,
            txt: Buffer.from(sample.caption),
            json: Buffer.from(json, "latin1"),
          });
          written.add(sample.key);
        }
      });
    };
    const size = models.batchSize(options.batchSize);
    for await (const batch of decodedBatches(samples, job, context, { size, timings, skips })) await write(batch);
    mayPublish();
    const { bytes, sha256 } = await timed(timings, "write", () => writer.finish());
    timings.total = performance.now() - started;
    return outcomeOf(
      { content, skips, texts, timings },
      {
        output: { file: output, bytes, sha256 },
        written,
        details: { cutCaptions: models.cutCaptions - cutBefore, notFiniteNumbers: notFinite },
      },
    );
  } finally {
    await writer.abort();
  }
}

/**
 * The samples that are to be written, as to their scores. What the score stages have left out is left out here for the
 * same reason, what cannot be decoded will be; of anything else without a row the options decide.
 */
async function withScores(
  samples: readonly RawSample[],
  scores: ScoreTable,
  {
    shard,
    context,
    skips,
    job,
  }: { shard: SourceShard; context: StageContext; skips: SkipList; job: (sample: RawSample) => DecodeJob },
): Promise<RawSample[]> {
  const { csvDir, options, pool } = context;
  const missing = samples.filter(({ key }) => !scores.has(key));
  if (missing.length === 0 || options.missingScores === "allow") return [...samples];
  const path = scoresPath(csvDir, shard);
  const known = new Map(
    (["rewards", "vqa"] as const)
      .flatMap((stage) => readReport(skippedPath(path, stage)))
      .map((entry) => [entry.key, entry]),
  );
  const leaveOut = (key: string): false => {
    const message = "no row in the score file";
    skips.add(known.get(key) ?? { key, reason: "no-scores", message });
    return false;
  };
  const unscored = missing.filter(({ key }) => !known.has(key));
  if (options.missingScores === "error" && unscored.length > 0) {
    const complain = (keys: string[]): never => {
      const lacking = `${keys.length} of ${counted(samples.length, "sample")} (${listed(keys, LISTED_KEYS)})`;
      const choice = message`choose ${option("missingScores", "skip")} or allow`;
      const remedy = message`run ${option("stage", "rewards")} first, or ${choice}`;
      throw new MiroError(message`${path}: no scores for ${lacking}; ${remedy}`);
    };
    if (scores.size === 0) complain(unscored.map(({ key }) => key));
    const decodable: string[] = [];
    for await (const { item, result } of pool.inOrder(unscored, job, { ahead: pool.capacity, signal: options.signal }))
      if (!("reason" in result)) decodable.push(item.key);
    if (decodable.length > 0) complain(decodable);
    const bad = new Set(unscored.map(({ key }) => key));
    return samples.filter(({ key }) => scores.has(key) || bad.has(key) || leaveOut(key));
  }
  return samples.filter(({ key }) => scores.has(key) || leaveOut(key));
}

/** Latents and states of a batch: the members of each sample that are computed, or why there are none. */
function encode(
  batch: readonly DecodedSample[],
  captions: ReadonlyMap<string, SampleCaptions>,
  models: LatentModels,
  options: ResolvedOptions,
): (Record<string, Uint8Array> | NotFiniteError)[] {
  const results: (Record<string, Uint8Array> | NotFiniteError)[] = batch.map(() => ({}));
  if (batch.length === 0) return results;
  const put = (i: number, name: string, value: Uint8Array | NotFiniteError): void => {
    const members = results[i]!;
    if (members instanceof NotFiniteError) return;
    if (value instanceof NotFiniteError) results[i] = new NotFiniteError(`${name}: ${value.message}`);
    else members[`${name}.npy`] = value;
  };
  for (const [s, side] of sidesOf(options).entries()) {
    const pictures = models.encodePictures(
      batch.map(({ image }) => image.squares[s]!),
      side,
    );
    pictures.forEach((picture: EncodedPicture | NotFiniteError, i) => {
      if (picture instanceof NotFiniteError) put(i, `vae_embeddings_${side}`, picture);
      else {
        put(i, `vae_embeddings_mean_${side}`, picture.mean);
        put(i, `vae_embeddings_std_${side}`, picture.std);
      }
    });
  }
  if (!options.textEmbeddings) return results;
  const texts = batch.map(({ sample }) => captions.get(sample.key)!);
  const originals = models.encodeTexts(texts.map(({ original }) => original));
  originals.forEach((states, i) => {
    put(i, options.embeddingsName, states);
  });
  const name = `synthetic_${options.embeddingsName}`;
  const others = texts.flatMap(({ original, synthetic }, i) => {
    if (synthetic === null) return [];
    if (synthetic.long !== original) return [{ i, text: synthetic.long }];
    put(i, name, originals[i]!);
    return [];
  });
  if (others.length > 0)
    models.encodeTexts(others.map(({ text }) => text)).forEach((states, row) => {
      put(others[row]!.i, name, states);
    });
  return results;
}

/** The sample's JSON with its scores: overwritten in place, new ones at the end in order of their names. */
function mergeScores(
  metadata: ReadonlyMap<string, PythonJson>,
  scores: ScoreRow | undefined,
  onNotFinite: () => void,
): string {
  const merged = new Map(metadata);
  for (const name of [...(scores?.keys() ?? [])].sort()) {
    const value = scores!.get(name)!;
    merged.set(name, isTextColumn(name) ? value : Number(value));
  }
  return writePythonJson(merged, onNotFinite);
}

/** Path of a shard's tar. */
export function tarPath(dest: string, { stem }: Pick<SourceShard, "stem">): string {
  return join(dest, `${stem}.tar`);
}
