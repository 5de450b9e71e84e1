/**
 * `numpy.random.default_rng(seed)`: the draws of Python programs, number for number. What is here has been the same
 * since numpy 1.17.
 *
 * Seeds are spread by SeedSequence, numbers come from PCG64 (O'Neill 2014, the XSL-RR 128/64 variant), integers below a
 * bound from Lemire's method ("Fast random integer generation in an interval", 2019) on halves of the 64-bit outputs.
 */

const MASK_128 = (1n << 128n) - 1n;
const MASK_64 = (1n << 64n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const WORD = 2 ** 32;

/** A generator in the state that numpy's would be in. */
export class NumpyGenerator {
  #state: bigint;
  readonly #increment: bigint;
  /** The upper half of the last output, which the next call gets. */
  #half: number | null = null;

  /** @param seed from 0 to 2³² − 1 */
  constructor(seed: number) {
    const [stateHigh, stateLow, sequenceHigh, sequenceLow] = seedWords(seed) as [bigint, bigint, bigint, bigint];
    this.#increment = ((((sequenceHigh << 64n) | sequenceLow) << 1n) & MASK_128) | 1n;
    this.#state = 0n;
    this.#step();
    this.#state = (this.#state + ((stateHigh << 64n) | stateLow)) & MASK_128;
    this.#step();
  }

  #step(): void {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & MASK_128;
  }

  /** `bit_generator.random_raw()`: 64 bits. */
  next64(): bigint {
    this.#step();
    const folded = (this.#state >> 64n) ^ (this.#state & MASK_64);
    const turn = this.#state >> 122n;
    return ((folded >> turn) | (folded << (64n - turn))) & MASK_64;
  }

  #next32(): number {
    const kept = this.#half;
    if (kept !== null) {
      this.#half = null;
      return kept;
    }
    const whole = this.next64();
    this.#half = Number(whole >> 32n);
    return Number(whole & 0xffffffffn);
  }

  /** `integers(low, high, endpoint=True)` for ranges below 2³²; also `choice` of one of `high − low + 1` things. */
  integer(low: number, high: number): number {
    const range = high - low;
    if (range === 0) return low;
    const count = range + 1;
    let product = BigInt(this.#next32()) * BigInt(count);
    if (Number(product & 0xffffffffn) < count) {
      const threshold = (WORD - 1 - range) % count;
      while (Number(product & 0xffffffffn) < threshold) product = BigInt(this.#next32()) * BigInt(count);
    }
    return low + Number(product >> 32n);
  }

  /**
   * `choice(population, size, replace=False)` for populations of at most 10,000: a set by Floyd's method (Bentley and
   * Floyd, "A sample of brilliance", 1987), which is shuffled then.
   */
  choose(population: number, size: number): number[] {
    const chosen = new Set<number>();
    for (let j = population - size; j < population; j++) {
      const value = this.integer(0, j);
      chosen.add(chosen.has(value) ? j : value);
    }
    const items = [...chosen];
    for (let i = size - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [items[i], items[j]] = [items[j]!, items[i]!];
    }
    return items;
  }
}

/** `SeedSequence(seed).generate_state(4, uint64)` */
function seedWords(seed: number): bigint[] {
  const POOL = 4;
  let constant = 0x43b0d7e5;
  const hash = (value: number): number => {
    let mixed = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    mixed = Math.imul(mixed, constant) >>> 0;
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const mix = (x: number, y: number): number => {
    const mixed = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) >>> 0;
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const pool = Array.from({ length: POOL }, (_, i) => hash(i === 0 ? seed : 0));
  for (let from = 0; from < POOL; from++)
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to]!, hash(pool[from]!));
  let output = 0x8b51f9dd;
  const words = Array.from({ length: 8 }, (_, i) => {
    let word = (pool[i % POOL]! ^ output) >>> 0;
    output = Math.imul(output, 0x58f38ded) >>> 0;
    word = Math.imul(word, output) >>> 0;
    return (word ^ (word >>> 16)) >>> 0;
  });
  return Array.from({ length: 4 }, (_, i) => (BigInt(words[2 * i + 1]!) << 32n) | BigInt(words[2 * i]!));
}
