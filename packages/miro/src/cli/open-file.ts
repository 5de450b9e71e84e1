/** Opening what was made with the programs of the desktop. */
import { spawn } from "node:child_process";
import type { CliContext } from "./context.js";

/** How long a program that opens may take until it says that it cannot; a viewer may stay as long as it likes. */
const REFUSAL_MS = 1500;

/** The program that opens files and addresses by what is set up for them. */
const OPENER = process.platform === "darwin" ? "open" : "xdg-open";

/** What an exit code of the opener says. */
function refusal(code: number): string {
  // Of xdg-open: no program that could be asked.
  return OPENER === "xdg-open" && code === 3
    ? "xdg-open knows no program for it here; --show shows pictures in some terminals"
    : `${OPENER} ended with exit code ${code}`;
}

/**
 * Opens a file, a folder or an address. What comes of it is not waited for; that it cannot be opened is a warning.
 */
export async function openWithDesktop(target: string, context: CliContext): Promise<void> {
  const failure = await new Promise<string | null>((resolve) => {
    const child = spawn(OPENER, [target], { stdio: "ignore", detached: true });
    const timer = setTimeout(() => resolve(null), REFUSAL_MS);
    const end = (reason: string | null) => {
      clearTimeout(timer);
      resolve(reason);
    };
    child.on("error", (error: NodeJS.ErrnoException) =>
      end(error.code === "ENOENT" ? `${OPENER} is missing (package xdg-utils)` : error.message),
    );
    child.on("exit", (code) => end(code === 0 || code === null ? null : refusal(code)));
    child.unref();
  });
  if (failure !== null) context.stderr(`warning: ${target} could not be opened: ${failure}\n`);
}
