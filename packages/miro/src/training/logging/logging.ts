/** What a training run tells: a JSON-lines file for programs, a progress line for people. */
import { existsSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { clock } from "../../duration.js";
import { makeFolder } from "../../files/make-folder.js";
import { readLinesOf, writeFileAtomic } from "../../files/whole-files.js";
import { ERASE_LINE } from "../../printable.js";
import { LogFile } from "./log-file.js";

/** One line of the log. */
export interface LogRecord {
  step: number;
  [name: string]: number | string | boolean | null;
}

/** Lines that are copied at once. */
const LINES = 1000;

/**
 * An append-only JSON-lines file. Opened at a step, it first drops every later line and a last line that was cut off,
 * so that a resumed run's log reads like that of an undisturbed one.
 */
export class MetricsLog {
  readonly #file: LogFile;
  /** What the log has of the step that it was opened at: a run that is finished, or nearly, measures that anew. */
  readonly #known = new Set<string>();
  /** The same, figure by figure. */
  readonly #figures = new Set<string>();

  /** @param onTrouble called when the file cannot be written, which does not end a run */
  constructor(path: string, step: number, onTrouble?: (message: string) => void) {
    makeFolder(dirname(path));
    if (existsSync(path)) writeFileAtomic(path, this.#kept(path, step), { overwrite: true });
    this.#file = new LogFile(path, openSync(path, "a"), onTrouble);
  }

  /** The log up to a step. */
  *#kept(path: string, step: number): Generator<Uint8Array> {
    let lines: string[] = [];
    for (const line of readLinesOf(path)) {
      const record = parse(line);
      if (record === null || !(record.step <= step)) continue;
      if (record.step === step) {
        this.#known.add(columnsOf(record));
        for (const name of Object.keys(record)) this.#figures.add(`${step} ${name}`);
      }
      if (lines.push(`${line}\n`) < LINES) continue;
      yield Buffer.from(lines.join(""));
      lines = [];
    }
    yield Buffer.from(lines.join(""));
  }

  /** Whether it had a figure when it was opened, of the step that it was opened at. */
  has(step: number, name: string): boolean {
    return this.#figures.has(`${step} ${name}`);
  }

  write(record: LogRecord): void {
    if (this.#known.has(columnsOf(record))) return;
    this.#file.append(Buffer.from(`${JSON.stringify(record)}\n`));
  }

  close(): void {
    this.#file.close();
  }
}

/** Which figures of which step a line has. */
function columnsOf(record: LogRecord): string {
  return `${record.step} ${Object.keys(record)}`;
}

function parse(line: string): LogRecord | null {
  try {
    return JSON.parse(line) as LogRecord;
  } catch {
    return null;
  }
}

export interface Progress {
  step: number;
  totalSteps: number;
  loss: number;
  imagesPerSecond: number;
  secondsLeft: number;
}

/** `step 1200/6000 · loss 0.4123 · 138 img/s · 57:20 left`, or as much of it as a narrow terminal takes. */
export function formatProgress(
  { step, totalSteps, loss, imagesPerSecond, secondsLeft }: Progress,
  columns = Number.POSITIVE_INFINITY,
): string {
  const [steps, left] = [`step ${step}/${totalSteps}`, `${clock(secondsLeft)} left`];
  const losses = `loss ${loss.toFixed(4)}`;
  const speed = `${imagesPerSecond < 10 ? imagesPerSecond.toFixed(1) : Math.round(imagesPerSecond)} img/s`;
  const lines = [[steps, losses, speed, left], [steps, losses, left], [steps, left], [steps]];
  const texts = lines.map((parts) => parts.join(" · "));
  return texts.find((text) => text.length < columns) ?? texts.at(-1)!;
}

/** Where a progress line is written. */
interface LineStream {
  isTTY?: boolean;
  /** Width of a terminal. */
  columns?: number;
  write(text: string): unknown;
}

/** Progress on stderr: one line that is rewritten on a terminal, else a new line at most every `everyMs`. */
export class ProgressLine {
  #last = Number.NEGATIVE_INFINITY;
  #open = false;
  readonly #stream: LineStream;
  readonly #everyMs: number;

  constructor(stream: LineStream = process.stderr, everyMs = 15_000) {
    this.#stream = stream;
    this.#everyMs = everyMs;
  }

  update(progress: Progress): void {
    const now = performance.now();
    if (this.#stream.isTTY) {
      this.#stream.write(ERASE_LINE);
      this.#stream.write(formatProgress(progress, this.#stream.columns));
      this.#open = true;
    } else if (now - this.#last >= this.#everyMs) {
      this.#stream.write(`${formatProgress(progress)}\n`);
      this.#last = now;
    }
  }

  /** A message on a line of its own. */
  say(message: string): void {
    this.end();
    this.#stream.write(`${message}\n`);
  }

  end(): void {
    if (this.#open) this.#stream.write("\n");
    this.#open = false;
  }
}
