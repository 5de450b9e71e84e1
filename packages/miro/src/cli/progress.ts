/**
 * One progress line on stderr, redrawn in place; nothing at all when stderr is no terminal. `cli-progress` is loaded with
 * the first line only.
 */
import type { SingleBar } from "cli-progress";
import type { CliContext } from "./context.js";

export class Progress {
  #bar: SingleBar | null = null;
  #label = "";

  private constructor(private readonly create: ((format: string) => SingleBar) | null) {}

  /** A progress display for a command; silent where there is no terminal. */
  static async for(context: CliContext): Promise<Progress> {
    if (!context.interactive) return new Progress(null);
    const { default: cliProgress } = await import("cli-progress");
    return new Progress(
      (format) =>
        new cliProgress.SingleBar({
          format,
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: true,
          linewrap: false,
          gracefulExit: false,
          barsize: 24,
        }),
    );
  }

  /** Shows `value` of `total` behind a label; another label begins another line. */
  update(label: string, value: number, total: number, unit = ""): void {
    if (!this.create) return;
    if (!this.#bar || this.#label !== label) {
      this.stop();
      this.#label = label;
      this.#bar = this.create(`${label} {bar} {value}/{total}${unit} {eta_formatted}`);
      this.#bar.start(total, value);
    } else {
      this.#bar.setTotal(total);
      this.#bar.update(value);
    }
  }

  /** Removes the line. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = null;
  }
}
