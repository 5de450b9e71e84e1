/**
 * One progress line on stderr, redrawn in place; where stderr is no terminal, as in the log of a job, a line a minute,
 * and nothing at all under `--quiet`. A stage has one line from its beginning to its end, with the time that is left of
 * it. `cli-progress` is loaded with the first line only.
 */
import type { SingleBar } from "cli-progress";
import { clock } from "../duration.js";
import type { DownloadProgress } from "../pipeline/loading/hub-repository.js";
import { printable } from "../printable.js";
import type { CliContext } from "./context.js";
import { paint } from "./paint.js";

/** What stands beside a bar. */
export interface ProgressDetail {
  /** What is done of what; default: the two numbers. */
  count?: string;
  /** More about it: the shard at hand, the rate. */
  detail?: string;
  /** Seconds that are left of the whole work, where that is known better than by the bar's own pace. */
  secondsLeft?: number;
}

/** How long the pace of the work is looked back on: what is skipped at the beginning is soon forgotten. */
const PACE_MS = 60_000;

/** How often a log gets a line; work that takes less has none. */
const LOG_MS = 60_000;

/** Time left by the pace of the last minute. */
export class Pace {
  #marks: { value: number; ms: number }[] = [];

  /** @returns seconds, or null as long as nothing is known */
  left(value: number, total: number, ms = performance.now()): number | null {
    if (value < (this.#marks.at(-1)?.value ?? 0)) this.#marks = [];
    this.#marks.push({ value, ms });
    // What takes longer than a minute a piece is judged by the last two.
    while (this.#marks.length > 3 && this.#marks[1]!.ms < ms - PACE_MS) this.#marks.shift();
    const [first] = this.#marks;
    const done = value - first!.value;
    return done <= 0 ? null : ((ms - first!.ms) / 1000 / done) * (total - value);
  }
}

/** What a line shows besides its bar. */
interface Payload {
  stage: string;
  /** What is done, more about it, and the time left; empty where it is not known. */
  parts: readonly string[];
}

const BAR = 24;
const LEAST_BAR = 4;

/**
 * A progress line that fits a terminal: the bar gets shorter first, then what is least worth knowing goes, the time
 * that is left last of all.
 */
export function progressLine(
  { stage, parts, progress }: Payload & { progress: number },
  columns: number,
  painted: (bar: string) => string = (bar) => bar,
): string {
  const [count = "", detail = "", time = ""] = parts;
  const texts = [[count, detail, time], [count, time], [time || count]].map((some) =>
    some.filter((part) => part !== "").join(", "),
  );
  const room = (text: string) => columns - 1 - `${stage}  ${text}`.length;
  const text = texts.find((one) => room(one) >= LEAST_BAR) ?? texts.at(-1)!;
  const size = Math.min(BAR, room(text));
  if (size < LEAST_BAR) return `${stage} ${text}`.slice(0, columns - 1);
  const done = Math.round(Math.min(1, progress) * size);
  return `${stage} ${painted("=".repeat(done) + "-".repeat(size - done))} ${text}`;
}

export class Progress {
  #bar: SingleBar | null = null;
  #stage = "";
  #pace = new Pace();
  #loggedAt = performance.now();
  readonly #create: (() => SingleBar) | null;
  readonly #log: (line: string) => void;

  private constructor(create: (() => SingleBar) | null, log: (line: string) => void = () => {}) {
    this.#create = create;
    this.#log = log;
  }

  /** A progress display for a command. */
  static async for(context: Pick<CliContext, "interactive" | "colours" | "note">): Promise<Progress> {
    if (!context.interactive) return new Progress(null, context.note);
    const { default: cliProgress } = await import("cli-progress");
    const painted = (bar: string) => (context.colours.stderr ? paint("cyan", bar) : bar);
    return new Progress(
      () =>
        new cliProgress.SingleBar({
          format: (_, { progress }, { stage, parts }: Payload) =>
            progressLine({ stage, parts, progress }, process.stderr.columns || 80, painted),
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: true,
          linewrap: false,
          gracefulExit: false,
        }),
    );
  }

  /** Shows how far a stage is: `value` of `total`. Another stage begins another line. */
  update(stage: string, value: number, total: number, { count, detail, secondsLeft }: ProgressDetail = {}): void {
    const isDue = this.#create !== null || performance.now() - this.#loggedAt >= LOG_MS;
    if (!isDue && stage === this.#stage) return;
    this.#begin(stage);
    const left = secondsLeft ?? this.#pace.left(value, total);
    const time = left === null || value >= total ? "" : `${clock(left)} left`;
    const parts = [count ?? `${value}/${total}`, detail ?? "", time];
    if (this.#create) this.#draw(value, total, parts);
    else if (isDue) {
      this.#loggedAt = performance.now();
      this.#log(`${inLine([stage, ...parts].filter((part) => part !== "").join(", "))}\n`);
    }
  }

  /** Shows a download: all files that are fetched together, the rate and the time left. */
  download(progress: DownloadProgress): void {
    if (!this.#create) return;
    const { repo, allBytes, allTotalBytes } = progress;
    this.#begin(`downloading ${repo}`);
    const left = this.#pace.left(allBytes, allTotalBytes);
    const rate = left === null || left === 0 ? 0 : (allTotalBytes - allBytes) / left;
    this.#draw(allBytes, allTotalBytes, [downloadText(progress, rate)]);
  }

  /** Removes the line; the next update draws it again. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = null;
  }

  #begin(stage: string): void {
    if (stage === this.#stage) return;
    this.stop();
    this.#stage = stage;
    this.#pace = new Pace();
  }

  #draw(value: number, total: number, parts: readonly string[]): void {
    const payload: Payload = { stage: inLine(this.#stage), parts: parts.map(inLine) };
    if (this.#bar === null) {
      this.#bar = this.#create!();
      this.#bar.start(total, value, payload);
    } else {
      this.#bar.setTotal(total);
      this.#bar.update(value, payload);
    }
  }
}

function inLine(text: string): string {
  return printable(text).replaceAll("\n", " ");
}

/** Says what libraries tell while a progress line may stand there: warnings always, the rest as notes. */
export function tellerOf(context: CliContext, progress: Progress): (message: string) => void {
  return (message) => {
    progress.stop();
    const say = message.startsWith("warning: ") ? context.stderr : context.note;
    say(`${message}\n`);
  };
}

/** How far a download is, in words. @param rate bytes a second; 0 when it is not known yet */
export function downloadText(progress: DownloadProgress, rate: number): string {
  const { allBytes, allTotalBytes, fileNumber, fileCount } = progress;
  const [unit, name] = allTotalBytes >= 1e9 ? [1e9, "GB"] : [1e6, "MB"];
  const parts = [
    `${(allBytes / unit).toFixed(1)}/${(allTotalBytes / unit).toFixed(1)} ${name}`,
    `file ${fileNumber} of ${fileCount}`,
  ];
  if (rate > 0) parts.push(`${(rate / 1e6).toFixed(1)} MB/s`, `${clock((allTotalBytes - allBytes) / rate)} left`);
  return parts.join(", ");
}
