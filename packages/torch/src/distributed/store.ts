// Where processes meet: c10d's TCPStore and FileStore, small key-value stores that hold the addresses of the ranks.
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { connect } from "node:net";
import { TorchError } from "../errors.js";
import { writeError } from "../io/atomic-write.js";
import { native } from "../native.js";
import { awaited } from "./awaited.js";

/** Options of {@link RendezvousStore.tcp}. */
export interface TcpStoreOptions {
  /** Name or address of the machine that serves the store. */
  host: string;
  /** Its port; 0 lets the serving process choose a free one (see {@link RendezvousStore.port}). */
  port: number;
  /** Whether this process serves the store: exactly one must, a rank or the process that starts the ranks. */
  serves: boolean;
  /** How long to try to reach the server, and what the ranks wait for each other, in milliseconds. */
  timeoutMs?: number | undefined;
  /** What all keys begin with, where others use the same store; without it nothing. PyTorch: `PrefixStore`. */
  prefix?: string | undefined;
  /** Ends the wait for the server. */
  signal?: AbortSignal | undefined;
}

/** How long an operation between processes may take when nothing else is said: ten minutes. */
export const DEFAULT_TIMEOUT_MS = 600_000;

/** A meeting point of processes. The serving process must keep it until all groups that use it are destroyed. */
export class RendezvousStore {
  #id: number | undefined;
  /** The port of a TCP store (the chosen one, if 0 was asked for); 0 for a file. */
  readonly port: number;

  private constructor(id: number) {
    this.#id = id;
    this.port = native.storePort(id);
  }

  /**
   * A store that one process serves over TCP.
   * @throws TorchError when the port is taken, or the server is not reached within the timeout
   */
  static async tcp(options: TcpStoreOptions): Promise<RendezvousStore> {
    const { host, port, serves, timeoutMs = DEFAULT_TIMEOUT_MS, prefix = "", signal } = options;
    try {
      const opening = native.storeTcp(host, port, serves, timeoutMs, prefix);
      // libtorch looks at the clock between its attempts, not in each of them.
      const limit = { ms: timeoutMs + GRACE_MS, message: UNANSWERED };
      return new RendezvousStore(await awaited(opening, native.storeFree, { signal, limit }));
    } catch (error) {
      if (signal?.aborted) throw error;
      const reason = firstLine(error).replace(/\.$/, "");
      // A served store is reached too, by its own process, under the name that the others know.
      const isServed =
        serves && reason !== UNANSWERED && !/client socket|network address of|ping|validat/i.test(reason);
      const what = isServed ? "could not be served" : `was not reached within ${timeoutMs} ms`;
      const todo = isServed ? "choose another port, or 0" : await advice(options, reason);
      throw new TorchError(`the store at ${host}:${port} ${what}: ${reason}; ${todo}`, { cause: error });
    }
  }

  /**
   * A store in a file that every process can reach and that no earlier group has used.
   * @param worldSize number of processes that will use it; the last one to leave removes the file
   * @throws TorchError when the file cannot be written
   */
  static async file(path: string, worldSize: number, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<RendezvousStore> {
    try {
      await (await open(path, "a")).close(); // libtorch would wait for the folder, for five minutes
    } catch (error) {
      throw writeError(path, error);
    }
    return new RendezvousStore(await native.storeFile(path, worldSize, timeoutMs));
  }

  /** @internal */
  get id(): number {
    if (this.#id === undefined) throw new TorchError("this store was closed");
    return this.#id;
  }

  /** Keeps a text under a key, in place of an earlier one. All processes have it as soon as the promise resolves. */
  async set(key: string, text: string): Promise<void> {
    await native.storeSet(this.id, key, text);
  }

  /** The text that is kept under a key; empty where there is none. Unlike PyTorch's, it does not wait for one. */
  async get(key: string): Promise<string> {
    return native.storeGet(this.id, key);
  }

  /** Lets go of the store; a served one ends with the last group that uses it. */
  close(): void {
    if (this.#id !== undefined) native.storeFree(this.#id);
    this.#id = undefined;
  }
}

/** Why a store was not reached that libtorch waits for without end. */
const UNANSWERED = "no answer of a store";
/** How much longer than asked libtorch may take to say itself what is wrong, in milliseconds; a second is usual. */
const GRACE_MS = 5000;

/** What to do about a store that was not reached. */
async function advice({ host, port, serves }: TcpStoreOptions, reason: string): Promise<string> {
  const isKnown = await lookup(host).then(
    () => true,
    () => false,
  );
  if (!isKnown) return `this machine does not know the name ${host}`;
  if (/ping|validat/i.test(reason) || (reason === UNANSWERED && (await isTaken(host, port))))
    return "something else answers there: choose another port";
  return serves
    ? `check that ${host} is this machine, which serves it`
    : "check that the first rank runs there and that the port is open";
}

/** Whether something takes connections. */
async function isTaken(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port, signal: AbortSignal.timeout(GRACE_MS) });
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** The first line of an error: libtorch adds a stack of its own to some. */
export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0]!.trim();
}
