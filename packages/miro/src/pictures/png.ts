/**
 * PNG, as far as pictures with their settings inside need it (W3C PNG, third edition): an encoder for 8-bit RGB, text
 * chunks in and out. Written here because the encoder is a page, needs no native library at start-up, and gives the
 * same bytes on every machine; and because a reader of text chunks must not trust its input.
 *
 * Text goes into `tEXt` where Latin-1 can carry it and into uncompressed `iTXt` (UTF-8) where it cannot. The reader
 * also takes compressed `zTXt` and `iTXt` from other programs, with a bound on what they may inflate to.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { promisify } from "node:util";
import { constants, crc32, deflate, deflateSync, inflateSync } from "node:zlib";
import { invalid, MiroError } from "../errors.js";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
/** No text that this reader returns may be longer, */
const MAX_TEXT_BYTES = 4 << 20;
/** nor all that it inflates together: a thousandth of that may be the whole file. */
const MAX_INFLATED_BYTES = 16 << 20;
/** For 256 x 256 pixels 5 ms and files 0 to 3 % larger than those of level 7 in 18 ms, of level 9 in 190 ms. */
const COMPRESSION = { level: 5, strategy: constants.Z_FILTERED };

/** A keyword (1 to 79 Latin-1 characters) and its text. */
export interface PngText {
  keyword: string;
  text: string;
}

/** @throws InvalidInputError for what are no texts */
export function checkTexts(text: unknown): asserts text is readonly PngText[] {
  const isText = (one: Partial<PngText> | null) => typeof one?.keyword === "string" && typeof one.text === "string";
  if (!Array.isArray(text) || !text.every(isText)) throw invalid("text", "a list of { keyword, text }", text);
}

/** What {@link readPng} finds without decoding the pixels. */
export interface PngInfo {
  width: number;
  height: number;
  bitDepth: number;
  /** 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha. */
  colourType: number;
  text: PngText[];
}

/**
 * Encodes 8-bit RGB.
 *
 * @param data `height × width × 3` bytes, row-major, channels last
 * @param text stored before the pixels, in this order
 */
export function encodePng(data: Uint8Array, width: number, height: number, text: readonly PngText[] = []): Uint8Array {
  checkSize(data, width, height);
  const rows = new Uint8Array((width * 3 + 1) * height);
  filterRows(data, width * 3, 0, height, rows);
  return pngFile(deflateSync(rows, COMPRESSION), width, height, text);
}

/** Bytes of pixels that are filtered in one turn of the event loop: about a millisecond's work. */
export const SLICE_BYTES = 2 ** 16;

/**
 * The same bytes as {@link encodePng}, compressed beside the event loop and filtered in many of its turns: a server's
 * stays free.
 */
export async function encodePngAside(
  data: Uint8Array,
  width: number,
  height: number,
  text: readonly PngText[] = [],
): Promise<Uint8Array> {
  checkSize(data, width, height);
  const stride = width * 3;
  const rows = new Uint8Array((stride + 1) * height);
  const together = Math.max(1, Math.floor(SLICE_BYTES / stride));
  for (let first = 0; first < height; first += together) {
    if (first > 0) await nextTurn();
    filterRows(data, stride, first, Math.min(height, first + together), rows);
  }
  return pngFile(await promisify(deflate)(rows, COMPRESSION), width, height, text);
}

function checkSize(data: Uint8Array, width: number, height: number): void {
  if (!(width > 0 && height > 0) || data.length !== width * height * 3) {
    throw new MiroError(`encodePng: ${data.length} bytes are not ${width} x ${height} RGB pixels`);
  }
}

function pngFile(pixels: Uint8Array, width: number, height: number, text: readonly PngText[]): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits a sample, RGB, deflate, adaptive filters, not interlaced
  return Buffer.concat([
    SIGNATURE,
    pngChunk("IHDR", header),
    ...text.map(textChunk),
    pngChunk("IDAT", pixels),
    pngChunk("IEND", new Uint8Array(0)),
  ]);
}

/**
 * Filters each row from `first` to `end` by the one of the five filters with the least sum of absolute differences (PNG
 * 12.7), and puts it into `out` with the filter's number in front of it.
 */
