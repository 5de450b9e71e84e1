/** A thread with methods: calls go in, events and results come out, errors and cancelling pass both ways. */
import type { Worker } from "node:worker_threads";
import { letManyListen } from "../abort-signals.js";
import { startThread } from "../compiled-module.js";
import { MiroError } from "../errors.js";
import { extensionModules } from "../extension-modules.js";
import { errorFromData, errorToData, type FromThread, type ToThread } from "./messages.js";

/** Hears the events of a call; the thread waits for what it returns. */
export type Listener = (value: never, rest: Rest) => unknown;
/** Waits for the caller, who may never come back: meanwhile a call does not keep the process alive. */
export type Rest = (until: Promise<void>) => Promise<void>;

/** Options of {@link Thread.call}. */
export interface CallOptions {
  /** Listeners by event. */
  on?: Readonly<Record<string, Listener | undefined>>;
  /** Stops the call, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

interface Call {
  on: Readonly<Record<string, Listener | undefined>>;
  signal: AbortSignal | undefined;
  /** Stack frames of who called. */
  caller: string;
  /** Whether its listener is in {@link Rest}. */
  resting: boolean;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** A running thread. It keeps the process alive only while a call works in it. */
export class Thread {
  readonly #worker: Worker;
  readonly #calls = new Map<number, Call>();
  #next = 0;
  #ended: Error | null = null;

  /** @param module that calls `serve`, from the package's source folder: `pipeline/pipeline-thread.js` */
  constructor(module: string) {
    this.#worker = startThread(module);
    this.#worker.on("message", (message: FromThread) => void this.#receive(message));
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", () => this.#fail(new MiroError("the thread has ended")));
    this.#worker.unref();
  }

  /** Whether it has ended, also by itself: calls are rejected then. */
  get hasEnded(): boolean {
    return this.#ended !== null;
  }

  /**
   * Calls a method of the thread. Several calls run beside each other.
   *
   * @throws what the method throws, the signal's reason, or MiroError when the thread ends
   */
  async call<T>(method: string, argument: unknown, { on = {}, signal }: CallOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    if (this.#ended) throw this.#ended;
    if (signal) letManyListen(signal);
    const id = this.#next++;
    const caller = new Error().stack?.split("\n").slice(2).join("\n") ?? "";
    const abort = () => this.#post({ type: "abort", id });
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#calls.set(id, {
          on,
          signal,
          caller,
          resting: false,
          resolve: resolve as (value: unknown) => void,
          reject,
        });
        this.#holdProcess();
        const listens = Object.keys(on).filter((name) => on[name] !== undefined);
        this.#post({ type: "call", id, method, argument, listens, modules: extensionModules() });
        signal?.addEventListener("abort", abort, { once: true });
      });
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#calls.delete(id);
      this.#holdProcess();
    }
  }

  #holdProcess(): void {
    // A thread that is being ended keeps the process until it has ended.
    if ([...this.#calls.values()].some(({ resting }) => !resting)) this.#worker.ref();
    else if (this.#ended === null) this.#worker.unref();
  }

  /**
   * Ends the thread and frees everything in it.
   * @param reason what calls that run, and later ones, are rejected with
   */
  async end(reason: Error): Promise<void> {
    this.#fail(reason);
    await this.#worker.terminate();
  }

  #post(message: ToThread): void {
    if (this.#ended === null) this.#worker.postMessage(message);
  }

  #fail(error: Error): void {
    this.#ended ??= error;
    for (const call of this.#calls.values()) call.reject(this.#ended);
  }

  async #receive(message: FromThread): Promise<void> {
    const call = this.#calls.get(message.id);
    if (message.type === "event") {
      const { id, event } = message;
      const rest: Rest = async (until) => {
        call!.resting = true;
        this.#holdProcess();
        await until;
        call!.resting = false;
        this.#holdProcess();
      };
      try {
        await call?.on[message.name]?.(message.value as never, rest);
        this.#post({ type: "heard", id, event });
      } catch (error) {
        // The listener's own error reaches the caller; in the thread it only ends the work.
        call?.reject(error);
        this.#post({ type: "heard", id, event, error: errorToData(error) });
      }
    } else if (message.type === "result") call?.resolve(message.value);
    else call?.reject(call.signal?.aborted ? call.signal.reason : errorFromData(message.error, call.caller));
  }
}
