/**
 * CLIP's tokenizer: byte-level byte-pair encoding (Radford et al. 2021, "Learning Transferable Visual Models From
 * Natural Language Supervision"; Sennrich et al. 2016). 256 byte symbols, the same at the end of a word, one symbol a
 * merge, start and end: 49,408 ids.
 *
 * The table is the same everywhere, the cleaning of the text is not:
 *
 *   openai OpenAI's CLIP, open_clip, HPSv2: repairs of broken text (fix-text.ts), HTML entities decoded twice, white
 *     space collapsed, lower case
 *   hugging-face transformers' fast tokenizer: NFC, white space collapsed, lower case; `<|endoftext|>` in a text is the
 *     end token
 *
 * `@huggingface/tokenizers` 0.2 is not used: it lower-cases whole texts ("Σ" at the end of a word) and has JavaScript's
 * white space, so the ids of one odd text in twenty are others.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { type Tensor, tensor } from "@miro-t2i/torch";
import { checkName } from "../arguments.js";
import { MiroError, systemReason } from "../errors.js";
import { readJson } from "../files/json-file.js";
import { readBytes } from "../files/whole-files.js";
import { fixText } from "./fix-text.js";
import { unescapeHtml } from "./html-entities.js";
import { PYTHON_SPACE, WHITE_SPACE } from "./whitespace.js";

/** How a text is cleaned before it is cut into words. */
export type ClipCleaning = "openai" | "hugging-face";

/** Positions of CLIP's text tower. */
export const CLIP_CONTEXT = 77;
/** Merges of the published table. */
const MERGES = 48_894;
/** No vocabulary comes near this. */
const MAX_TABLE_BYTES = 32 * 2 ** 20;

const SPLIT_SPACES = new RegExp(`[${PYTHON_SPACE}]+`, "g");
const SPACES = new RegExp(`[${WHITE_SPACE}]+`, "g");
/** Contractions, letters, single digits, and what is neither. */
const WORDS = `'s|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^${WHITE_SPACE}\\p{L}\\p{N}]+`;
/**
 * Python ignores case here: "ſ" is an "s", and U+0345, whose capital is a letter, is neither letter nor something else.
 */
const OPENAI_WORDS = `'ſ|${WORDS.replace("[^", "[^\\u0345")}`;

interface Kind {
  readonly start: string;
  readonly end: string;
  readonly word: RegExp;
  clean(text: string): string;
}

const KINDS: Record<ClipCleaning, Kind> = {
  openai: {
    start: "<start_of_text>",
    end: "<end_of_text>",
    word: new RegExp(`<start_of_text>|<end_of_text>|${OPENAI_WORDS}`, "gu"),
    clean: (text) =>
      unescapeHtml(unescapeHtml(fixText(text)))
        .replace(SPLIT_SPACES, " ")
        .trim()
        .toLowerCase(),
  },
  "hugging-face": {
    start: "<|startoftext|>",
    end: "<|endoftext|>",
    // What is spelled like a special token by now is three words.
    word: new RegExp(`<\\|(?:start|end)oftext\\|>|${WORDS}`, "gu"),
    // Letter by letter: a sigma at the end of a word is no special one.
    clean: (text) =>
      text
        .normalize("NFC")
        .replace(SPACES, " ")
        .replace(/./gsu, (letter) => letter.toLowerCase()),
  },
};

/** A table of merges with one of the two cleanings. */
export class ClipTokenizer {
  /** How texts are cleaned. */
  readonly cleaning: ClipCleaning;
  /** Number of ids. */
  readonly vocabSize: number;
  /** Id before every text. */
  readonly startId: number;
  /** Id behind every text, the largest. */
  readonly endId: number;
  readonly #kind: Kind;
  /** The id that two neighbours become, by first · 2^20 + second; a lower id goes first. */
  readonly #merged = new Map<number, number>();

