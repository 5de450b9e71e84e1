/**
 * Permutations that need no memory: a Feistel network (Luby and Rackoff, 1988) permutes the next power of four, and
 * what falls outside is sent through again until it falls inside ("cycle walking", Black and Rogaway, 2002).
 */
import { PERMUTATION_STREAMS, type PermutationStream } from "./streams.js";

const ROUNDS = 6;

/** Mixes 32 bits (the finaliser of MurmurHash3). */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A permutation of the integers from 0 to n - 1. */
export class Permutation {
  readonly #half: number;
  readonly #keys: Uint32Array;

  /**
   * @param n from 0 to 2⁵²
   * @param stream what the permutation is for
   * @param key non-negative integers below 2⁵³ that choose the permutation among those of the stream
   */
  constructor(
    readonly n: number,
    stream: PermutationStream,
    key: readonly number[],
  ) {
    let bits = 1;
    while (4 ** bits < n) bits++;
    this.#half = 2 ** bits;
    let state = 0x9e3779b9;
    for (const part of [...key, PERMUTATION_STREAMS[stream]]) {
      state = mix(state ^ (part >>> 0));
      state = mix(state + 0x7f4a7c15 + Math.floor(part / 2 ** 32));
    }
    this.#keys = Uint32Array.from({ length: ROUNDS }, (_, round) => mix(state + Math.imul(round + 1, 0x9e3779b9)));
  }

  /** Where `i` is sent. */
  at(i: number): number {
    if (!(i >= 0 && i < this.n)) throw new RangeError(`position ${i} of a permutation of ${this.n}`);
    const half = this.#half;
    let value = i;
    do {
      let left = Math.floor(value / half);
      let right = value % half;
      for (let round = 0; round < ROUNDS; round++) {
        // `half` is a power of two of at most 2²⁶: the lower bits of the mixed word are kept.
        const next = (left ^ (mix(right ^ this.#keys[round]!) & (half - 1))) >>> 0;
        left = right;
        right = next;
      }
      value = left * half + right;
    } while (value >= this.n);
    return value;
  }
}