function filterRows(data: Uint8Array, stride: number, first: number, end: number, out: Uint8Array): void {
  const trials = Array.from({ length: 5 }, () => new Uint8Array(stride));
  const [none, sub, upward, average, predicted] = trials as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  for (let y = first; y < end; y++) {
    const row = y * stride;
    let [ofNone, ofSub, ofUp, ofAverage, ofPaeth] = [0, 0, 0, 0, 0];
    for (let i = 0; i < stride; i++) {
      const value = data[row + i]!;
      const left = i >= 3 ? data[row + i - 3]! : 0;
      const up = y > 0 ? data[row - stride + i]! : 0;
      const corner = i >= 3 && y > 0 ? data[row - stride + i - 3]! : 0;
      ofNone += size(value);
      none[i] = value;
      const a = (value - left) & 255;
      ofSub += size(a);
      sub[i] = a;
      const b = (value - up) & 255;
      ofUp += size(b);
      upward[i] = b;
      const c = (value - ((left + up) >> 1)) & 255;
      ofAverage += size(c);
      average[i] = c;
      const d = (value - paeth(left, up, corner)) & 255;
      ofPaeth += size(d);
      predicted[i] = d;
    }
    const sums = [ofNone, ofSub, ofUp, ofAverage, ofPaeth];
    const best = sums.indexOf(Math.min(...sums));
    out[y * (stride + 1)] = best;
    out.set(trials[best]!, y * (stride + 1) + 1);
  }
}

/** Of a byte as a signed difference. */
function size(difference: number): number {
  return difference < 128 ? difference : 256 - difference;
}

function paeth(left: number, up: number, corner: number): number {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  return toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner;
}

function textChunk({ keyword, text }: PngText): Uint8Array {
  if (!/^[\x21-\x7e](?:[\x20-\x7e]{0,77}[\x21-\x7e])?$/.test(keyword)) {
    throw new MiroError(`PNG text keyword ${JSON.stringify(keyword)}: expected 1 to 79 printable ASCII characters`);
  }
  const key = Buffer.from(keyword, "latin1");
  // Latin-1 text may hold printable characters and line feeds, and never a zero byte.
  if (/^[\n\x20-\x7e\xa1-\xff]*$/.test(text)) {
    return pngChunk("tEXt", Buffer.concat([key, Uint8Array.of(0), Buffer.from(text, "latin1")]));
  }
  const body = Buffer.from(text.replaceAll("\0", ""), "utf8");
  // uncompressed, no language, no translation
  return pngChunk("iTXt", Buffer.concat([key, Uint8Array.of(0, 0, 0, 0, 0), body]));
}

/** A chunk with its length and checksum. */
export function pngChunk(type: string, body: Uint8Array): Uint8Array {
  const out = Buffer.alloc(body.length + 12);
  out.writeUInt32BE(body.length, 0);
  out.write(type, 4, "latin1");
  out.set(body, 8);
  out.writeUInt32BE(crc32(out.subarray(4, body.length + 8)), body.length + 8);
  return out;
}

/**
 * Reads the size and the texts of a PNG. Pixels are not decoded, but every chunk's length, type and checksum is
 * checked, so that a truncated or altered file is noticed. Chunks of other programs that are off are passed over.
 *
 * @param file name for error messages
 * @throws MiroError naming `file` and the byte at which it stops being a PNG
 */
export function readPng(bytes: Uint8Array, file: string): PngInfo {
  const fail = (at: number, what: string): never => {
    throw new MiroError(`${file}: not a valid PNG: ${what} at byte ${at}`);
  };
  if (!isPng(bytes)) fail(0, "no PNG signature");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let info: PngInfo | null = null;
  let pixels = false;
  let room = MAX_INFLATED_BYTES;
  const inflate = (data: Uint8Array): Buffer | null => {
    const text = inflateText(data, Math.min(room, MAX_TEXT_BYTES));
    room -= text?.length ?? 0;
    return text;
  };
  let at = 8;
  for (;;) {
    if (at + 12 > bytes.length) return fail(at, "the file ends within a chunk");
    const length = view.getUint32(at);
    const type = Buffer.from(bytes.subarray(at + 4, at + 8)).toString("latin1");
    if (!/^[A-Za-z]{4}$/.test(type)) return fail(at, "a chunk type that is not four letters");
    if (length > bytes.length - at - 12) return fail(at, `the file ends within the ${type} chunk`);
    const body = bytes.subarray(at + 8, at + 8 + length);
    const isWhole = crc32(bytes.subarray(at + 4, at + 8 + length)) === view.getUint32(at + 8 + length);
    if (!isWhole && !isForeign(type)) return fail(at, `wrong checksum of the ${type} chunk`);
    if (info === null) {
      if (type !== "IHDR" || length !== 13) return fail(at, "no IHDR chunk");
      const header = new DataView(body.buffer, body.byteOffset, 13);
      info = {
        width: header.getUint32(0),
        height: header.getUint32(4),
        bitDepth: body[8]!,
        colourType: body[9]!,
        text: [],
      };
      if (info.width === 0 || info.height === 0) return fail(at, "a picture without pixels");
    } else if (TEXT_CHUNKS.includes(type)) {
      const text = readText(type, body, inflate);
      // Another program's text that is off is that program's loss; one of ours would be settings that are lost.
      if (text !== null) info.text.push(text);
      else if (OWN_KEYWORDS.some((keyword) => startsWith(body, keyword))) fail(at, `a malformed ${type} chunk`);
    } else if (type === "IDAT") pixels = true;
    else if (type === "IEND") {
      if (!pixels) return fail(at, "no IDAT chunk before IEND");
      return info;
    }
    at += length + 12;
  }
}

