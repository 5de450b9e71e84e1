/** A raw sample and what becomes of it: its texts are read, its picture is not; or it is left out, with a reason. */
import { createHash } from "node:crypto";
import { extname, relative } from "node:path";
import { MiroError } from "../../../errors.js";
import { type PythonJson, parsePythonJson } from "../../../files/python-json.js";
import { decodeText as decode, decodeStored, hasLoneSurrogate } from "../../../files/text-file.js";
import { IMAGE_EXTENSIONS } from "../../../pictures/decode.js";
import { fingerprintOf } from "../../shards/positional-file.js";
import { statsOf } from "./picture-folder.js";

/** A caption or JSON larger than this is no such thing. */
const MAX_TEXT_BYTES = 16 * 2 ** 20;

/** Why a sample was left out. */
export type SkipReason =
  | "archive"
  | "hidden"
  | "missing-image"
  | "missing-caption"
  | "missing-json"
  | "bad-caption"
  | "bad-json"
  | "bad-name"
  | "duplicate-member"
  | "duplicate-key"
  | "unreadable"
  | "unsupported-image"
  | "image-too-large"
  | "bad-image"
  | "score-failed"
  | "not-finite"
  | "no-scores";

/** A sample, or part of an archive, that was left out. */
export interface Skipped {
  /** The sample's key, or "" for what belongs to none. */
  key: string;
  reason: SkipReason;
  message: string;
  /** The one column that the sample lacks, where it is not left out as a whole. */
  column?: string;
}

/** Bytes somewhere in a file. */
export interface Piece {
  path: string;
  offset: number;
  /** Bytes; null for the whole file. */
  size: number | null;
  /** The bytes themselves, where no file holds them as they are. */
  bytes?: Uint8Array;
}

/** A sample whose texts are read and whose picture is not. */
export interface RawSample {
  key: string;
  /** The picture's extension, one of {@link IMAGE_EXTENSIONS}. */
  extension: string;
  image: Piece;
  /** The original caption, as it is. */
  caption: string;
  metadata: Map<string, PythonJson>;
}

/** A shard's samples in order, and what is left out. */
export interface ShardContent {
  samples: RawSample[];
  skipped: Skipped[];
}

/** A shard before anything of it is read. */
export interface SourceShard {
  /** Name of the enriched tar without its extension, and stem of the CSV. */
  stem: string;
  /** Whether it is a part that `shardSize` has cut, of a number in place of a name. */
  isNumbered?: boolean;
  /** Path or name, for messages. */
  label: string;
  /** Changes with the content: sizes and times of the files. */
  fingerprint(): string;
  /** Reads captions and JSON. @throws MiroError when there is nothing to read from */
  read(): ShardContent | Promise<ShardContent>;
}

/** Reasons of what is left out that is not a sample as a whole. */
const NOT_WHOLE: ReadonlySet<SkipReason> = new Set(["hidden", "duplicate-member", "archive"]);

/** The number of samples that a shard holds, those that are left out included. */
export function seenSamples({ samples, skipped }: ShardContent): number {
  const whole = [...samples, ...skipped.filter(({ reason }) => !NOT_WHOLE.has(reason))];
  const known = new Set(whole.map(({ key }) => key));
  // Of a sample whose members were all refused nothing is known but its key.
  const lost = skipped.filter(({ key, reason }) => reason === "archive" && !known.has(key));
  return whole.length + new Set(lost.map(({ key }) => key)).size;
}

/** How samples are found. */
export interface SourceOptions {
  /** Pictures of one shard, where the source is not cut into shards already. */
  shardSize: number;
  /** Column of a table that names the picture; default: the first known name. */
  imageColumn?: string | undefined;
  captionColumn?: string | undefined;
}

/** Ends a sample's reading with a reason. */
class SkipError extends Error {
  constructor(
    readonly reason: SkipReason,
    message: string,
  ) {
    super(message);
  }
}

export function skip(reason: SkipReason, message: string): never {
  throw new SkipError(reason, message);
}

/** Adds the sample that `make` makes, or the reason why there is none. */
export function take(content: ShardContent, key: string, make: () => RawSample): void {
  try {
    const sample = make();
    if (hasLoneSurrogate(sample.caption))
      skip("bad-caption", "half of a character of UTF-16, which no text file can hold");
    content.samples.push(sample);
  } catch (error) {
    const reason = error instanceof SkipError ? error.reason : "unreadable";
    if (!(error instanceof SkipError || error instanceof MiroError)) throw error;
    content.skipped.push({ key, reason, message: (error as Error).message });
  }
}

export function decodeText(bytes: Uint8Array, reason: SkipReason): string {
  return textOr(reason, () => decode(bytes, "the text"));
}

/** The caption of a tar, to the byte, as the published preparation reads and writes it. */
export function decodeCaption(bytes: Uint8Array): string {
  return textOr("bad-caption", () => decodeStored(bytes, "the text"));
}

function textOr(reason: SkipReason, read: () => string): string {
  try {
    return read();
  } catch (error) {
    return skip(reason, (error as Error).message);
  }
}

export function decodeJson(bytes: Uint8Array): Map<string, PythonJson> {
  let value: PythonJson;
  try {
    value = parsePythonJson(decodeText(bytes, "bad-json"));
  } catch (error) {
    if (error instanceof SkipError) throw error;
    return skip("bad-json", (error as Error).message);
  }
  return value instanceof Map ? value : skip("bad-json", "not an object");
}

export function limited(size: number, read: () => Uint8Array): Uint8Array {
  if (size > MAX_TEXT_BYTES) skip("bad-json", `a text of ${size} bytes; at most ${MAX_TEXT_BYTES} are read`);
  return read();
}

/** The key of a picture's path: without its extension; what cannot be in a key becomes `_`. */
export function keyOf(path: string): string {
  const parts = path.slice(0, path.length - extname(path).length).split(/[\\/]/);
  return (
    parts
      .filter((part) => part !== "" && part !== "." && part !== "..")
      .join("/")
      .replaceAll(".", "_") || "_"
  );
}

export function claimKey(keys: Set<string>, key: string, path: string): void {
  if (keys.has(key)) skip("duplicate-key", `${path} has the key of an earlier picture`);
  keys.add(key);
}

export function imageExtension(path: string): string {
  return extname(path).slice(1).toLowerCase();
}

export function isImageName(path: string): boolean {
  return (IMAGE_EXTENSIONS as readonly string[]).includes(imageExtension(path));
}

/** What a shard is called that `shardSize` has cut out of a source. */
export function numbered(index: number): Pick<SourceShard, "stem" | "isNumbered"> {
  return { stem: String(index).padStart(5, "0"), isNumbered: true };
}

export function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** A digest of names, sizes and times of files; those that are not there count too. */
export function stamp(paths: readonly string[], base: string): string {
  const hash = createHash("sha256");
  for (const path of paths) {
    const stats = statsOf(path);
    hash.update(JSON.stringify([relative(base, path), stats === undefined ? null : fingerprintOf(stats)]));
  }
  return hash.digest("hex");
}
