/**
 * BERT's tokenizer (Devlin et al. 2019): words are cut at white space and punctuation and segmented by WordPiece
 * (Schuster and Nakajima 2012), the longest piece first; pieces inside a word begin with `##`.
 *
 * The ids are those of Hugging Face tokenizers with the settings of `bert-base-uncased`: control characters removed,
 * each Chinese character a word, accents removed, lower case. A word of more than 100 characters, or with a piece that
 * the vocabulary lacks, is unknown as a whole.
 *
 * `@huggingface/tokenizers` 0.2 is not used: it lower-cases whole texts ("Σ" at the end of a word), and removes and
 * splits by the Unicode of the JavaScript engine. The ids of one odd text in twenty are others.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Tensor, tensor } from "@miro-t2i/torch";
import { checkName } from "../arguments.js";
import { MiroError } from "../errors.js";
import { readJson } from "../files/json-file.js";
import { readTextFile } from "../files/text-file.js";
import { AddedTokenFinder, specialToken } from "./added-tokens.js";
import { WHITE_SPACE } from "./whitespace.js";
import { ACCENTS, PUNCTUATION, REMOVED } from "./wordpiece.generated.js";

/** Every BERT has these; they are found in a text too, where they are one token. */
const SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] as const;
/** Words of more characters are unknown. */
const MAX_WORD = 100;
/** No vocabulary comes near this. */
const MAX_PIECES = 1_000_000;
const INSIDE = "##";

/** The inside of a character class, from ranges of hexadecimal code points. */
const classOf = (ranges: string) =>
  ranges
    .split(" ")
    .map((range) => range.replace(/[0-9a-f]+/g, (code) => `\\u{${code}}`))
    .join("");

const removed = new RegExp(`[${classOf(REMOVED)}]`, "gu");
/** Blocks of Chinese characters that were known when BERT was published. */
const CHINESE =
  /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
const accents = new RegExp(`[${classOf(ACCENTS)}]`, "gu");
const words = new RegExp(`[${classOf(PUNCTUATION)}]|[^${WHITE_SPACE}${classOf(PUNCTUATION)}]+`, "gu");

/** Texts as rows of ids. The caller owns the tensors. */
export interface WordPieceBatch {
  /** (B, T) int64, T the longest row, padded at the end */
  ids: Tensor;
  /** (B, T) bool: true where there is a token */
  mask: Tensor;
  /** Which texts were cut. */
  cut: boolean[];
}

/** A vocabulary with the rules above. */
export class WordPieceTokenizer {
  /** Number of ids. */
  readonly vocabSize: number;
  readonly #ids = new Map<string, number>();
  readonly #longest: number;
  readonly #added: AddedTokenFinder;

