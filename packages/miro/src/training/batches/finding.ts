/** Checks of a dry run, whose errors are what it finds. */
import type { Message } from "../../message.js";

/** One thing that a dry run looked at. */
export interface DataCheck {
  /** `ok`; `missing`: training cannot start; `note`: it can. */
  status: "ok" | "missing" | "note";
  /** What it is about: a folder, a file, a setting. */
  subject: string;
  finding: string;
  /** The command, or the change, that puts it right. */
  remedy?: string | Message;
}

/** Runs a check whose errors are findings. @param remedy what puts it right */
export function finding(subject: string, check: () => string, remedy?: DataCheck["remedy"]): DataCheck {
  try {
    return { status: "ok", subject, finding: check() };
  } catch (error) {
    return faultOf(subject, error, remedy);
  }
}

/** As {@link finding}, for a check that takes its time. */
export async function findingLater(
  subject: string,
  check: () => Promise<string>,
  remedy?: DataCheck["remedy"],
): Promise<DataCheck> {
  try {
    return { status: "ok", subject, finding: await check() };
  } catch (error) {
    return faultOf(subject, error, remedy);
  }
}

function faultOf(subject: string, error: unknown, remedy: DataCheck["remedy"]): DataCheck {
  if (!(error instanceof Error) || error instanceof TypeError) throw error;
  const told = error.message.startsWith(`${subject}: `) ? error.message.slice(subject.length + 2) : error.message;
  return { status: "missing", subject, finding: told, ...(remedy !== undefined && { remedy }) };
}

/** Those that would stop a run. */
export function missing(checks: readonly DataCheck[]): DataCheck[] {
  return checks.filter(({ status }) => status === "missing");
}