const TEXT_CHUNKS = ["tEXt", "zTXt", "iTXt"];
/** The texts that hold settings; see pipeline/settings.ts. */
const OWN_KEYWORDS = ["miro", "parameters", "Software"];

/**
 * Whether a chunk is one that the picture can be read without (its first letter is small) and no text: where its
 * checksum is wrong, it is passed over. A type that differs in one letter alone from a text's may be a damaged one of
 * ours, so it counts as one.
 */
function isForeign(type: string): boolean {
  const differences = (other: string) => [...type].filter((letter, i) => letter !== other[i]).length;
  return /^[a-z]/.test(type) && TEXT_CHUNKS.every((text) => differences(text) > 1);
}

function startsWith(body: Uint8Array, keyword: string): boolean {
  return Buffer.from(body.subarray(0, keyword.length)).toString("latin1") === keyword;
}

/** One text chunk, or null when it does not follow the format. */
function readText(type: string, body: Uint8Array, inflate: (data: Uint8Array) => Buffer | null): PngText | null {
  const end = body.indexOf(0);
  if (end < 1 || end > 79) return null;
  const keyword = Buffer.from(body.subarray(0, end)).toString("latin1");
  if (type === "tEXt") return { keyword, text: Buffer.from(body.subarray(end + 1)).toString("latin1") };
  if (type === "zTXt") {
    const text = body[end + 1] === 0 ? inflate(body.subarray(end + 2)) : null;
    return text && { keyword, text: text.toString("latin1") };
  }
  const compressed = body[end + 1];
  const language = body.indexOf(0, end + 3);
  const translation = language < 0 ? -1 : body.indexOf(0, language + 1);
  if (translation < 0 || compressed === undefined || compressed > 1 || body[end + 2] !== 0) return null;
  const rest = body.subarray(translation + 1);
  const text = compressed ? inflate(rest) : rest;
  try {
    return text && { keyword, text: new TextDecoder("utf-8", { fatal: true }).decode(text) };
  } catch {
    return null;
  }
}

function inflateText(data: Uint8Array, maxBytes: number): Buffer | null {
  try {
    return inflateSync(data, { maxOutputLength: Math.max(1, maxBytes) });
  } catch {
    return null;
  }
}

function isPng(bytes: Uint8Array): boolean {
  return bytes.length >= SIGNATURE.length && SIGNATURE.every((byte, i) => bytes[i] === byte);
}

const ITXT = 0x69545874;
const ZTXT = 0x7a545874;

/**
 * A PNG without the texts that may be compressed, for decoders that inflate them all before the first pixel: three
 * megabytes of them take gigabytes. Other bytes come back as they are.
 */
export function withoutCompressedTexts(bytes: Uint8Array): Uint8Array {
  if (!isPng(bytes)) return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kept: Uint8Array[] = [];
  let from = 0;
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; ) {
    const next = at + 12 + view.getUint32(at);
    const type = view.getUint32(at + 4);
    if (next > bytes.length) break;
    if (type === ITXT || type === ZTXT) {
      kept.push(bytes.subarray(from, at));
      from = next;
    }
    at = next;
  }
  return kept.length === 0 ? bytes : Buffer.concat([...kept, bytes.subarray(from)]);
}
