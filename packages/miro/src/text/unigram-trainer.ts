/**
 * Trains a Unigram tokeniser (Kudo 2018, "Subword Regularization", section 3.2, in the details SentencePiece's
 * `UnigramTrainer`): start from all frequent substrings of words, then alternate expectation maximisation of the
 * pieces' probabilities with dropping the pieces whose loss costs the least likelihood, until the vocabulary has its
 * size.
 *
 * The result is a complete T5-compatible `tokenizer.json`: `<pad>` 0, `</s>` 1, `<unk>` 2, the character map nmt_nfkc.
 * It does not depend on the order of the corpus.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomically } from "@miro-t2i/torch/io";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import { specialToken } from "./added-tokens.js";
import { CharsMap } from "./charsmap.js";
import { nmtNfkcCharsMap } from "./nmt-nfkc.js";
import { compilePreTokenizer } from "./pre-tokenizer.js";
import { PieceTrie } from "./unigram.js";

export interface TrainUnigramOptions {
  /** Number of pieces, the three special ones included. Fewer come out if the corpus has not so many. */
  vocabSize: number;
  /** Longest piece in characters (default 16). */
  maxPieceLength?: number;
}

/** The content of a `tokenizer.json` of the T5 kind. */
export interface UnigramTokenizerJson {
  version: "1.0";
  model: { type: "Unigram"; unk_id: number; vocab: [piece: string, score: number][]; byte_fallback: boolean };
  [part: string]: unknown;
}

const MARK = "▁";
const SPECIAL = ["<pad>", "</s>", "<unk>"];
const METASPACE = { type: "Metaspace", replacement: MARK, prepend_scheme: "always", split: true };
const PRE_TOKENIZER = { type: "Sequence", pretokenizers: [{ type: "WhitespaceSplit" }, METASPACE] };

// SentencePiece's constants.
const SEED_PIECES = 1_000_000;
const EM_ROUNDS = 2;
/** Share of the pieces that one pruning leaves. */
const SHRINKING = 0.75;
/** Pruning stops at this multiple of the size; the last step is by probability. */
const LAST_PRUNED = 1.1;
/** Pieces expected less often than this are dropped. */
const LEAST_EXPECTED = 0.5;

/** A word of the corpus, with its number of occurrences. */
interface Word {
  text: string;
  count: number;
}

/** Pieces with log probabilities. */
interface Pieces {
  texts: string[];
  scores: Float64Array;
}

/**
 * Trains on a corpus.
 *
 * @param corpus texts with their numbers of occurrences
 * @throws InvalidInputError if the corpus is empty, or the vocabulary has no room for its characters
 */
export function trainUnigram(
  corpus: Iterable<readonly [text: string, count: number]>,
  { vocabSize, maxPieceLength = 16 }: TrainUnigramOptions,
): UnigramTokenizerJson {
  const charsMap = nmtNfkcCharsMap();
  const words = countWords(corpus, new CharsMap(charsMap));
  if (words.length === 0) throw invalid("corpus", "at least one word", message`none`);
  const characters = countCharacters(words);
  const size = vocabSize - SPECIAL.length;
  if (!Number.isInteger(vocabSize) || size < characters.size)
    throw invalid(
      "vocabSize",
      `an integer of at least ${characters.size + SPECIAL.length}, one for each character`,
      vocabSize,
    );

  let pieces = seedPieces(words, characters, maxPieceLength);
  const enough = Math.ceil(size * LAST_PRUNED);
  for (;;) {
    for (let round = 0; round < EM_ROUNDS; round++) pieces = maximise(pieces, expectations(pieces, words));
    const before = pieces.texts.length;
    if (before <= enough) break;
    pieces = prune(pieces, words, Math.max(enough, Math.floor(before * SHRINKING)));
    if (pieces.texts.length === before) break; // only characters and pieces without an alternative are left
  }
  return tokenizerJson(finalPieces(pieces, characters, size), charsMap);
}