  /**
   * @param merges pairs of symbols with a blank between them, the most frequent first
   * @param source what to call them in errors
   */
  constructor(merges: readonly string[], cleaning: ClipCleaning, source = "merges") {
    const symbols = [...BYTE_SYMBOLS, ...BYTE_SYMBOLS.map((symbol) => `${symbol}</w>`)];
    const ids = new Map(symbols.map((symbol, id) => [symbol, id]));
    merges.forEach((line, i) => {
      const [first, second, ...rest] = line.split(" ");
      const a = ids.get(first!);
      const b = second === undefined ? undefined : ids.get(second);
      if (a === undefined || b === undefined || rest.length > 0)
        throw new MiroError(
          `${source}: merge ${i + 1}: expected two symbols that come before it, found ${JSON.stringify(line.slice(0, 100))}`,
        );
      const id = 512 + i;
      ids.set(`${first}${second}`, id);
      if (!this.#merged.has(a * PAIR + b)) this.#merged.set(a * PAIR + b, id);
    });
    this.cleaning = cleaning;
    this.#kind = KINDS[cleaning];
    this.startId = 512 + merges.length;
    this.endId = this.startId + 1;
    this.vocabSize = this.endId + 1;
  }

  /** The published table. */
  static published(cleaning: ClipCleaning): ClipTokenizer {
    const table = brotliDecompressSync(readFileSync(new URL("../../assets/clip-merges.txt.br", import.meta.url)));
    return new ClipTokenizer(tableLines(table.toString("utf8")), cleaning);
  }

  /**
   * The table that stands in a folder: `merges.txt`, `tokenizer.json` or `bpe_simple_vocab_16e6.txt.gz`, there or in
   * `tokenizer/`; where there is none, the published one.
   *
   * @throws MiroError naming the file that is broken
   */
  static fromFolder(folder: string, cleaning: ClipCleaning): ClipTokenizer {
    checkName("folder", folder, "the name of a folder");
    for (const place of [folder, join(folder, "tokenizer")])
      for (const [name, read] of TABLES) {
        const path = join(place, name);
        if (existsSync(path)) return new ClipTokenizer(read(path), cleaning, path);
      }
    return ClipTokenizer.published(cleaning);
  }

  /** Ids of a text, start and end included, not cut. */
  encode(text: string): number[] {
    const { start, end, clean, word } = this.#kind;
    const valid = text.replace(/\p{Surrogate}/gu, "\ufffd");
    const ids = [this.startId];
    const special = (part: string) => (part === start ? this.startId : part === end ? this.endId : null);
    // Only here the special tokens are found before the text is cleaned.
    const parts = this.cleaning === "hugging-face" ? valid.split(/(<\|startoftext\|>|<\|endoftext\|>)/) : [valid];
    for (const part of parts) {
      const whole = parts.length > 1 ? special(part) : null;
      if (whole !== null) ids.push(whole);
      else
        for (const [match] of clean(part).matchAll(word)) {
          const id = this.cleaning === "openai" ? special(match) : null;
          if (id !== null) ids.push(id);
          else
            for (const piece of match.startsWith("<|") ? match.split(/(?<=<\|)(?=\w)|(?=\|>$)/) : [match])
              for (const symbol of this.#merge(piece)) ids.push(symbol);
        }
    }
    ids.push(this.endId);
    return ids;
  }

  /**
   * Ids of texts in rows of one length, cut to `maxLength` with the end token kept, and padded with end tokens: CLIP
   * pools at the first of them and looks no further.
   *
   * @returns (B, T) int64, T the longest row; position of the first end token of each text; and which texts were cut.
   *   The caller owns the tensor.
   */
  encodeBatch(texts: readonly string[], maxLength = CLIP_CONTEXT): { ids: Tensor; ends: number[]; cut: boolean[] } {
    const rows = texts.map((text) => this.encode(text));
    const cut = rows.map((row) => row.length > maxLength);
    const length = Math.min(maxLength, Math.max(...rows.map((row) => row.length)));
    const ends = rows.map((row) => Math.min(row.indexOf(this.endId), length - 1));
    const ids = new BigInt64Array(rows.length * length).fill(BigInt(this.endId));
    rows.forEach((row, b) => {
      for (let t = 0; t < Math.min(row.length, length - (cut[b] ? 1 : 0)); t++) ids[b * length + t] = BigInt(row[t]!);
    });
    return { ids: tensor(ids, { shape: [rows.length, length], dtype: "int64" }), ends, cut };
  }

  /** The symbols of a word: its bytes, of which the pair that comes first in the table is merged until none is left. */
  #merge(word: string): number[] {
    const symbols = Array.from(Buffer.from(word, "utf8"), (byte) => BYTE_IDS[byte]!);
    symbols[symbols.length - 1]! += 256;
    // Neighbours by position; a heap holds the pairs, by id and then by position. What is stale is skipped.
    const next = symbols.map((_, i) => i + 1);
    const previous = symbols.map((_, i) => i - 1);
    const heap = new Heap();
    const offer = (i: number) => {
      const j = i < 0 ? symbols.length : next[i]!;
      if (j >= symbols.length) return;
      const id = this.#merged.get(symbols[i]! * PAIR + symbols[j]!);
      if (id !== undefined) heap.push(id * POSITIONS + i);
    };
    for (let i = 0; i < symbols.length; i++) offer(i);
    for (let top = heap.pop(); top !== undefined; top = heap.pop()) {
      const i = top % POSITIONS;
      const id = Math.floor(top / POSITIONS);
      const j = next[i]!;
      if (symbols[i]! < 0 || j >= symbols.length || this.#merged.get(symbols[i]! * PAIR + symbols[j]!) !== id) continue;
      symbols[i] = id;
      symbols[j] = -1;
      next[i] = next[j]!;
      if (next[j]! < symbols.length) previous[next[j]!] = i;
      offer(previous[i]!);
      offer(i);
    }
    return symbols.filter((symbol) => symbol >= 0);
  }
}

/** Ids are below this. */
const PAIR = 2 ** 20;
/** Positions in a word are below this. */
const POSITIONS = 2 ** 32;

/** A binary heap of numbers, the least on top. */
class Heap {
  readonly #items: number[] = [];

  push(item: number): void {
    const items = this.#items;
    let i = items.push(item) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (items[parent]! <= item) break;
      items[i] = items[parent]!;
      i = parent;
    }
    items[i] = item;
  }

  pop(): number | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (items.length === 0 || last === undefined) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= last) break;
      items[i] = items[child]!;
      i = child;
    }
    items[i] = last;
    return top;
  }
}

