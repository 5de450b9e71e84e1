/**
 * Text to token ids and back, from a `tokenizer.json`: the same ids as transformers' fast tokenizers of T5 and
 * XLM-RoBERTa. The order of work is that of Hugging Face tokenizers: added tokens are cut out, the rest is normalised,
 * cut into words, and each word segmented by the Unigram model; then the template adds `</s>`.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { type Tensor, tensor } from "@miro-t2i/torch";
import { checkName } from "../arguments.js";
import { InvalidInputError, invalid, MiroError, systemReason } from "../errors.js";
import { readJson } from "../files/json-file.js";
import { type AddedToken, AddedTokenFinder } from "./added-tokens.js";
import { parseTokenizerJson, type TokenizerParts } from "./tokenizer-json.js";
import type { Piece } from "./unigram.js";

/** XLM-RoBERTa's `tokenizer.json`, the largest of those that are read, is a quarter of this. */
const MAX_FILE_BYTES = 64 * 2 ** 20;

/** Options of {@link Tokenizer.encodeBatch}. */
export interface EncodeBatchOptions {
  /** Most tokens of one text, `</s>` included; what is longer is cut. */
  maxLength: number;
  /**
   * How long the rows are: `maxLength` (default; a number does the same for another length of at most `maxLength` that
   * all texts fit in), or as long as the longest text needs.
   */
  padTo?: "maxLength" | "longest" | number | undefined;
}

/** Encoded texts. The caller owns the tensors. */
export interface EncodedBatch {
  /** (B, T) int64, padded with the padding token behind each text. */
  ids: Tensor;
  /** (B, T) bool, true on tokens. */
  mask: Tensor;
  /** For each text what was cut off, from the beginning of the first word that is not whole; "" if nothing was. */
  overflow: string[];
}

/** The tokenizer of a `tokenizer.json`: text to token ids, as Python's `tokenizers` gives them. */
export class Tokenizer {
  readonly #parts: TokenizerParts;
  readonly #added: AddedTokenFinder;
  readonly #addedNormalized: AddedTokenFinder;
  readonly #addedById: ReadonlyMap<number, AddedToken>;
  readonly #addedByContent: ReadonlyMap<string, AddedToken>;

