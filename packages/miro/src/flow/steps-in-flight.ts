/**
 * How far a host runs ahead of its GPU. Operators return before the GPU has done them, so a loop that never waits has
 * queued all its steps within milliseconds: what it reports is no progress, and stopping it saves nothing. A second
 * step is queued while one is computed, so that the GPU never waits for the host.
 */
import { DeviceEvent, type Tensor } from "@miro-t2i/torch";
import { untilDone } from "./until-done.js";

/** Steps that a device has been given and may not have done. */
const MOST = 2;

/** What tells whether a step is done; the engine's `DeviceEvent`. */
export type StepEvent = Pick<DeviceEvent, "isDone" | "dispose">;

/** The steps of one loop. Does nothing on a CPU, whose operators return when they are done. */
export class StepsInFlight implements Disposable {
  readonly #record: (state: Tensor) => StepEvent;
  readonly #events: StepEvent[] = [];

  /** @param record makes the event of what has been queued on the tensor's device */
  constructor(record: (state: Tensor) => StepEvent = (state) => new DeviceEvent(state)) {
    this.#record = record;
  }

  /** A step was queued, whose result lies on the step's device. */
  queued(state: Tensor): void {
    if (state.device !== "cpu") this.#events.push(this.#record(state));
  }

  /**
   * Waits until another step may be queued, while the event loop goes on.
   * @throws the signal's reason when it is aborted
   */
  untilFree(signal: AbortSignal | undefined): Promise<void> {
    return this.#until(MOST - 1, signal);
  }

  /** Waits for all steps, as {@link untilFree}. */
  done(signal: AbortSignal | undefined): Promise<void> {
    return this.#until(0, signal);
  }

  /** Forgets the steps. */
  [Symbol.dispose](): void {
    for (const event of this.#events.splice(0)) event.dispose();
  }

  async #until(most: number, signal: AbortSignal | undefined): Promise<void> {
    while (this.#events.length > most) {
      await untilDone(this.#events[0]!, signal);
      this.#events.shift()!.dispose();
    }
  }
}
