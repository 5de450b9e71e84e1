/**
 * One progress line on stderr, redrawn in place; nothing at all when stderr is no terminal. `cli-progress` is loaded
 * with the first line only.
 */
import type { SingleBar } from "cli-progress";
import type { DownloadProgress } from "../pipeline/loading/hub-repository.js";
import { printable } from "../printable.js";
import type { CliContext } from "./context.js";

export class Progress {
  #bar: SingleBar | null = null;
  #label = "";
  /** What a download had when it was first reported, and when. */
  #first = { bytes: 0, ms: 0 };
  readonly #create: ((format: string) => SingleBar) | null;

  private constructor(create: ((format: string) => SingleBar) | null) {
    this.#create = create;
  }

  /** A progress display for a command; silent where there is no terminal. */
  static async for(context: CliContext): Promise<Progress> {
    if (!context.interactive) return new Progress(null);
    const { default: cliProgress } = await import("cli-progress");
    return new Progress(
      (format) =>
        new cliProgress.SingleBar({
          format: printable(format).replaceAll("\n", " "),
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
    if (!this.#create) return;
    if (!this.#bar || this.#label !== label) {
      this.stop();
      this.#label = label;
      this.#bar = this.#create(`${label} {bar} {value}/{total}${unit} {eta_formatted}`);
      this.#bar.start(total, value);
    } else {
      this.#bar.setTotal(total);
      this.#bar.update(value);
    }
  }

  /** Shows a download: all files that are fetched together, the rate and the time left. */
  download(progress: DownloadProgress): void {
    if (!this.#create) return;
    const { repo, allBytes, allTotalBytes } = progress;
    const label = `downloading ${repo}`;
    const now = performance.now();
    if (!this.#bar || this.#label !== label || allBytes < this.#first.bytes) {
      this.stop();
      this.#label = label;
      this.#first = { bytes: allBytes, ms: now };
      this.#bar = this.#create(`${label} {bar} {text}`);
      this.#bar.start(allTotalBytes, allBytes, { text: downloadText(progress, 0) });
    } else {
      this.#bar.setTotal(allTotalBytes);
      const rate = (allBytes - this.#first.bytes) / ((now - this.#first.ms) / 1000);
      this.#bar.update(allBytes, { text: downloadText(progress, rate) });
    }
  }

  /** Removes the line. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = null;
  }
}

/** How far a download is, in words. @param rate bytes a second; 0 when it is not known yet */
export function downloadText(progress: DownloadProgress, rate: number): string {
  const { allBytes, allTotalBytes, fileNumber, fileCount } = progress;
  const [unit, name] = allTotalBytes >= 1e9 ? [1e9, "GB"] : [1e6, "MB"];
  const parts = [
    `${(allBytes / unit).toFixed(1)}/${(allTotalBytes / unit).toFixed(1)} ${name}`,
    `file ${fileNumber} of ${fileCount}`,
  ];
  if (rate > 0) {
    const left = Math.round((allTotalBytes - allBytes) / rate);
    const two = (n: number) => String(n).padStart(2, "0");
    const [hours, minutes, seconds] = [Math.floor(left / 3600), Math.floor(left / 60) % 60, left % 60];
    const clock = hours > 0 ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
    parts.push(`${(rate / 1e6).toFixed(1)} MB/s`, `${clock} left`);
  }
  return parts.join(", ");
}
