/**
 * Networks that can be stopped between their layers. Such a computation is a generator: before each layer it yields the
 * tensors that it made and that the rest needs. What it yielded before and does not need any more is freed; its
 * arguments stay the caller's.
 *
 *   *forwardByLayer(x) { for (const layer of layers) { yield [x]; x = scope(() => layer.forward(x)); } return x; }
 *
 * {@link atOnce} runs it without a stop. Whoever wants to stop it, or to let other work run in between, takes
 * {@link freeing} and asks for one layer after another.
 */
import { scope, type Tensor } from "@miro-t2i/torch";

/** A computation that yields before each of its layers. Its result is none of the tensors that it yielded. */
export type ByLayer<T> = Generator<readonly Tensor[], T, void>;

/** The same layers, with tensors that live until the last of them: its arguments. */
export function* holding<T>(own: readonly Tensor[], layers: ByLayer<T>): ByLayer<T> {
  try {
    for (;;) {
      const { done, value } = layers.next();
      if (done) return value;
      yield [...own, ...value];
    }
  } finally {
    layers.return(undefined as never);
  }
}

/** Runs all layers. @returns the result, which belongs to the enclosing scope */
export function atOnce<T>(layers: ByLayer<T>): T {
  const run = freeing(layers);
  for (;;) {
    const { done, value } = run.next();
    if (done) return value;
  }
}

/** Runs up to the next layer with each call of `next`, and frees what is not needed any more. */
export function* freeing<T>(layers: ByLayer<T>): Generator<void, T, void> {
  let held: readonly Tensor[] = [];
  try {
    for (;;) {
      const { done, value } = scope(() => layers.next());
      const needed = done ? [] : value;
      for (const tensor of held) if (!needed.includes(tensor)) tensor.dispose();
      held = needed;
      if (done) return value;
      yield;
    }
  } finally {
    // Only where an error or the caller has stopped it is there anything left.
    for (const tensor of held) tensor.dispose();
    layers.return(undefined as never);
  }
}