/**
 * Writes `tokenizer.json` and a `tokenizer_config.json` with which transformers takes it as it is: T5's own class there
 * builds the normalizer anew, and adds 100 ids.
 */
export async function saveTokenizer(folder: string, file: UnigramTokenizerJson): Promise<void> {
  await mkdir(folder, { recursive: true });
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    eos_token: "</s>",
    unk_token: "<unk>",
    pad_token: "<pad>",
    model_input_names: ["input_ids", "attention_mask"],
    model_max_length: 512,
  };
  for (const [name, json] of [
    ["tokenizer.json", file],
    ["tokenizer_config.json", config],
  ] as const)
    writeFileAtomically(join(folder, name), (write) => write(Buffer.from(`${JSON.stringify(json, null, 1)}\n`)));
}

function countWords(corpus: Iterable<readonly [string, number]>, charsMap: CharsMap): Word[] {
  const split = compilePreTokenizer(PRE_TOKENIZER, "pre_tokenizer", invalid);
  const counts = new Map<string, number>();
  for (const [text, count] of corpus)
    for (const word of split({ text: charsMap.apply(text.replace(/\p{Surrogate}/gu, "\uFFFD")), first: true }))
      counts.set(word.text, (counts.get(word.text) ?? 0) + count);
  return Array.from(counts, ([text, count]) => ({ text, count })).sort((a, b) => compare(a.text, b.text));
}

function countCharacters(words: Word[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { text, count } of words) for (const c of text) counts.set(c, (counts.get(c) ?? 0) + count);
  return counts;
}

/**
 * All characters, and the substrings of two and more that occur twice and are not always followed by the same
 * character.
 */
function seedPieces(words: Word[], characters: Map<string, number>, maxLength: number): Pieces {
  const counts = new Map<string, number>();
  for (const { text, count } of words) {
    const cuts = characterCuts(text);
    for (let from = 0; from < cuts.length - 1; from++)
      for (let to = from + 2; to < cuts.length && to - from <= maxLength; to++) {
        const piece = text.slice(cuts[from], cuts[to]);
        counts.set(piece, (counts.get(piece) ?? 0) + count);
      }
  }
  const contained = new Set<string>();
  for (const [piece, count] of counts) {
    const shorter = piece.slice(0, lastCharacterStart(piece));
    if (counts.get(shorter) === count) contained.add(shorter);
  }
  const seeds = [...counts]
    .filter(([piece, count]) => count > 1 && !contained.has(piece))
    .map(([piece, count]): [string, number] => [piece, count * characterCuts(piece).length])
    .sort(byScore)
    .slice(0, SEED_PIECES);
  const all = [...[...characters].sort(byScore), ...seeds];
  const logSum = Math.log(all.reduce((sum, [, weight]) => sum + weight, 0));
  return {
    texts: all.map(([text]) => text),
    scores: Float64Array.from(all, ([, weight]) => Math.log(weight) - logSum),
  };
}

/** The pieces that a word can be cut into: for each end the pieces that end there. */
class Lattice {
  readonly #trie: PieceTrie;
  readonly #scores: Float64Array;
  /** Of the latest word, edge by edge in order of their starts. */
  starts: number[] = [];
  ends: number[] = [];
  ids: number[] = [];

  constructor({ texts, scores }: Pieces) {
    this.#trie = new PieceTrie(new Map(texts.map((text, id) => [text, id])));
    this.#scores = scores;
  }

  /** @param except a piece that must not be used */
  fill(text: string, except = -1): void {
    this.starts.length = this.ends.length = this.ids.length = 0;
    for (let start = 0; start < text.length; start++) {
      let node = 0;
      for (let end = start; end < text.length; ) {
        node = this.#trie.child(node, text.charCodeAt(end++));
        if (node < 0) break;
        const id = this.#trie.pieceAt(node);
        if (id < 0 || id === except) continue;
        this.starts.push(start);
        this.ends.push(end);
        this.ids.push(id);
      }
    }
  }

