import { type Replayable, scope, Tensor } from "@miro-t2i/torch";

/**
 * Stands for a CUDA graph: the same work again, into the tensors of the first time. Looks nothing up, captures no
 * values.
 */
export function rerun<T extends object>(body: () => T): Replayable<T> {
  const outputs = scope(() => {
    const made = body();
    for (const value of Object.values(made)) if (value instanceof Tensor) value.fill_(Number.NaN).keep();
    return made;
  });
  return {
    outputs,
    replay: () =>
      scope(() => {
        for (const [key, value] of Object.entries(body()))
          if (value instanceof Tensor) (outputs as Record<string, Tensor>)[key]!.copy_(value);
      }),
    dispose: () => {
      for (const value of Object.values(outputs)) if (value instanceof Tensor) value.dispose();
    },
  };
}
