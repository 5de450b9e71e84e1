/** The one error of the file readers: which file, which rule it breaks, and where. */
import { TorchError } from "../errors.js";

export interface FormatErrorDetails {
  path: string;
  /** Stable name of the broken rule, e.g. `HeaderTooLarge`. */
  rule: string;
  /** What is wrong, as a sentence fragment. */
  message: string;
  /** The tensor concerned, where there is one. */
  tensor?: string;
  /** Position in the file, in bytes from its start. */
  byteOffset?: number;
}

export class FormatError extends TorchError {
  override name = "FormatError";
  readonly path: string;
  readonly rule: string;
  readonly tensor?: string;
  readonly byteOffset?: number;

  constructor({ path, rule, message, tensor, byteOffset }: FormatErrorDetails) {
    const where = [
      path,
      tensor === undefined ? "" : `tensor ${JSON.stringify(tensor)}`,
      byteOffset === undefined ? "" : `byte ${byteOffset}`,
    ];
    super(`${where.filter(Boolean).join(", ")}: ${message} (${rule})`);
    this.path = path;
    this.rule = rule;
    this.tensor = tensor;
    this.byteOffset = byteOffset;
  }
}