  /**
   * Adds `count` times the probability of each piece to occur (once per edge) to `expected`; false if no path leads
   * through.
   */
  addMarginals(length: number, count: number, expected: Float64Array): boolean {
    const { starts, ends, ids } = this;
    const scores = this.#scores;
    const forward = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY);
    const backward = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY);
    forward[0] = backward[length] = 0;
    for (let e = 0; e < ids.length; e++)
      forward[ends[e]!] = logAdd(forward[ends[e]!]!, forward[starts[e]!]! + scores[ids[e]!]!);
    for (let e = ids.length - 1; e >= 0; e--)
      backward[starts[e]!] = logAdd(backward[starts[e]!]!, backward[ends[e]!]! + scores[ids[e]!]!);
    const total = forward[length]!;
    if (total === Number.NEGATIVE_INFINITY) return false;
    for (let e = 0; e < ids.length; e++) {
      const logProbability = forward[starts[e]!]! + scores[ids[e]!]! + backward[ends[e]!]! - total;
      expected[ids[e]!]! += count * Math.exp(logProbability);
    }
    return true;
  }

  /** Pieces of the best path, or null if none leads through. */
  bestPath(length: number): number[] | null {
    const { starts, ends, ids } = this;
    const best = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY);
    const edgeTo = new Int32Array(length + 1).fill(-1);
    best[0] = 0;
    for (let e = 0; e < ids.length; e++) {
      const score = best[starts[e]!]! + this.#scores[ids[e]!]!;
      if (score > best[ends[e]!]!) {
        best[ends[e]!] = score;
        edgeTo[ends[e]!] = e;
      }
    }
    const path: number[] = [];
    for (let end = length; end > 0; end = starts[edgeTo[end]!]!) {
      if (edgeTo[end]! < 0) return null;
      path.push(ids[edgeTo[end]!]!);
    }
    return path;
  }
}

/** Expectation: how often each piece occurs over all segmentations of the corpus. */
function expectations(pieces: Pieces, words: Word[]): Float64Array {
  const lattice = new Lattice(pieces);
  const expected = new Float64Array(pieces.texts.length);
  for (const { text, count } of words) {
    lattice.fill(text);
    lattice.addMarginals(text.length, count, expected);
  }
  return expected;
}

/** Maximisation, with the sparse prior of SentencePiece (exp ∘ digamma in place of the frequency). Characters stay. */
function maximise({ texts }: Pieces, expected: Float64Array): Pieces {
  const kept = texts
    .map((text, id): [string, number] => [text, expected[id]!])
    .filter(([text, frequency]) => frequency >= LEAST_EXPECTED || isCharacter(text))
    .map(([text, frequency]): [string, number] => [text, Math.max(frequency, LEAST_EXPECTED)]);
  const logSum = digamma(kept.reduce((sum, [, frequency]) => sum + frequency, 0));
  return {
    texts: kept.map(([text]) => text),
    scores: Float64Array.from(kept, ([, frequency]) => digamma(frequency) - logSum),
  };
}

/**
 * Drops the pieces that are missed the least: the loss of one is the fall in likelihood when its best segmentation into
 * others takes its place.
 */
