/** Runs a command line in this process and keeps what it prints, as a program without a terminal would get it. */
import { run } from "../main.js";

/** What a command left behind. */
export interface Captured {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `miro ARGS…`. */
export function runCaptured(...args: readonly string[]): Promise<Captured> {
  return runStoppable(args, new AbortController().signal);
}

/** As {@link runCaptured}, until a signal says to stop. */
export async function runStoppable(args: readonly string[], signal: AbortSignal): Promise<Captured> {
  const captured = { stdout: "", stderr: "" };
  const code = await run(args, {
    stdout: (text) => {
      captured.stdout += text;
    },
    stderr: (text) => {
      captured.stderr += text;
    },
    interactive: false,
    signal,
  });
  return { code, ...captured };
}
