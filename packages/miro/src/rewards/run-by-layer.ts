/**
 * Networks of scorers run layer by layer, so that a call can be aborted within a batch, and other work runs between.
 */
import { noGrad } from "@miro-t2i/torch";
import { type ByLayer, freeing } from "../networks/by-layer.js";
import { breathe } from "../pipeline/interruption.js";

/**
 * Runs a network without gradients.
 *
 * @param within what each layer runs in, such as mixed precision
 * @returns its result; the caller frees it
 * @throws the signal's reason when it is aborted, before the next layer; nothing is left then
 */
export async function runByLayer<T>(
  layers: ByLayer<T>,
  signal: AbortSignal | undefined,
  within: <R>(body: () => R) => R = (body) => body(),
): Promise<T> {
  const run = freeing(layers);
  try {
    for (;;) {
      await breathe(signal);
      const { done, value } = within(() => noGrad(() => run.next()));
      if (done) return value;
    }
  } finally {
    run.return(undefined as never);
  }
}
