/** What a user reads of an error: one line, in the words of the command line. */
import { MiroError, systemReason } from "../errors.js";
import { oneLine } from "../printable.js";
import { type FlagNames, withFlags } from "./flag-names.js";

/** Whether an error is one that a user is meant to read: of this package, or of the system. */
export function isForUsers(error: unknown): boolean {
  return error instanceof MiroError || isOfSystem(error as NodeJS.ErrnoException);
}

/** The line of an error. */
export function failureText(error: unknown, names: FlagNames): string {
  if (error instanceof MiroError) return oneLine(withFlags(error.wording, names));
  if (!(error instanceof Error)) return oneLine(String(error));
  const { path } = error as NodeJS.ErrnoException;
  return oneLine(isOfSystem(error) ? `${path ? `${path}: ` : ""}${systemReason(error)}` : error.message);
}

function isOfSystem({ code, syscall }: NodeJS.ErrnoException): boolean {
  return Boolean(code && syscall);
}
