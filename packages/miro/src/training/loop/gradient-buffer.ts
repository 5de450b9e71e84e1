/**
 * Gradients that lie one behind the other in one tensor, as in the buckets of PyTorch's `DistributedDataParallel` with
 * `gradient_as_bucket_view`: one call sets all of them to zero, and one sums them over processes.
 */
import { scope, type Tensor, zeros } from "@miro-t2i/torch";
import { groupBy } from "../../group-by.js";
import type { DataParallelGroup } from "../process-group/process-group.js";

/** Each gradient begins at a multiple of so many elements, where kernels read several at once. */
const ALIGNMENT = 64;

export class GradientBuffer {
  /** One for each dtype. */
  readonly #buffers: Tensor[];
  /** Which parameters have gradients, and their sizes. */
  readonly #layout: string;
  #isAgreed = false;

  /** Moves the gradients of those parameters that have one, and sets them to zero. */
  constructor(parameters: readonly Tensor[]) {
    const used = parameters.flatMap((parameter, index) =>
      scope(() => parameter.grad) === null ? [] : [{ parameter, index }],
    );
    this.#layout = used.map(({ parameter, index }) => `${index}: ${parameter.dtype} [${parameter.shape}]`).join("\n");
    this.#buffers = [...groupBy(used, ({ parameter }) => `${parameter.dtype} on ${parameter.device}`).values()].map(
      (alike) => bufferOf(alike.map(({ parameter }) => parameter)),
    );
  }

  /** Sets all gradients to zero. */
  zero_(): void {
    for (const buffer of this.#buffers) buffer.zero_();
  }

  /**
   * Sums the gradients over the processes, in place; nothing waits for a GPU.
   * @throws InvalidInputError where the processes have gradients of other parameters
   */
  async sumOver(group: DataParallelGroup): Promise<void> {
    if (!this.#isAgreed) await group.agree("the parameters that have gradients", this.#layout);
    this.#isAgreed = true;
    for (const buffer of this.#buffers) await group.sumInPlace(buffer);
  }

  /** The gradients stay the parameters'. */
  dispose(): void {
    for (const buffer of this.#buffers) buffer.dispose();
  }
}

/** A tensor of zeros whose parts are the gradients of these parameters. */
function bufferOf(parameters: readonly Tensor[]): Tensor {
  return scope(() => {
    const [{ dtype, device }] = parameters as [Tensor];
    const starts = [0];
    for (const { numel } of parameters) starts.push(starts.at(-1)! + Math.ceil(numel / ALIGNMENT) * ALIGNMENT);
    const buffer = zeros([starts.at(-1)!], { dtype, device });
    for (const [i, parameter] of parameters.entries())
      parameter.grad = buffer.narrow(0, starts[i]!, parameter.numel).view(parameter.shape);
    return buffer.keep();
  });
}
