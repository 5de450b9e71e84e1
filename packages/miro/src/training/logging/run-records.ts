/** What a run records of itself: `log.jsonl`, and TensorBoard's event files where its recipe wants them. */
import { join } from "node:path";
import { type LogRecord, MetricsLog } from "./logging.js";
import { type EventImage, EventWriter } from "./tensorboard.js";

/** Where a run begins to record, and what. */
export interface RecordsOptions {
  /** Folder of the run. */
  output: string;
  /** What was recorded of later steps is forgotten. */
  step: number;
  tensorboard: boolean;
  /** Told when a file cannot be written, which does not end a run. */
  onTrouble: (message: string) => void;
}

/** Of the processes of a run one begins to record. Before, and in the others, what is told is let go. */
export class RunRecords {
  #log: MetricsLog | null = null;
  #events: EventWriter | null = null;

  begin({ output, step, tensorboard, onTrouble }: RecordsOptions): void {
    this.#log = new MetricsLog(join(output, "log.jsonl"), step, onTrouble);
    if (!tensorboard) return;
    const firstStep = step === 0 ? 0 : step + 1;
    this.#events = new EventWriter({ folder: join(output, "tensorboard"), firstStep, onTrouble });
  }

  figures({ step, ...figures }: LogRecord): void {
    this.#log?.write({ step, ...figures });
    this.#events?.scalars(step, figures);
  }

  /** Whether the log had a figure when this began, of the step that it began at. */
  has(step: number, name: string): boolean {
    return this.#log?.has(step, name) ?? false;
  }

  /** Figures that were measured after a step, where there are any. */
  measured(step: number, figures: Record<string, number> | null | undefined): void {
    if (figures && Object.keys(figures).length > 0) this.figures({ step, ...figures });
  }

  warning(step: number, warning: string): void {
    this.#log?.write({ step, warning });
  }

  /** Whether pictures are recorded. */
  get takesImages(): boolean {
    return this.#events !== null;
  }

  image(step: number, tag: string, image: EventImage): void {
    this.#events?.image(step, tag, image);
  }

  close(): void {
    this.#log?.close();
    this.#events?.close();
  }
}
