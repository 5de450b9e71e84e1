/**
 * The Unigram language model (Kudo 2018, "Subword Regularization", section 3): a text's probability is the product of
 * its pieces' probabilities, and encoding is the most probable segmentation (Viterbi). Ties, unknown characters and the
 * fusing of unknowns follow SentencePiece's `EncodeOptimized` as Hugging Face tokenizers has it.
 */

/** Added to the lowest score of the vocabulary to make the score of an unknown character. */
const UNKNOWN_PENALTY = 10;

/** A piece of an encoded text. */
export interface Piece {
  /** Index in the vocabulary. */
  id: number;
  /**
   * The piece of the normalised text that it stands for; differs from the vocabulary's string only where that is
   * unknown.
   */
  text: string;
}

export class UnigramModel {
  readonly #trie: PieceTrie;
  readonly #scores: Float64Array;
  readonly #ids = new Map<string, number>();
  readonly #unknownScore: number;

  /**
   * @param vocabulary pieces with log probabilities, well-formed strings; of equal strings the last one counts
   * @param unknownId the piece that stands for what the vocabulary lacks
   * @param byteFallback unknown text becomes pieces `<0xNN>`, if the vocabulary has all that are needed
   */
  constructor(
    readonly vocabulary: readonly (readonly [piece: string, score: number])[],
    readonly unknownId: number,
    readonly byteFallback = false,
  ) {
    this.#scores = Float64Array.from(vocabulary, ([, score]) => score);
    for (const [id, [piece]] of vocabulary.entries()) this.#ids.set(piece, id);
    this.#trie = new PieceTrie(this.#ids);
    this.#unknownScore = this.#scores.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY) - UNKNOWN_PENALTY;
  }

  /** The index of a piece. */
  idOf(piece: string): number | undefined {
    return this.#ids.get(piece);
  }

  /**
   * The most probable segmentation.
   *
   * @param text one word as the pre-tokeniser made it; well-formed
   */
  encode(text: string): Piece[] {
    const size = text.length;
    const best = new Float64Array(size + 1);
    const startOf = new Int32Array(size + 1).fill(-1);
    const idAt = new Int32Array(size + 1);
    const reach = (end: number, start: number, id: number, score: number) => {
      const total = best[start]! + score;
      if (startOf[end] !== -1 && !(total > best[end]!)) return;
      best[end] = total;
      startOf[end] = start;
      idAt[end] = id;
    };
    for (let start = 0; start < size; ) {
      const next = start + (text.codePointAt(start)! > 0xffff ? 2 : 1);
      let covered = false; // whether a piece covers exactly this character
      let node = 0;
      for (let end = start; end < size; ) {
        node = this.#trie.child(node, text.charCodeAt(end++));
        if (node < 0) break;
        const id = this.#trie.pieceAt(node);
        if (id < 0) continue;
        reach(end, start, id, this.#scores[id]!);
        covered ||= end === next;
      }
      if (!covered) reach(next, start, this.unknownId, this.#unknownScore);
      start = next;
    }

    const pieces: Piece[] = [];
    for (let end = size; end > 0; ) {
      let start = startOf[end]!;
      if (idAt[end] === this.unknownId) while (start > 0 && idAt[start] === this.unknownId) start = startOf[start]!;
      this.#emit(text.slice(start, end), pieces);
      end = start;
    }
    return pieces.reverse();
  }

  /** Adds, in reverse order, what stands for `text`. */
  #emit(text: string, pieces: Piece[]): void {
    const id = this.#ids.get(text);
    if (id === undefined && this.byteFallback) {
      const bytes = Array.from(new TextEncoder().encode(text), (byte) => {
        const name = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
        return { id: this.#ids.get(name), text: name };
      });
      if (bytes.every((piece): piece is Piece => piece.id !== undefined)) {
        pieces.push(...bytes.reverse());
        return;
      }
    }
    pieces.push({ id: id ?? this.unknownId, text });
  }
}

/** A trie over UTF-16 code units whose edges stand in one open-addressing hash table. */
export class PieceTrie {
  readonly #parents: Int32Array;
  readonly #units: Uint16Array;
  readonly #children: Int32Array;
  readonly #mask: number;
  readonly #pieces: Int32Array;
  #nodes = 1;

  /** @param pieces strings with their non-negative values */
  constructor(pieces: ReadonlyMap<string, number>) {
    let units = 1;
    for (const piece of pieces.keys()) units += piece.length;
    const slots = 2 ** Math.ceil(Math.log2(2 * units + 2));
    this.#mask = slots - 1;
    this.#parents = new Int32Array(slots).fill(-1);
    this.#units = new Uint16Array(slots);
    this.#children = new Int32Array(slots);
    this.#pieces = new Int32Array(units).fill(-1);
    for (const [piece, value] of pieces) {
      let node = 0;
      for (let i = 0; i < piece.length; i++) node = this.#insert(node, piece.charCodeAt(i));
      if (node > 0) this.#pieces[node] = value;
    }
  }

  /** The node that `unit` leads to from `node` (the root is 0), or -1. */
  child(node: number, unit: number): number {
    const slot = this.#slot(node, unit);
    return this.#parents[slot] === -1 ? -1 : this.#children[slot]!;
  }

  /** The value of the string that ends at `node`, or -1. */
  pieceAt(node: number): number {
    return this.#pieces[node]!;
  }

  #insert(node: number, unit: number): number {
    const slot = this.#slot(node, unit);
    if (this.#parents[slot] === -1) {
      this.#parents[slot] = node;
      this.#units[slot] = unit;
      this.#children[slot] = this.#nodes++;
    }
    return this.#children[slot]!;
  }

  #slot(node: number, unit: number): number {
    let slot = Math.imul(node, 0x9e3779b1) ^ Math.imul(unit, 0x85ebca6b);
    slot = (slot ^ (slot >>> 15)) & this.#mask;
    while (this.#parents[slot] !== -1 && (this.#parents[slot] !== node || this.#units[slot] !== unit))
      slot = (slot + 1) & this.#mask;
    return slot;
  }
}
