/** Runs a command line in this process and keeps what it prints, as a program without a terminal would get it. */
import { run } from "../main.js";

/** What a command left behind. */
export interface Captured {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `miro ARGS…`. */
export async function runCaptured(...args: readonly string[]): Promise<Captured> {
  const captured = { stdout: "", stderr: "" };
  const code = await run(args, {
    stdout: (text) => {
      captured.stdout += text;
    },
    stderr: (text) => {
      captured.stderr += text;
    },
    interactive: false,
    signal: new AbortController().signal,
  });
  return { code, ...captured };
}
