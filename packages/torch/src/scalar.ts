// Numbers without shape, as arguments of operators.

/** A number that stays a double even when it is integral. Made by {@link float}. */
export class FloatScalar {
  /** @param float the number */
  constructor(readonly float: number) {}
}

/**
 * Marks a number as a double: `x.mul(2)` keeps an int64 tensor's dtype, `x.mul(float(2))` gives float32. JavaScript's
 * `2` and `2.0` are the same value, Python's are not.
 *
 * @example
 * ```ts
 * tensor([1n]).mul(float(2)).dtype; // "float32"
 * ```
 */
export function float(value: number): FloatScalar {
  return new FloatScalar(value);
}

/** A number without shape. An integral `number` counts as an integer, as `2` does in Python; `float(2)` is `2.0`. */
export type Scalar = number | bigint | boolean | FloatScalar;
