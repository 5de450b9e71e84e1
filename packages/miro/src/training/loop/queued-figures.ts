/** Figures that a device is still to compute, for a host that reads them when it has queued more work. */
import { HostCopy, pinnedMemory, scope, type Tensor } from "@miro-t2i/torch";
import { untilDone } from "../../flow/until-done.js";

/**
 * A vector on its way to the host. From a GPU it is copied as soon as it is computed, beside what comes next: a copy
 * that is asked for only when it is read would come after everything that has been queued by then.
 */
export class QueuedFigures {
  readonly #values: Tensor;
  /** What arrives on the host, and how; null on a CPU. */
  readonly #arriving: { values: Tensor; copy: HostCopy } | null;

  /** @param values (n) float64, kept, which the figures own from now on */
  constructor(values: Tensor) {
    this.#values = values;
    if (values.device === "cpu") this.#arriving = null;
    else {
      const target = scope(() =>
        pinnedMemory(8 * values.numel)
          .viewDtype("float64")
          .keep(),
      );
      this.#arriving = { values: target, copy: new HostCopy([values], [target]) };
    }
  }

  /**
   * The values, once they are computed; what was queued later is not waited for, and the event loop goes on. Frees what
   * they lie in.
   */
  async take(): Promise<number[]> {
    try {
      if (this.#arriving !== null) await untilDone(this.#arriving.copy);
      const { values } = this.#arriving ?? { values: this.#values };
      return values.toList() as number[];
    } finally {
      this.dispose();
    }
  }

  dispose(): void {
    this.#arriving?.copy.dispose();
    this.#arriving?.values.dispose();
    this.#values.dispose();
  }
}
