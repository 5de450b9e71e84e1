/**
 * A file that a run appends records to. A training must not end because a disk is full or a file server is away for a
 * while: what cannot be written waits in memory, in order, and is tried again with the next record.
 */
import fs from "node:fs";
import { systemReason } from "../../errors.js";
import { counted, plural } from "../../numbers.js";

/** What waits at most; records beyond are lost. */
const MAX_WAITING_BYTES = 64 * 2 ** 20;

export class LogFile {
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #lost = 0;
  #inTrouble = false;
  readonly #descriptor: number;
  readonly #onTrouble: (message: string) => void;

  /**
   * @param descriptor opened for appending
   * @param onTrouble called once when writing fails, when it works again, and at the end if records are lost
   */
  constructor(
    readonly path: string,
    descriptor: number,
    onTrouble: (message: string) => void = () => {},
  ) {
    this.#descriptor = descriptor;
    this.#onTrouble = onTrouble;
  }

  append(record: Buffer): void {
    const isFull = () => this.#waitingBytes + record.length > MAX_WAITING_BYTES;
    if (isFull()) this.#flush();
    if (isFull()) {
      this.#lost++;
      return;
    }
    this.#waiting.push(record);
    this.#waitingBytes += record.length;
    this.#flush();
  }

  close(): void {
    this.#flush();
    const lost = this.#lost + this.#waiting.length;
    if (lost > 0)
      this.#onTrouble(
        `${this.path}: ${counted(lost, "record")} could not be written and ${plural(lost, "is", "are")} lost`,
      );
    try {
      fs.fsyncSync(this.#descriptor);
    } catch {
      // Some file systems refuse; what could be written is in the file.
    }
    fs.closeSync(this.#descriptor);
  }

  #flush(): void {
    try {
      while (this.#waiting.length > 0) {
        // One call for a record: a killed process leaves whole records, or one that is cut off at the end.
        const first = this.#waiting[0]!;
        const count = fs.writeSync(this.#descriptor, first);
        this.#waitingBytes -= count;
        if (count < first.length) this.#waiting[0] = first.subarray(count);
        else this.#waiting.shift();
      }
      if (this.#inTrouble) this.#onTrouble(`${this.path}: is written again`);
      this.#inTrouble = false;
    } catch (error) {
      if (!this.#inTrouble)
        this.#onTrouble(`${this.path}: cannot be written: ${systemReason(error)}; the run goes on, its records wait`);
      this.#inTrouble = true;
    }
  }
}