const isPrintable = (byte: number) =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
const ALL_BYTES = Array.from({ length: 256 }, (_, byte) => byte);
const OTHER_BYTES = ALL_BYTES.filter((byte) => !isPrintable(byte));
/** The bytes by id: printable ones come first. */
const BYTES = [...ALL_BYTES.filter(isPrintable), ...OTHER_BYTES];
/** What merges write for them: printable ones stand for themselves; the others are the characters from 256 on. */
const BYTE_SYMBOLS = BYTES.map((byte) =>
  String.fromCharCode(isPrintable(byte) ? byte : 256 + OTHER_BYTES.indexOf(byte)),
);
/** The id of each byte. */
const BYTE_IDS = ALL_BYTES.map((byte) => BYTES.indexOf(byte));

/** Files that hold the merges, in the order in which they are looked for. */
const TABLES: readonly [name: string, read: (path: string) => string[]][] = [
  ["merges.txt", (path) => tableLines(readBytes(path).toString("utf8"))],
  ["tokenizer.json", jsonMerges],
  ["bpe_simple_vocab_16e6.txt.gz", (path) => tableLines(gunzip(path))],
];

/** The published file goes on behind the merges that are used. */
function tableLines(text: string): string[] {
  const lines = text.split("\n");
  if (lines[0]!.startsWith("#") || lines[0]!.startsWith('"')) lines.shift();
  while (lines.at(-1) === "") lines.pop();
  return lines.slice(0, MERGES);
}

function jsonMerges(path: string): string[] {
  const merges = (readJson(path) as { model?: { merges?: unknown } } | null)?.model?.merges;
  const lines = Array.isArray(merges) ? merges.map((pair) => (Array.isArray(pair) ? pair.join(" ") : pair)) : null;
  if (lines === null || !lines.every((line) => typeof line === "string"))
    throw new MiroError(`${path}: model.merges: expected a list of pairs of symbols, as CLIP's tokenizer has`);
  return lines;
}

function gunzip(path: string): string {
  try {
    return gunzipSync(readBytes(path), { maxOutputLength: MAX_TABLE_BYTES }).toString("utf8");
  } catch (error) {
    throw new MiroError(`${path}: cannot be unpacked: ${systemReason(error)}`, { cause: error });
  }
}
