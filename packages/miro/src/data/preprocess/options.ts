/** Options of data preparation, declared once for the API and the command line, and the selection of shards. */
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { about, type Message, message } from "../../message.js";
import { counted } from "../../numbers.js";
import { abortSignal, callback, commaSeparated, field, firstAndLast, flag, type OptionsOf } from "../../options.js";
import { MAX_PIXELS } from "../../pictures/decode.js";
import { loadSchema } from "../../pipeline/loading/load-options.js";
import { loadScorerSchema } from "../../rewards/registry.js";

const name = z.string().min(1);
const count = z.int().positive();
const position = z.int().min(0);
const on = (help: string, flag: string) => field(z.boolean().default(true), { expected: "true or false", help, flag });

/** The stages, in the order in which `all` runs them. */
const STAGES = ["rewards", "vqa", "vae"] as const;
/** A stage of data preparation. */
export type Stage = (typeof STAGES)[number];

export const preprocessSchema = z.strictObject({
  /**
   * `rewards` and `vqa`: scores to CSV files. `vae`: latents and text embeddings to enriched tars. `all`: one after the
   * other.
   */
  stage: field(z.enum([...STAGES, "all"]), {
    expected: `one of ${STAGES.join(", ")}, all`,
    help: "rewards and vqa: scores to CSV files; vae: latents and text embeddings to enriched tars; all: one after the other",
    flag: "--stage <stage>",
  }),
  /**
   * Folder of raw *.tar (picture, txt, json), folder of pictures with .txt or .json beside them, a table of captions
   * (.csv, .tsv, .jsonl, .ndjson, .parquet), or a folder of .parquet parts, which may hold the pictures.
   */
  src: field(name, {
    expected: "a folder or a table",
    help: "folder of raw *.tar (picture, txt, json), folder of pictures with .txt or .json beside them, a table of captions (.csv, .tsv, .jsonl, .ndjson, .parquet), or a folder of .parquet parts, which may hold the pictures",
    flag: "--src <path>",
  }),
  /** Folder of the score files. Default: SRC/scores; of a table, scores/TABLE beside it. */
  csvDir: field(name.optional(), {
    expected: "a folder",
    help: "folder of the score files",
    flag: "--csv-dir <dir>",
    writes: "folder",
    otherwise: "SRC/scores; of a table, scores/TABLE beside it",
  }),
  /** Folder of the enriched tars; needed for `vae` and `all`. */
  dest: field(name.optional(), {
    expected: "a folder",
    help: "folder of the enriched tars; needed for vae and all",
    flag: "--dest <dir>",
    writes: "folder",
  }),
  /** One shard, by its position in the sorted list. */
  shardId: field(position.optional(), {
    expected: "a position from 0 on",
    help: "one shard, by its position in the sorted list",
    flag: "--shard-id <n>",
    otherwise: "all shards",
  }),
  /** Shards by position. */
  shardIds: field(z.array(position).min(1).optional(), {
    expected: "a position, or several separated by commas",
    help: "shards by position, a,b,c",
    flag: "--shard-ids <list>",
    otherwise: "all shards",
    parse: toPositions,
  }),
  /** Shards by position, the first and the last, both included. */
  shardRange: field(z.tuple([position, position]).optional(), {
    expected: "FIRST-LAST with 0 <= FIRST <= LAST",
    help: "shards by position, FIRST-LAST, both included",
    flag: "--shard-range <first-last>",
    otherwise: "all shards",
    parse: firstAndLast,
  }),
  /** Shards by name, with or without .tar. */
  shards: field(z.array(name).min(1).optional(), {
    expected: "names of shards",
    help: "shards by name, with or without .tar; may be given several times",
    flag: "--shard <name>",
    otherwise: "all shards",
  }),
  /** Samples of a shard where the source holds no tars. Default: 1000. */
  shardSize: field(count.default(1000), {
    expected: "a positive integer",
    help: "samples of a shard where SRC holds no tars",
    flag: "--shard-size <n>",
  }),
  /** Column of a table that names the picture. Default: image, file_name, … */
  imageColumn: field(name.optional(), {
    expected: "a column",
    help: "column of a table that names the picture",
    flag: "--image-column <name>",
    otherwise: "image, file_name, …",
  }),
  /** Column of a table with the caption. Default: caption, text, … */
  captionColumn: field(name.optional(), {
    expected: "a column",
    help: "column of a table with the caption",
    flag: "--caption-column <name>",
    otherwise: "caption, text, …",
  }),
  /**
   * Synthetic captions: tab-separated file name, short caption, long caption. Default: the fields of each sample's
   * JSON.
   */
  syntheticCaptions: field(name.optional(), {
    expected: "a file",
    help: "synthetic captions: tab-separated file name, short caption, long caption",
    flag: "--synthetic-captions <file>",
    otherwise: "the fields of each sample's JSON",
  }),
  /** Score and embed synthetic captions as well. */
  synthetic: on("scores and embeddings of synthetic captions", "--no-synthetic"),
  /**
   * Which synthetic caption is scored: as published (the short one for image_reward, pick_a_score, hpsv2 and sciscore,
   * the long one otherwise), or always the long one, which is embedded. Default: published.
   */
  syntheticText: field(z.enum(["published", "long"]).default("published"), {
    expected: "published or long",
    help: "which synthetic caption is scored: as published (the short one for image_reward, pick_a_score, hpsv2 and sciscore, the long one otherwise), or always the long one, which is embedded",
    flag: "--synthetic-text <which>",
  }),
  /**
   * Keys of the scorers to run, or `published` for those of the published data sets. Default: the published ones whose
   * weights are named; where none is, those that come with the program.
   */
  scorers: field(z.array(name).min(1).optional(), {
    expected: "keys of scorers, or published",
    help: "scorers to run, separated by commas; published: the six of rewards and the one of vqa that the published data sets have",
    flag: "--scorers <list>",
    parse: commaSeparated,
    otherwise: "the published ones that --weights names; where it names none, those that come with the program",
  }),
  /** Folders or Hub repositories of scorers' models, by scorer key. */
  weights: loadScorerSchema.shape.weights,
  /** Which HPSv2; their scores are not comparable. */
  hpsVersion: loadScorerSchema.shape.hpsVersion,
  /** HPSv2 sees the whole of a picture that is not square, as in its benchmark. */
  hpsLetterbox: loadScorerSchema.shape.hpsLetterbox,
  /** How scores are rounded; `upstream`: as published values were. */
  precision: loadScorerSchema.shape.precision,
  /** Latents of 256 x 256 pictures. */
  vae256: on("latents of 256 x 256 pictures", "--no-vae-256"),
  /** Latents of 512 x 512 pictures. */
  vae512: on("latents of 512 x 512 pictures", "--no-vae-512"),
  /** Text embeddings. */
  textEmbeddings: on("text embeddings", "--no-text-embeddings"),
  /** Checkpoint whose text_encoder/ and vae/ are used instead of the published ones. */
  model: field(name.optional(), {
    expected: "a folder or a repository",
    help: "release folder, run of miro train or repository whose text encoder and autoencoder are used",
    flag: "--model <path>",
    otherwise: "the published ones",
  }),
  /** T5 encoder. Default: the model's, else google/flan-t5-xl. */
  textEncoder: field(name.optional(), {
    expected: "a folder or a repository",
    help: "T5 encoder",
    flag: "--text-encoder <path>",
    otherwise: "the model's, else google/flan-t5-xl",
  }),
  /** Autoencoder. Default: the model's, else stabilityai/sdxl-vae. */
  vae: field(name.optional(), {
    expected: "a folder or a repository",
    help: "autoencoder",
    flag: "--vae <path>",
    otherwise: "the model's, else stabilityai/sdxl-vae",
  }),
  /** Tokens of a caption; longer ones are cut. Default: 2048. */
  textMaxLength: field(count.default(2048), {
    expected: "a positive integer",
    help: "tokens of a caption; longer ones are cut",
    flag: "--text-max-length <n>",
  }),
  /** Name of the text embeddings in the tar. Default: flan_t5_xl_embeddings. */
  embeddingsName: field(
    z
      .string()
      .regex(/^[a-z0-9_]+$/)
      .default("flan_t5_xl_embeddings"),
    {
      expected: "lower-case letters, digits and _",
      help: "name of the text embeddings in the tar",
      flag: "--embeddings-npy-name <name>",
    },
  ),
  /**
   * Samples without a row in the score file: `error` fails the shard, `skip` leaves them out, `allow` writes them
   * without scores. Default: error.
   */
  missingScores: field(z.enum(["error", "skip", "allow"]).default("error"), {
    expected: "error, skip or allow",
    help: "samples without a row in the score file: error fails the shard, skip leaves them out, allow writes them without scores",
    flag: "--missing-scores <what>",
  }),
  /** Samples of one pass on a GPU. Default: 64. */
  batchSize: field(count.default(64), {
    expected: "a positive integer",
    help: "samples of one pass on a GPU",
    flag: "--batch-size <n>",
  }),
  /** `cpu`, `cuda`, `cuda:1`, … */
  device: loadSchema.shape.device,
  /** `auto`: float32 on a processor, bfloat16 on a GPU as published. Default: auto. */
  dtype: field(z.enum(["auto", "float32", "bfloat16", "float16"]).default("auto"), {
    expected: "auto, float32, bfloat16 or float16",
    help: "precision of the computation; auto: float32 on a processor, bfloat16 on a GPU as published; float16 for scorers alone",
    flag: "--dtype <type>",
  }),
  /** Threads of the computation. Default: libtorch's choice. */
  threads: field(count.optional(), {
    expected: "a positive integer",
    help: "threads of the computation",
    flag: "--threads <n>",
    otherwise: "libtorch's choice",
  }),
  /** Decoding threads. Default: the cores, at most 8. */
  workers: field(count.max(256).optional(), {
    expected: "an integer from 1 to 256",
    help: "decoding threads",
    flag: "--workers <n>",
    otherwise: "the cores, at most 8",
  }),
  /** Pictures with more pixels are left out. */
  maxPixels: field(count.default(MAX_PIXELS), {
    expected: "a positive integer",
    help: "pictures with more pixels are left out",
    flag: "--max-pixels <n>",
  }),
  /** Turn pictures as their EXIF orientation says; the published data were not. */
  exifOrientation: flag(
    "turn pictures as their EXIF orientation says; the published data were not",
    "--exif-orientation",
  ),
  /** Stop at the first sample that would be left out. */
  strict: flag("stop at the first sample that would be left out", "--strict"),
  /** Leave out shards that were cut or cannot be read; otherwise they fail. */
  skipBrokenShards: flag(
    "leave out shards that were cut or cannot be read; otherwise they fail",
    "--skip-broken-shards",
  ),
  /** Make finished shards again, and replace what was made from another source or by another program. */
  overwrite: flag(
    "make finished shards again, and replace what was made from another source or by another program",
    "--overwrite",
  ),
  /** Cache of downloads. Default: that of Python's huggingface_hub. */
  cacheDir: loadSchema.shape.cacheDir,
  /** Stops between two samples. */
  signal: abortSignal("stops between two samples"),
  /** Called after each sample. */
  onProgress: callback<(progress: PreprocessProgress) => void>("called after each sample"),
  /** Called with what a person should know: skipped shards, failures. */
  onMessage: callback<(message: string, wording?: Message) => void>(
    "called with what a person should know: skipped shards, failures",
  ),
});

/** Options of `preprocess`. */
export type PreprocessOptions = OptionsOf<typeof preprocessSchema>;

/** `0,2,7`. Positions may have leading zeros, as file names have. */
function toPositions(text: string): number[] | undefined {
  const parts = text.split(",");
  return parts.every((part) => /^\s*\d+\s*$/.test(part)) ? parts.map(Number) : undefined;
}

/** Options with everything filled in. */
export type ResolvedOptions = z.output<typeof preprocessSchema>;

/** How far the work is. */
export interface PreprocessProgress {
  /** The stage that works. */
  stage: Stage;
  /** Name of the shard. */
  shard: string;
  /** Position of the shard among the selected ones, and how many there are. */
  shardIndex: number;
  /** Number of selected shards. */
  shardCount: number;
  /** Samples of the shard that are done, and all of it. */
  done: number;
  /** Samples of the shard. */
  total: number;
  /** Samples per second in this shard. */
  rate: number;
  /** Estimated seconds for the rest of the shard and of all stages and shards. */
  shardSeconds: number;
  /** Estimated seconds for the rest of all stages and shards. */
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
    if (value > last) throw invalid(option, `a position from 0 to ${last} (${counted(names.length, "shard")})`, value);
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