  private constructor(parts: TokenizerParts) {
    this.#parts = parts;
    this.#added = new AddedTokenFinder(parts.addedTokens.filter((token) => !token.normalized));
    this.#addedNormalized = new AddedTokenFinder(
      parts.addedTokens.filter((token) => token.normalized),
      (token) => parts.normalize(token.content),
    );
    this.#addedById = new Map(parts.addedTokens.map((token) => [token.id, token]));
    this.#addedByContent = new Map(parts.addedTokens.map((token) => [token.content, token]));
  }

  /**
   * Reads a tokeniser.
   *
   * @param path a `tokenizer.json`, or the folder that holds it
   * @throws InvalidInputError if it is missing or malformed, saying where
   */
  static async fromFile(path: string): Promise<Tokenizer> {
    checkName("path", path, "the name of a file");
    let file = path;
    try {
      if ((await stat(path)).isDirectory()) file = join(path, "tokenizer.json");
      return Tokenizer.fromJson(readJson(file, MAX_FILE_BYTES), file);
    } catch (error) {
      if (error instanceof InvalidInputError) throw error;
      const reason = error instanceof MiroError ? error.message : `${file}: ${systemReason(error)}`;
      throw new InvalidInputError(`cannot read the tokenizer: ${reason}`, { cause: error });
    }
  }

  /**
   * Makes a tokeniser from the parsed content of a `tokenizer.json`.
   *
   * @param source what to call it in messages
   */
  static fromJson(json: unknown, source = "tokenizer.json"): Tokenizer {
    return new Tokenizer(parseTokenizerJson(json, source));
  }

  /** Number of ids: pieces of the model and added tokens that it lacks. */
  get vocabSize(): number {
    const own = this.#parts.model.vocabulary.length;
    return own + this.#parts.addedTokens.filter((token) => token.id >= own).length;
  }

  /** Id of `<pad>`; 0, as everywhere in T5, if there is no such token. */
  get padId(): number {
    return this.idOf("<pad>") ?? 0;
  }

  /** Id that stands for what the vocabulary lacks. */
  get unknownId(): number {
    return this.#parts.model.unknownId;
  }

  /** Id of a token, if there is one of that spelling. */
  idOf(token: string): number | undefined {
    return this.#addedByContent.get(token)?.id ?? this.#parts.model.idOf(token);
  }

  /** Spelling of a token. */
  tokenOf(id: number): string | undefined {
    return this.#addedById.get(id)?.content ?? this.#parts.model.vocabulary[id]?.[0];
  }

  /**
   * Ids of a text.
   *
   * @param text lone surrogates count as U+FFFD
   * @param addSpecialTokens whether the template (for T5 `</s>` at the end) is applied
   * @param maxLength most tokens, the template's included; what is longer is cut (default: nothing)
   * @throws InvalidInputError if `maxLength` has no room for the template's tokens
   */
  encode(text: string, { addSpecialTokens = true, maxLength = Number.POSITIVE_INFINITY } = {}): number[] {
    const { prefix, suffix } = addSpecialTokens ? this.#parts.template : { prefix: [], suffix: [] };
    const room = maxLength - prefix.length - suffix.length;
    if (!(room >= 0)) throw invalid("maxLength", `at least ${prefix.length + suffix.length}`, maxLength);
    const ids = this.pieces(text).map((piece) => piece.id);
    return [...prefix, ...ids.slice(0, room), ...suffix];
  }

  /** What a text is made of, without the template's tokens. */
  pieces(text: string): Piece[] {
    const { normalize, preTokenize, model } = this.#parts;
    const pieces: Piece[] = [];
    const add = (token: AddedToken) => pieces.push({ id: token.id, text: token.content });
    for (const segment of this.#added.split(text.replace(/\p{Surrogate}/gu, "\uFFFD"))) {
      if ("token" in segment) {
        add(segment.token);
        continue;
      }
      for (const part of this.#addedNormalized.split(normalize(segment.text))) {
        if ("token" in part) add(part.token);
        else
          for (const word of preTokenize({ text: part.text, first: segment.start + part.start === 0 }))
            for (const piece of model.encode(word.text)) pieces.push(piece);
      }
    }
    return pieces;
  }

  /**
   * Encodes texts into one padded batch.
   *
   * @throws InvalidInputError if `maxLength` has no room for the special tokens, or a text does not fit into a numeric
   *   `padTo`
   */
  encodeBatch(texts: readonly string[], options: EncodeBatchOptions): EncodedBatch {
    const { rows, length, overflow } = this.#rows(texts, options);
    const ids = new BigInt64Array(rows.length * length).fill(BigInt(this.padId));
    const mask = new Uint8Array(rows.length * length);
    for (const [b, row] of rows.entries())
      for (const [t, id] of row.entries()) {
        ids[b * length + t] = BigInt(id);
        mask[b * length + t] = 1;
      }
    const shape = [rows.length, length];
    return {
      ids: tensor(ids, { shape, dtype: "int64" }),
      mask: tensor(mask, { shape, dtype: "bool" }),
      overflow,
    };
  }

  #rows(texts: readonly string[], { maxLength, padTo = "maxLength" }: EncodeBatchOptions) {
    const { prefix, suffix } = this.#parts.template;
    const room = maxLength - prefix.length - suffix.length;
    if (!Number.isInteger(maxLength) || room < 0)
      throw invalid("maxLength", `an integer of at least ${prefix.length + suffix.length}`, maxLength);
    const overflow: string[] = [];
    const rows = texts.map((text) => {
      const pieces = this.pieces(text);
      overflow.push(this.#overflow(pieces, room));
      return [...prefix, ...pieces.slice(0, room).map((piece) => piece.id), ...suffix];
    });
    const longest = rows.reduce((most, row) => Math.max(most, row.length), 0);
    const length = padTo === "maxLength" ? maxLength : padTo === "longest" ? longest : padTo;
    if (!Number.isInteger(length) || length < longest || length > maxLength)
      throw invalid("padTo", `"longest", "maxLength" or an integer from ${longest} to ${maxLength}`, padTo);
    return { rows, length, overflow };
  }

  /** The words that do not fit, beginning with the one that is cut in its middle. */
  #overflow(pieces: Piece[], room: number): string {
    if (pieces.length <= room) return "";
    const mark = this.#parts.decoder.replacement;
    let start = room;
    while (start > 0 && !pieces[start]!.text.startsWith(mark) && !this.#addedById.has(pieces[start]!.id)) start--;
    return pieces
      .slice(start)
      .map((piece) => piece.text)
      .join("")
      .replaceAll(mark, " ")
      .trim();
  }

  /**
   * The text of ids. Not always what was encoded: normalisation and unknown characters are lost.
   *
   * @param skipSpecialTokens whether special tokens (`</s>`, `<pad>`, …) are left out
   * @throws InvalidInputError on an id that the tokeniser does not have
   */
  decode(ids: Iterable<number>, { skipSpecialTokens = true } = {}): string {
    const { replacement, dropFirst } = this.#parts.decoder;
    let text = "";
    let first = true;
    for (const id of ids) {
      const token = this.tokenOf(id);
      if (token === undefined) throw invalid("ids", `ids below ${this.vocabSize}`, id);
      if (skipSpecialTokens && this.#addedById.get(id)?.special) continue;
      text += token.replaceAll(replacement, first && dropFirst ? "" : " ");
      first = false;
    }
    return text;
  }
}
