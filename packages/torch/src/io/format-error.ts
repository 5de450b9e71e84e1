/** The one error of the file readers: which file, which rule it breaks, and where. */
import { TorchError } from "../errors.js";
import { describeStandIn, STAND_IN_BYTES } from "./stand-in.js";

/** Characters of a reason, and of a tensor's name in a message: both hold what a file says, and a file may say much. */
const MAX_REASON = 1000;
const MAX_NAME = 200;

/** What a {@link FormatError} says. */
export interface FormatErrorDetails {
  /** The file. */
  path: string;
  /** Stable name of the broken rule, e.g. `HeaderTooLarge`. */
  rule: string;
  /** What is wrong, as a sentence fragment. */
  message: string;
  /** The tensor concerned, where there is one. */
  tensor?: string | undefined;
  /** Position in the file, in bytes from its start. */
  byteOffset?: number | undefined;
}

/** A file that breaks the rules of its format: which file, which rule, and where. */
export class FormatError extends TorchError {
  override name = "FormatError";
  /** The file. */
  readonly path: string;
  /** Stable name of the broken rule, e.g. `HeaderTooLarge`. */
  readonly rule: string;
  /** What is wrong, as a sentence fragment. */
  readonly reason: string;
  /** The tensor concerned, where there is one. */
  readonly tensor?: string;
  /** Position in the file, in bytes from its start. */
  readonly byteOffset?: number;

  constructor({ path, rule, message, tensor, byteOffset }: FormatErrorDetails) {
    const reason = cut(message, MAX_REASON);
    const where = [
      path,
      tensor === undefined ? "" : `tensor ${JSON.stringify(cut(tensor, MAX_NAME))}`,
      byteOffset === undefined ? "" : `byte ${byteOffset}`,
    ];
    super(`${where.filter(Boolean).join(", ")}: ${reason} (${rule})`);
    this.path = path;
    this.rule = rule;
    this.reason = reason;
    this.tensor = tensor;
    this.byteOffset = byteOffset;
  }
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

/**
 * Refuses what a clone without Git LFS or a server left in place of a file. @throws FormatError that says what it is
 */
export function refuseStandIn(file: {
  path: string;
  sizeBytes: number;
  read(offset: number, length: number): Uint8Array;
}): void {
  const what = describeStandIn(file.read(0, Math.min(file.sizeBytes, STAND_IN_BYTES)));
  if (what !== null) throw new FormatError({ path: file.path, rule: "StandIn", message: what, byteOffset: 0 });
}
