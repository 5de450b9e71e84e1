/**
 * Fills the rows of a tensor from open files, on a thread of libuv's pool and without a copy in JavaScript.
 *
 * Reads are positional; nothing is mapped, so a file that is cut short while it is open is a status and not a fault.
 */
import { native } from "../native.js";
import type { Tensor } from "../tensor.js";

/** What became of a row. Rows that were not read hold zeros. */
export const ROW_STATUS = {
  /** All its bytes are there. */
  read: 0,
  /** The file ends before them. */
  short: 1,
  /** The operating system refused. */
  failed: 2,
  /** The file is not of the size and time that were given: what was read may be anything. */
  changed: 3,
  /** The read was cancelled first. */
  skipped: 4,
} as const;

/** What {@link readRows} reads. */
export interface ReadRowsOptions {
  /** An open file for each row. It must stay open until the promise is settled. */
  descriptors: Int32Array;
  /**
   * Four numbers a row: offset and length in bytes, the file's size in bytes, its modification time in microseconds.
   */
  places: Float64Array;
  /** One number; anything but 0 stops the read at the next row. */
  cancelled: Int32Array;
}

/**
 * Reads each row's bytes to its beginning and fills the rest of the row with zeros.
 *
 * @param target (R, …), contiguous, on the CPU; kept alive until the promise is settled
 * @returns a status for each row, see {@link ROW_STATUS}
 * @throws TorchError when the arguments do not fit one another; never rejects for a file
 */
export function readRows(target: Tensor, { descriptors, places, cancelled }: ReadRowsOptions): Promise<Uint8Array> {
  return native.readRows(target.handle, descriptors, places, cancelled);
}
