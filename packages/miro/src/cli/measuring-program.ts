/** Programs that measure for minutes, part by part: a bar, notes above it, and a Ctrl-C that leaves what is done. */
import type { z } from "zod";
import { onStop } from "../stop-requests.js";
import type { quietOptions } from "./common-options.js";
import { hasColours } from "./paint.js";
import { type Program, runProgram } from "./program.js";
import { Progress } from "./progress.js";

/** What a measuring program works with. */
export interface Measuring {
  /** Aborted by the first Ctrl-C. */
  signal: AbortSignal;
  progress: Progress;
  /** Writes a note above the bar; nothing under `--quiet`. */
  note(text: string): void;
}

/** A program, and what it leaves when it is interrupted. */
export interface MeasuringProgram<S extends typeof quietOptions> extends Omit<Program<S>, "run"> {
  /** What is kept, and where: "parts that are done are in runs/emoji-evaluation". */
  kept(options: z.output<S>): string;
  /** Does the work. @returns what goes to stdout */
  run(options: z.output<S>, measuring: Measuring): Promise<string>;
}

/** As {@link runProgram}; 130 where Ctrl-C stopped the program. */
export async function runMeasuringProgram<S extends typeof quietOptions>({
  kept,
  run,
  ...program
}: MeasuringProgram<S>): Promise<number> {
  const interrupt = new AbortController();
  const { signal } = interrupt;
  // The first Ctrl-C stops at the next step and leaves the parts that are done; the second one does not wait.
  onStop({ stop: () => interrupt.abort(), stopAtOnce: () => process.exit(130) });
  return runProgram({
    ...program,
    async run(options) {
      const { quiet } = options;
      const progress = await Progress.for({
        interactive: Boolean(process.stderr.isTTY) && !quiet,
        colours: { stdout: false, stderr: hasColours(process.stderr) },
        note: (text) => void (quiet || process.stderr.write(text)),
      });
      const note = (text: string) => {
        progress.stop();
        if (!quiet) process.stderr.write(`${text}\n`);
      };
      try {
        const result = await run(options, { signal, progress, note });
        progress.stop();
        process.stdout.write(result);
        return 0;
      } catch (error) {
        if (!signal.aborted) throw error;
        progress.stop();
        process.stderr.write(`Interrupted: ${kept(options)}\n`);
        return 130;
      } finally {
        progress.stop();
      }
    },
  });
}
