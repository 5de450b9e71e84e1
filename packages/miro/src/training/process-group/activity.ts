/**
 * What a process of the group does, in memory that a thread of its own reads: while the process waits for the others
 * in a backward pass it can say nothing itself.
 */

/** What a process does. */
export interface Doing {
  /** Operations of the group that it has begun. All processes begin the same ones in the same order. */
  begun: number;
  /** Whether it waits until all have come to the last of them. */
  isInside: boolean;
  /** The operation, or what it does between two. */
  what: string;
  sinceMs: number;
}

const TEXT_BYTES = 256;

/** In memory: the time (8 bytes), operations begun, whether inside, bytes of the text (4 bytes each), the text. */
export class Activity {
  readonly memory: SharedArrayBuffer;
  readonly #since: Float64Array;
  readonly #numbers: Int32Array;
  readonly #text: Uint8Array;

  constructor(memory = new SharedArrayBuffer(20 + TEXT_BYTES)) {
    this.memory = memory;
    this.#since = new Float64Array(memory, 0, 1);
    this.#numbers = new Int32Array(memory, 8, 3);
    this.#text = new Uint8Array(memory, 20);
  }

  /** An operation of the group begins. */
  enter(operation: string): void {
    this.#set(this.#numbers[0]! + 1, true, operation);
  }

  /** It waits for operations of the group that it has begun before, as a GPU carries them out later. */
  wait(operation: string): void {
    this.#set(this.#numbers[0]!, true, operation);
  }

  /** It does something else, by itself. */
  note(what: string): void {
    this.#set(this.#numbers[0]!, false, what);
  }

  read(): Doing {
    const [begun, isInside, bytes] = this.#numbers as unknown as [number, number, number];
    const what = Buffer.from(this.#text.slice(0, bytes)).toString();
    return { begun, isInside: isInside === 1, what, sinceMs: now() - this.#since[0]! };
  }

  #set(begun: number, isInside: boolean, what: string): void {
    this.#since[0] = now();
    this.#numbers.set([begun, Number(isInside), Buffer.from(what).copy(this.#text)]);
  }
}

/** A time that all threads count alike. */
function now(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
