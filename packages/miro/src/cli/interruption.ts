/** What a command that is stopped leaves, and how it goes on. */
import { InterruptedError } from "../errors.js";
import type { Message } from "../message.js";
import type { CliContext } from "./context.js";

/** The same command does what is left. */
export const SAME_COMMAND = "the same command goes on";

/**
 * Does work that takes long.
 *
 * @param left what is done and how to go on, for the one line that a command ends with when it is stopped
 */
export async function untilStopped<T>(
  { signal }: CliContext,
  left: () => string | Message,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new InterruptedError(left(), { cause: error });
  }
}
