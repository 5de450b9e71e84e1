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
  const { code, path, dest } = error as NodeJS.ErrnoException & { dest?: string };
  // Of a copy it is the new file that was refused, where the old one was found.
  const subject = code === "ENOENT" ? path : (dest ?? path);
  return oneLine(isOfSystem(error) ? `${subject ? `${subject}: ` : ""}${systemReason(error)}` : error.message);
}

function isOfSystem({ code, syscall }: NodeJS.ErrnoException): boolean {
  return Boolean(code && syscall);
}
