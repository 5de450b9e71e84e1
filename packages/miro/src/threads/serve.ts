/** The inside of a thread: methods that {@link Thread.call} calls. */
import { parentPort } from "node:worker_threads";
import { loadModules } from "../extension-modules.js";
import { errorFromData, errorToData, type FromThread, type ToThread } from "./messages.js";

/** What a method of a thread works with. */
export interface CallContext {
  /** Aborted when the caller gives up. */
  signal: AbortSignal;
  /** Whether the caller listens to an event. */
  listens(event: string): boolean;
  /**
   * Tells the caller, and waits until its listener has finished; at once where nobody listens.
   * @throws what the listener throws; the signal is aborted then
   */
  emit(event: string, value: unknown, transfer?: readonly ArrayBuffer[]): Promise<void>;
}

/** A method; its result is plain data. */
export type ThreadMethod = (argument: never, context: CallContext) => Promise<unknown>;

/** Answers calls of the thread that started this one, each as soon as it comes. */
export function serve(methods: Readonly<Record<string, ThreadMethod>>): void {
  if (parentPort === null) throw new Error("serve: this is no worker thread");
  const port = parentPort;
  const post = (message: FromThread, transfer: readonly ArrayBuffer[] = []) => port.postMessage(message, [...transfer]);
  const aborts = new Map<number, AbortController>();
  /** Events whose listeners have not finished, by call and number. */
  const unheard = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  let events = 0;

  port.on("message", (message: ToThread) => {
    if (message.type === "abort") aborts.get(message.id)?.abort();
    else if (message.type === "heard") {
      const key = `${message.id}:${message.event}`;
      const waiting = unheard.get(key);
      unheard.delete(key);
      if (message.error) waiting?.reject(errorFromData(message.error));
      else waiting?.resolve();
    } else void answer(message);
  });

  async function answer({ id, method, argument, listens, modules }: ToThread & { type: "call" }): Promise<void> {
    const abort = new AbortController();
    aborts.set(id, abort);
    const context: CallContext = {
      signal: abort.signal,
      listens: (event) => listens.includes(event),
      emit: (name, value, transfer) => {
        if (!listens.includes(name)) return Promise.resolve();
        const event = events++;
        const heard = new Promise<void>((resolve, reject) => {
          unheard.set(`${id}:${event}`, { resolve, reject });
          post({ type: "event", id, event, name, value }, transfer);
        });
        // A failure of which the caller hears ends this call, and not the thread, where a method does not wait for it.
        heard.catch(() => abort.abort());
        return heard;
      },
    };
    try {
      await loadModules(modules);
      const value = await methods[method]!(argument as never, context);
      post({ type: "result", id, value });
    } catch (error) {
      post({ type: "error", id, error: errorToData(error) });
    } finally {
      aborts.delete(id);
    }
  }
}
