/** Options of data preparation, declared once for the API and the command line, and the selection of shards. */
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { about, type Message, message } from "../../message.js";
import { abortSignal, callback, field } from "../../options.js";
import { MAX_PIXELS } from "../../pictures/decode.js";

const name = z.string().min(1);
const count = z.int().positive();
const position = z.int().min(0);
const flag = (on: boolean, description: string) => field(z.boolean().default(on), "true or false", description);

/** The stages, in the order in which `all` runs them. */
export const STAGES = ["rewards", "vqa", "vae"] as const;
export type Stage = (typeof STAGES)[number];

export const preprocessSchema = z.strictObject({
  stage: field(
    z.enum([...STAGES, "all"]),
    `one of ${STAGES.join(", ")}, all`,
    "rewards and vqa: scores to CSV files; vae: latents and text embeddings to enriched tars; all: one after the other",
  ),
  src: field(
    name,
    "a folder or a table",
    "folder of raw *.tar (picture, txt, json), folder of pictures with .txt or .json beside them, a table of captions (.csv, .tsv, .jsonl, .ndjson, .parquet), or a folder of .parquet parts, which may hold the pictures",
  ),
  csvDir: field(name.optional(), "a folder", "folder of the score files (default: SRC/scores)"),
  dest: field(name.optional(), "a folder", "folder of the enriched tars; needed for vae and all"),
  shardId: field(position.optional(), "a position from 0 on", "one shard, by its position in the sorted list"),
  shardIds: field(z.array(position).min(1).optional(), "positions separated by commas", "shards by position, a,b,c"),
  shardRange: field(
    z.tuple([position, position]).optional(),
    "FIRST-LAST with 0 <= FIRST <= LAST",
    "shards by position, FIRST-LAST, both included",
  ),
  shards: field(
    z.array(name).min(1).optional(),
    "names of shards",
    "shards by name, with or without .tar; may be given several times",
  ),
  shardSize: field(
    count.default(1000),
    "a positive integer",
    "samples of a shard where SRC holds no tars; default 1000",
  ),
  imageColumn: field(
    name.optional(),
    "a column",
    "column of a table that names the picture (default: image, file_name, …)",
  ),
  captionColumn: field(name.optional(), "a column", "column of a table with the caption (default: caption, text, …)"),
  syntheticCaptions: field(
    name.optional(),
    "a file",
    "synthetic captions: tab-separated file name, short caption, long caption; default: the fields of each sample's JSON",
  ),
  synthetic: flag(true, "no scores and embeddings of synthetic captions"),
  syntheticText: field(
    z.enum(["published", "long"]).default("published"),
    "published or long",
    "which synthetic caption is scored: as published (the short one for image_reward, pick_a_score, hpsv2 and sciscore, the long one otherwise), or always the long one, which is embedded",
  ),
  scorers: field(z.array(name).min(1).optional(), "keys of scorers", "scorers to run (default: all of the stage)"),
  vae256: flag(true, "no latents of 256 x 256 pictures"),
  vae512: flag(true, "no latents of 512 x 512 pictures"),
  textEmbeddings: flag(true, "no text embeddings"),
  model: field(
    name.optional(),
    "a folder or a repository",
    "checkpoint whose text_encoder/ and vae/ are used instead of the published ones",
  ),
  textEncoder: field(
    name.optional(),
    "a folder or a repository",
    "T5 encoder (default: the model's, else google/flan-t5-xl)",
  ),
  vae: field(
    name.optional(),
    "a folder or a repository",
    "autoencoder (default: the model's, else stabilityai/sdxl-vae)",
  ),
  textMaxLength: field(
    count.default(2048),
    "a positive integer",
    "tokens of a caption; longer ones are cut; default 2048",
  ),
  embeddingsName: field(
    z
      .string()
      .regex(/^[a-z0-9_]+$/)
      .default("flan_t5_xl_embeddings"),
    "lower-case letters, digits and _",
    "name of the text embeddings in the tar; default flan_t5_xl_embeddings",
  ),
  missingScores: field(
    z.enum(["error", "skip", "allow"]).default("error"),
    "error, skip or allow",
    "samples without a row in the score file: error fails the shard, skip leaves them out, allow writes them without scores",
  ),
  batchSize: field(count.default(64), "a positive integer", "samples of one pass on a GPU; default 64"),
  device: field(name.default("cpu"), "a device such as cpu, cuda or cuda:1", "cpu, cuda, cuda:1, …; default cpu"),
  dtype: field(
    z.enum(["auto", "float32", "bfloat16"]).default("auto"),
    "auto, float32 or bfloat16",
    "auto, float32, bfloat16; default auto: float32 on a processor, bfloat16 on a GPU as published",
  ),
  threads: field(count.optional(), "a positive integer", "threads of the computation (default: libtorch's choice)"),
  workers: field(
    count.max(256).optional(),
    "an integer from 1 to 256",
    "decoding threads (default: the cores, at most 8)",
  ),
  maxPixels: field(
    count.default(MAX_PIXELS),
    "a positive integer",
    `pictures with more pixels are left out; default ${MAX_PIXELS}`,
  ),
  exifOrientation: flag(false, "turn pictures as their EXIF orientation says; the published data were not"),
  strict: flag(false, "stop at the first sample that would be left out"),
  skipBrokenShards: flag(false, "leave out shards that were cut or cannot be read; otherwise they fail"),
  overwrite: flag(false, "make finished shards again, and replace tars that this program did not make"),
  cacheDir: field(name.optional(), "a folder", "cache of downloads (default: as Python's huggingface_hub)"),
  signal: abortSignal("stops between two samples"),
  onProgress: callback<(progress: PreprocessProgress) => void>("called after each sample"),
  onMessage: callback<(message: string, wording?: Message) => void>(
    "called with what a person should know: skipped shards, failures",
  ),
});