function prune(pieces: Pieces, words: Word[], wanted: number): Pieces {
  const { texts, scores } = pieces;
  const lattice = new Lattice(pieces);
  const frequency = new Float64Array(texts.length);
  const wordsWith = new Float64Array(texts.length);
  let total = 0;
  for (const { text, count } of words) {
    lattice.fill(text);
    total += count;
    const path = lattice.bestPath(text.length)!;
    for (const id of path) frequency[id]! += count;
    for (const id of new Set(path)) wordsWith[id]! += count;
  }
  const sum = frequency.reduce((a, b) => a + b, 0);
  const logSum = Math.log(sum);
  const loss = texts.map((text, id) => {
    if (isCharacter(text)) return Number.POSITIVE_INFINITY;
    const f = frequency[id]!;
    if (f === 0) return Number.NEGATIVE_INFINITY;
    lattice.fill(text, id);
    const others = lattice.bestPath(text.length);
    if (others === null) return Number.POSITIVE_INFINITY;
    const logSumWithout = Math.log(sum + f * (others.length - 1));
    const without = others.reduce((value, other) => value + Math.log(frequency[other]! + f) - logSumWithout, 0);
    return (wordsWith[id]! / total) * (Math.log(f) - logSum - without);
  });
  const order = [...texts.keys()]
    .filter((id) => loss[id] !== Number.NEGATIVE_INFINITY)
    .sort((a, b) => (loss[a] === loss[b] ? compare(texts[a]!, texts[b]!) : loss[b]! - loss[a]!))
    .slice(0, wanted);
  return { texts: order.map((id) => texts[id]!), scores: Float64Array.from(order, (id) => scores[id]!) };
}

/** Every character, then the most probable others. */
function finalPieces({ texts, scores }: Pieces, characters: Map<string, number>, size: number): [string, number][] {
  const all = texts.map((text, id): [string, number] => [text, scores[id]!]);
  const required = all.filter(([text]) => characters.has(text));
  const others = all.filter(([text]) => !characters.has(text)).sort(byScore);
  return [...required, ...others.slice(0, size - required.length)].sort(byScore);
}

function tokenizerJson(pieces: [string, number][], charsMap: Uint8Array): UnigramTokenizerJson {
  const text = (id: string) => ({ Sequence: { id, type_id: 0 } });
  const end = { SpecialToken: { id: "</s>", type_id: 0 } };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => specialToken(id, content)),
    normalizer: { type: "Precompiled", precompiled_charsmap: Buffer.from(charsMap).toString("base64") },
    pre_tokenizer: PRE_TOKENIZER,
    post_processor: {
      type: "TemplateProcessing",
      single: [text("A"), end],
      pair: [text("A"), end, text("B"), end],
      special_tokens: { "</s>": { id: "</s>", ids: [1], tokens: ["</s>"] } },
    },
    decoder: METASPACE,
    model: {
      type: "Unigram",
      unk_id: 2,
      vocab: [
        ...SPECIAL.map((name): [string, number] => [name, 0]),
        // Six decimals: the last bits of logarithms are not the same everywhere.
        ...pieces.map(([piece, score]): [string, number] => [piece, Number(score.toFixed(6))]),
      ],
      byte_fallback: false,
    },
  };
}

/** Indices at which a text's characters begin, and its length. */
function characterCuts(text: string): number[] {
  const cuts = [0];
  for (const c of text) cuts.push(cuts.at(-1)! + c.length);
  return cuts;
}

function lastCharacterStart(text: string): number {
  const last = text.codePointAt(text.length - 2)!;
  return text.length - (text.length > 1 && last > 0xffff ? 2 : 1);
}

function isCharacter(text: string): boolean {
  return text.length === 1 || (text.length === 2 && text.codePointAt(0)! > 0xffff);
}

function byScore(a: [string, number], b: [string, number]): number {
  return b[1] - a[1] || compare(a[0], b[0]);
}

/** Order of code units, the same everywhere. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function logAdd(a: number, b: number): number {
  if (a < b) [a, b] = [b, a];
  return b === Number.NEGATIVE_INFINITY ? a : a + Math.log1p(Math.exp(b - a));
}

/** The derivative of ln Γ, for x > 0: recurrence up to 7, then the asymptotic series around x - 1/2. */
function digamma(x: number): number {
  let result = 0;
  for (; x < 7; x++) result -= 1 / x;
  const square = 1 / (x - 0.5) ** 2;
  const series = 1 / 24 - square * (7 / 960 - square * (31 / 8064 - (square * 127) / 30720));
  return result + Math.log(x - 0.5) + square * series;
}
