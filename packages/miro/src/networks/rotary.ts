/**
 * Rotary positions (Su et al. 2021, "RoFormer"): pairs of channels of a query or key are rotated by angles that grow
 * with its position, so that products depend on the distance alone. The first half of a head's channels pairs with the
 * second.
 *
 *   a' = a cos θ − b sin θ,  b' = b cos θ + a sin θ
 *
 * Shapes: T tokens, K width of a head, P = K / 2 pairs.
 */
import { cat, scope, type Tensor, tensor } from "@miro-t2i/torch";

/** Of all tokens: both (T, P) in float32. */
export interface Rotation {
  cos: Tensor;
  sin: Tensor;
}

/** The rotation by given angles, one row a token. */
export function rotationOf(angles: readonly Float64Array[], device: string): Rotation {
  const table = (of: (angle: number) => number) =>
    tensor(Float32Array.from(angles.flatMap((row) => Array.from(row, of))))
      .view(angles.length, -1)
      .to({ device });
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/** `count` frequencies, falling from 1 to nearly 1 / base. */
export function frequencies(base: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => base ** (-i / count));
}

/** Turns heads of T tokens, in float32 whatever their dtype: (…, T, K) → the same shape and dtype */
export function rotate(x: Tensor, { cos, sin }: Rotation): Tensor {
  return scope(() => {
    const x32 = x.float();
    const [a, b] = x32.chunk(2, -1) as [Tensor, Tensor];
    const rotated = x32.mul(cat([cos, cos], -1));
    const [first, second] = rotated.chunk(2, -1) as [Tensor, Tensor];
    first.addcmul_(b, sin, -1);
    second.addcmul_(a, sin);
    return rotated.to(x.dtype);
  });
}
