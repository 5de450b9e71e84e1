/**
 * Counter-based random numbers for scenes: every scene owns a stream that depends on (seed, index) only, so that scene
 * 7 of seed 1 is the same picture whatever was drawn before it, in whatever process.
 *
 * Generator: sfc32 ("small fast counter", C. Doty-Humphrey, PractRand), a 128-bit state chaotic generator whose last
 * word is a counter. The key (seed, index, stream) fills the state; fifteen rounds mix it before the first output.
 */
export class SceneRandom {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  #spare: number | null = null;

  /** @param seed, index, stream integers; bits above the lower 32 of seed and index enter the state too. */
  constructor(seed: number, index: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = index | 0;
    this.#c = (Math.floor(seed / 2 ** 32) ^ Math.imul(Math.floor(index / 2 ** 32), 0x9e3779b1) ^ (stream << 24)) | 0;
    for (let round = 0; round < 15; round++) this.uint32();
  }

  /** Uniform integer in [0, 2³²). */
  uint32(): number {
    const out = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out >>> 0;
  }

  /** Uniform in [0, 1). */
  uniform(): number {
    return this.uint32() / 2 ** 32;
  }

  /** Uniform integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** True with the given probability; always consumes one draw. */
  chance(probability: number): boolean {
    return this.uniform() < probability;
  }

  /** Standard normal (Box-Muller, both values used). */
  normal(): number {
    if (this.#spare !== null) {
      const value = this.#spare;
      this.#spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  /** One key of `shares`, drawn with probability proportional to its value. */
  weighted<K extends string>(shares: Readonly<Record<K, number>>): K {
    const entries = Object.entries(shares) as [K, number][];
    const total = entries.reduce((sum, [, share]) => sum + share, 0);
    let rest = this.uniform() * total;
    for (const [key, share] of entries) {
      rest -= share;
      if (rest < 0) return key;
    }
    return entries.findLast(([, share]) => share > 0)![0];
  }
}