  /**
   * @param pieces of the vocabulary, by id
   * @param added tokens behind them, found in texts as they are
   * @param source what to call the vocabulary in errors
   */
  constructor(pieces: readonly string[], added: readonly string[] = [], source = "vocabulary") {
    if (pieces.length > MAX_PIECES)
      throw new MiroError(`${source}: expected at most ${MAX_PIECES} pieces, found ${pieces.length}`);
    pieces.forEach((piece, id) => {
      const known = this.#ids.get(piece);
      if (piece === "" || known !== undefined)
        throw new MiroError(
          `${source}: piece ${id}: ${piece === "" ? "expected a text, found an empty line" : `${JSON.stringify(piece)} is piece ${known} too`}`,
        );
      this.#ids.set(piece, id);
    });
    for (const token of SPECIAL_TOKENS)
      if (!this.#ids.has(token)) throw new MiroError(`${source}: lacks ${token}; it is no vocabulary of BERT`);
    for (const token of added) if (!this.#ids.has(token)) this.#ids.set(token, this.#ids.size);
    this.vocabSize = this.#ids.size;
    this.#longest = pieces.reduce((most, { length }) => Math.max(most, length), 0);
    this.#added = new AddedTokenFinder(
      [...SPECIAL_TOKENS, ...added].map((content) => specialToken(this.#ids.get(content)!, content)),
    );
  }

  /** The vocabulary files that a folder may have, in the order in which they are looked for. */
  static readonly files: readonly string[] = ["vocab.txt", "tokenizer.json"].flatMap((name) => [
    `tokenizer/${name}`,
    name,
  ]);

  /** The vocabulary of a folder; null where it has none. @throws MiroError naming the file that is broken */
  static fromFolder(folder: string, added: readonly string[] = []): WordPieceTokenizer | null {
    checkName("folder", folder, "the name of a folder");
    const name = WordPieceTokenizer.files.find((name) => existsSync(join(folder, name)));
    return name === undefined ? null : WordPieceTokenizer.fromFile(join(folder, name), added);
  }

  /** @param path a `vocab.txt`, or a `tokenizer.json` with a WordPiece model */
  static fromFile(path: string, added: readonly string[] = []): WordPieceTokenizer {
    checkName("path", path, "the name of a file");
    const pieces = path.endsWith(".json") ? jsonPieces(path, added) : listedPieces(path);
    return new WordPieceTokenizer(pieces, added, path);
  }

  /** Ids of a text between `[CLS]` and `[SEP]`, not cut. */
  encode(text: string): number[] {
    const ids = [this.#ids.get("[CLS]")!];
    for (const segment of this.#added.split(text.replace(/\p{Surrogate}/gu, "\ufffd"))) {
      if ("token" in segment) ids.push(segment.token.id);
      else for (const [word] of normalize(segment.text).matchAll(words)) this.#segment(word, ids);
    }
    ids.push(this.#ids.get("[SEP]")!);
    return ids;
  }

  /** Whether a text is longer than `maxLength` tokens, `[CLS]` and `[SEP]` included. */
  truncates(text: string, maxLength: number): boolean {
    return this.encode(text).length > maxLength;
  }

  /** Ids of texts in rows of one length, cut to `maxLength` with `[SEP]` kept, and padded with `[PAD]`. */
  encodeBatch(texts: readonly string[], maxLength: number): WordPieceBatch {
    const sep = this.#ids.get("[SEP]")!;
    const cut: boolean[] = [];
    const rows = texts.map((text) => {
      const row = this.encode(text);
      cut.push(row.length > maxLength);
      return row.length > maxLength ? [...row.slice(0, maxLength - 1), sep] : row;
    });
    const length = rows.reduce((most, row) => Math.max(most, row.length), 0);
    const ids = new BigInt64Array(rows.length * length).fill(BigInt(this.#ids.get("[PAD]")!));
    const mask = new Uint8Array(rows.length * length);
    rows.forEach((row, b) => {
      row.forEach((id, t) => {
        ids[b * length + t] = BigInt(id);
        mask[b * length + t] = 1;
      });
    });
    const shape = [rows.length, length];
    return { ids: tensor(ids, { shape, dtype: "int64" }), mask: tensor(mask, { shape, dtype: "bool" }), cut };
  }

  #segment(word: string, ids: number[]): void {
    const unknown = this.#ids.get("[UNK]")!;
    // Two code units are the most of a character.
    if (word.length > MAX_WORD && (word.length > 2 * MAX_WORD || Array.from(word).length > MAX_WORD)) {
      ids.push(unknown);
      return;
    }
    const before = ids.length;
    for (let start = 0; start < word.length; ) {
      const prefix = start === 0 ? "" : INSIDE;
      let end = Math.min(word.length, start + this.#longest);
      let id: number | undefined;
      for (; end > start; end--) {
        id = this.#ids.get(prefix + word.slice(start, end));
        if (id !== undefined) break;
      }
      if (id === undefined) {
        ids.length = before;
        ids.push(unknown);
        return;
      }
      ids.push(id);
      start = end;
    }
  }
}

function normalize(text: string): string {
  const decomposed = text.replace(removed, "").replace(CHINESE, " $& ").normalize("NFD").replace(accents, "");
  // Letter by letter: a sigma at the end of a word is no special one.
  return decomposed.replace(/./gsu, (letter) => letter.toLowerCase());
}

function listedPieces(path: string): string[] {
  const lines = readTextFile(path).split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/** Pieces of a `tokenizer.json`, whose ids must be a count. Those of added tokens may stand among them. */
function jsonPieces(path: string, added: readonly string[]): string[] {
  const model = (readJson(path) as { model?: { type?: unknown; vocab?: unknown } } | null)?.model;
  const vocabulary = model?.vocab;
  if (model?.type !== "WordPiece" || typeof vocabulary !== "object" || vocabulary === null)
    throw new MiroError(`${path}: model: expected a WordPiece model with its vocab, as BERT's tokenizer has`);
  const entries = Object.entries(vocabulary).filter(([piece]) => !added.includes(piece));
  const pieces: string[] = [];
  for (const [piece, id] of entries) {
    if (!Number.isInteger(id) || id < 0 || id >= entries.length || pieces[id] !== undefined)
      throw new MiroError(
        `${path}: model.vocab: ${JSON.stringify(piece)}: expected an id of its own below ${entries.length}, found ${JSON.stringify(id)}`,
      );
    pieces[id] = piece;
  }
  return pieces;
}
