/**
 * Python's `random.Random` with an integer seed: the published samplers shuffle with it, so their orders can only be
 * given again by the same stream. Mersenne Twister MT19937 (Matsumoto, Nishimura 1998); seeding, `shuffle` and `sample`
 * as CPython documents and tests them (https://docs.python.org/3/library/random.html).
 */

const N = 624;
const M = 397;

export class PythonRandom {
  readonly #state = new Uint32Array(N);
  #at = N;

  /** @param seed a non-negative integer */
  constructor(seed: number | bigint) {
    const words: number[] = [];
    for (let rest = BigInt(seed); rest > 0n || words.length === 0; rest >>= 32n) words.push(Number(rest & 0xffffffffn));
    this.#seedByArray(words);
  }

  #seedByArray(words: readonly number[]): void {
    const state = this.#state;
    state[0] = 19650218;
    for (let i = 1; i < N; i++) state[i] = Math.imul(1812433253, state[i - 1]! ^ (state[i - 1]! >>> 30)) + i;
    let i = 1;
    const advance = () => {
      if (++i === N) {
        state[0] = state[N - 1]!;
        i = 1;
      }
    };
    for (let k = 0, j = 0; k < Math.max(N, words.length); k++) {
      state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1664525)) + words[j]! + j;
      advance();
      if (++j === words.length) j = 0;
    }
    for (let k = 0; k < N - 1; k++) {
      state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1566083941)) - i;
      advance();
    }
    state[0] = 0x80000000;
  }

  #refill(): void {
    const state = this.#state;
    for (let i = 0; i < N; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % N]! & 0x7fffffff);
      state[i] = state[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }

  /** Uniform unsigned 32-bit integer. */
  uint32(): number {
    if (this.#at === N) this.#refill();
    let y = this.#state[this.#at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** `random()`: uniform in [0, 1). */
  random(): number {
    const [a, b] = [this.uint32() >>> 5, this.uint32() >>> 6];
    return (a * 2 ** 26 + b) / 2 ** 53;
  }

  /** Uniform integer in [0, n), n at most 2³². */
  below(n: number): number {
    const bits = n.toString(2).length;
    for (;;) {
      const drawn =
        bits > 32 ? this.uint32() + (this.uint32() >>> (64 - bits)) * 2 ** 32 : this.uint32() >>> (32 - bits);
      if (drawn < n) return drawn;
    }
  }

  /** `shuffle(list)`, in place. */
  shuffle<T>(list: T[]): T[] {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [list[i], list[j]] = [list[j]!, list[i]!];
    }
    return list;
  }

  /** `sample(range(n), k)`: k different integers below n. */
  sample(n: number, k: number): number[] {
    const setSize = 21 + (k > 5 ? 4 ** Math.ceil(Math.log(k * 3) / Math.log(4)) : 0);
    if (n <= setSize) {
      const pool = Array.from({ length: n }, (_, i) => i);
      return Array.from({ length: k }, (_, i) => {
        const j = this.below(n - i);
        const drawn = pool[j]!;
        pool[j] = pool[n - i - 1]!;
        return drawn;
      });
    }
    const drawn = new Set<number>();
    while (drawn.size < k) {
      let j = this.below(n);
      while (drawn.has(j)) j = this.below(n);
      drawn.add(j);
    }
    return [...drawn];
  }
}
