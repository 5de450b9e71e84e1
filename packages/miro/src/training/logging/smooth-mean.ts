/**
 * An exponential mean that is not biased towards its beginning: `s ← w·s + (1 − w)·v`, divided by `1 − wⁿ` after n
 * values (as TensorBoard smooths).
 */
export class SmoothMean {
  #sum = 0;
  #count = 0;
  readonly #weight: number;

  /** @param weight of the past, in [0, 1); 0 smooths nothing */
  constructor(weight: number) {
    this.#weight = weight;
  }

  /** NaN before the first value. */
  get value(): number {
    return this.#sum / (1 - this.#weight ** this.#count);
  }

  /** Takes in a value; what is not finite is passed over. */
  add(value: number): void {
    if (!Number.isFinite(value)) return;
    this.#sum = this.#weight * this.#sum + (1 - this.#weight) * value;
    this.#count++;
  }
}