/** What the command line calls the options. */
export const OPTION_NAMES: Record<string, string> = {
  ...Object.fromEntries(
    Object.keys(preprocessSchema.shape).map((key) => [key, `--${key.replace(/([A-Z])/g, "-$1").toLowerCase()}`]),
  ),
  vae256: "--no-vae-256",
  vae512: "--no-vae-512",
  shards: "--shard",
  embeddingsName: "--embeddings-npy-name",
};

/** Options of `preprocess`. */
export type PreprocessOptions = z.input<typeof preprocessSchema>;

/** Options with everything filled in. */
export type ResolvedOptions = z.output<typeof preprocessSchema>;

/** How far the work is. */
export interface PreprocessProgress {
  stage: Stage;
  /** Name of the shard. */
  shard: string;
  /** Position of the shard among the selected ones, and how many there are. */
  shardIndex: number;
  shardCount: number;
  /** Samples of the shard that are done, and all of it. */
  done: number;
  total: number;
  /** Samples per second in this shard. */
  rate: number;
  /** Estimated seconds for the rest of the shard and of all stages and shards. */
  shardSeconds: number;
  totalSeconds: number;
}

/**
 * The selected shards. Of several selections the first given counts: position, positions, range, names.
 * @param names of all shards, sorted
 * @returns positions, without repetitions
 * @throws InvalidInputError naming the valid range or the unknown name
 */
export function selectShards(names: readonly string[], options: Partial<ResolvedOptions>): number[] {
  const last = names.length - 1;
  const check = (option: string, value: number): number => {
    if (value > last) throw invalid(option, `a position from 0 to ${last} (${names.length} shards)`, value);
    return value;
  };
  const { shardId, shardIds, shardRange, shards } = options;
  if (shardId !== undefined) return [check("shardId", shardId)];
  if (shardIds !== undefined) return [...new Set(shardIds.map((id) => check("shardIds", id)))];
  if (shardRange !== undefined) {
    const [first, end] = shardRange;
    if (first > end) throw invalid("shardRange", "FIRST-LAST with 0 <= FIRST <= LAST", `${first}-${end}`);
    check("shardRange", end);
    return names.flatMap((_, i) => (i >= first && i <= end ? [i] : []));
  }
  if (shards !== undefined) {
    return [
      ...new Set(
        shards.map((shard) => {
          const index = names.indexOf(shard.replace(/\.tar$/, ""));
          if (index < 0)
            throw new InvalidInputError(
              message`${about("shards")}: ${JSON.stringify(shard)} is not there; there are ${some(names)}`,
            );
          return index;
        }),
      ),
    ];
  }
  return names.map((_, i) => i);
}

function some(names: readonly string[]): string {
  return names.length <= 8 ? names.join(", ") : `${names.slice(0, 4).join(", ")}, …, ${names.at(-1)}`;
}
