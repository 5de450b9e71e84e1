/** The progress of pictures that are drawn: one line for all of them, that moves with every step. */
import type { RequestProgress } from "../pipeline/requests/draw-request.js";
import type { Progress } from "./progress.js";

export class DrawingProgress {
  readonly #progress: Progress;
  /** Pictures. */
  readonly total: number;
  readonly #candidates: number;
  /** Pictures that are there. */
  #finished = 0;
  /** Candidates of those that are not, as far as they are drawn. */
  #drawn = 0;

  /** @param total pictures @param candidates that are drawn for each */
  constructor(progress: Progress, total: number, candidates = 1) {
    this.#progress = progress;
    this.total = total;
    this.#candidates = candidates;
  }

  /** Pictures that are there. */
  get finished(): number {
    return this.#finished;
  }

  /** Takes a step of what is drawn together. */
  step({ step, steps, rows }: Pick<RequestProgress, "step" | "steps" | "rows">): void {
    this.#drawn += rows / steps;
    this.#show(`step ${step + 1}/${steps}`);
  }

  /** Takes a picture that is there. */
  picture(): void {
    this.#finished++;
    this.#drawn = Math.max(0, this.#drawn - this.#candidates);
    this.#show();
  }

  #show(detail = ""): void {
    const value = Math.min(this.total, this.#finished + this.#drawn / this.#candidates);
    const count = this.total === 1 ? {} : { count: `${this.#finished}/${this.total} pictures` };
    this.#progress.update("drawing", value, this.total, { count: "", ...count, detail });
  }
}
