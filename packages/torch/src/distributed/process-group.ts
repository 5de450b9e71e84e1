// Process groups: a number of processes (ranks 0 … worldSize−1) that all call the same collectives in the same order.
// The work is c10d's, by Gloo between processors and NCCL between GPUs, and needs no Python.
import { TorchError } from "../errors.js";
import { type Handle, native } from "../native.js";
import { type Tensor, wrap } from "../tensor.js";
import { awaited } from "./awaited.js";
import { DEFAULT_TIMEOUT_MS, firstLine, RendezvousStore } from "./store.js";

/**
 * `gloo` for tensors on the processor; `nccl`, where the engine was built with it, for tensors on the first GPU that
 * the process sees (`CUDA_VISIBLE_DEVICES` says which one that is).
 */
export type ProcessGroupBackend = "gloo" | "nccl";
/** What {@link ProcessGroup.allReduce} makes of the ranks' values: sum, mean, maximum or minimum. */
export type ReduceOperation = "sum" | "avg" | "max" | "min";

/** Options of {@link initProcessGroup}; names as in PyTorch. */
export interface InitProcessGroupOptions {
  /** `gloo` by default. */
  backend?: ProcessGroupBackend | undefined;
  /**
   * Where the ranks meet: `tcp://host:port` (served by rank 0), `file:///path` (a file that does not exist yet), or
   * `env://`, the default: `MASTER_ADDR` and `MASTER_PORT`.
   */
  initMethod?: string | undefined;
  /** A store made beforehand, instead of `initMethod`. The caller closes it. */
  store?: RendezvousStore | undefined;
  /** This process's number; `RANK` by default. */
  rank?: number | undefined;
  /** The number of processes; `WORLD_SIZE` by default. */
  worldSize?: number | undefined;
  /**
   * How long to wait for the other ranks, at the start and in each collective, in milliseconds; ten minutes by default.
   */
  timeoutMs?: number | undefined;
  /** Ends the wait for the other ranks at the start. */
  signal?: AbortSignal | undefined;
}

/**
 * Joins the processes of a group; resolves when all of them have come. PyTorch: `torch.distributed.init_process_group`.
 *
 * On one machine set `GLOO_SOCKET_IFNAME=lo` where its host name leads to no usable address.
 *
 * @throws TorchError for wrong or missing options, and when the ranks do not meet within the timeout
 *
 * @example
 * ```ts
 * const group = await initProcessGroup(); // RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them
 * await group.allReduce(loss, "avg");
 * await group.destroy();
 * ```
 */
export async function initProcessGroup(options: InitProcessGroupOptions = {}): Promise<ProcessGroup> {
  const { backend = "gloo", timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  if (backend !== "gloo" && backend !== "nccl")
    throw new TorchError(`initProcessGroup: backend must be "gloo" or "nccl", got ${JSON.stringify(backend)}`);
  const worldSize = options.worldSize ?? fromEnvironment("WORLD_SIZE", "worldSize");
  const rank = options.rank ?? fromEnvironment("RANK", "rank");
  if (!Number.isInteger(worldSize) || worldSize < 1)
    throw new TorchError(`initProcessGroup: worldSize must be a whole number from 1, got ${worldSize}`);
  if (!Number.isInteger(rank) || rank < 0 || rank >= worldSize)
    throw new TorchError(`initProcessGroup: rank must be between 0 and worldSize − 1 = ${worldSize - 1}, got ${rank}`);
  if (!Number.isInteger(timeoutMs) || timeoutMs < 1)
    throw new TorchError(`initProcessGroup: timeoutMs must be a whole number from 1, got ${timeoutMs}`);
  if (options.store !== undefined && options.initMethod !== undefined)
    throw new TorchError("initProcessGroup: give either store or initMethod, not both");

  const own = options.store === undefined;
  const store =
    options.store ?? (await openStore(options.initMethod ?? "env://", { rank, worldSize, timeoutMs, signal }));
  try {
    const joining = native.groupNew(store.id, backend, rank, worldSize, timeoutMs);
    const id = await awaited(joining, native.groupFree, { signal });
    return new ProcessGroup(id, { backend, rank, worldSize, timeoutMs });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw collectiveError({ backend, rank, worldSize, timeoutMs }, "initProcessGroup", error);
  } finally {
    if (own) store.close(); // the group holds what it needs of it
  }
}

function fromEnvironment(name: string, option: string): number {
  const text = process.env[name];
  if (text === undefined || text === "")
    throw new TorchError(`initProcessGroup: neither the option ${option} nor the variable ${name} is set`);
  if (!/^\d+$/.test(text)) throw new TorchError(`initProcessGroup: ${name} must be a whole number, got "${text}"`);
  return Number(text);
}

interface Meeting {
  rank: number;
  worldSize: number;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}

async function openStore(method: string, { rank, worldSize, timeoutMs, signal }: Meeting): Promise<RendezvousStore> {
  const shared = { timeoutMs, signal };
  if (method === "env://") {
    const host = process.env.MASTER_ADDR;
    if (!host)
      throw new TorchError("initProcessGroup: neither the option initMethod nor the variable MASTER_ADDR is set");
    const port = fromEnvironment("MASTER_PORT", "initMethod");
    return RendezvousStore.tcp({ host, port, ...shared, ...servedBy(process.env, rank) });
  }
  const tcp = /^tcp:\/\/(\[[^\]]+\]|[^:/[\]]+):(\d{1,5})$/.exec(method);
  if (tcp !== null) {
    const host = tcp[1]!.replace(/^\[|\]$/g, "");
    return RendezvousStore.tcp({ host, port: Number(tcp[2]), serves: rank === 0, ...shared });
  }
  const file = /^file:\/\/(\/.+)$/.exec(method);
  if (file !== null) return RendezvousStore.file(file[1]!, worldSize, timeoutMs);
  throw new TorchError(
    `initProcessGroup: initMethod must be tcp://host:port, file:///path or env://, got ${JSON.stringify(method)}`,
  );
}

/**
 * Who serves the store at `MASTER_ADDR`: rank 0, or torchrun, whose store lives on when it starts all ranks again, so
 * that each time has keys of its own.
 */
export function servedBy(environment: NodeJS.ProcessEnv, rank: number): { serves: boolean; prefix?: string } {
  if (environment.TORCHELASTIC_USE_AGENT_STORE !== "True") return { serves: rank === 0 };
  return { serves: false, prefix: `/worker/attempt_${environment.TORCHELASTIC_RESTART_COUNT ?? 0}` };
}

/** @throws TorchError for an operation that there is not, or not for the tensor's dtype */
function checkReduction(name: string, t: Tensor, operation: ReduceOperation): void {
  if (!["sum", "avg", "max", "min"].includes(operation))
    throw new TorchError(`${name}: the operation must be sum, avg, max or min, got ${JSON.stringify(operation)}`);
  if (operation === "avg" && !["float32", "float64", "float16", "bfloat16"].includes(t.dtype))
    throw new TorchError(`${name}: an average needs a floating tensor, got ${t.dtype}`);
}

interface Membership {
  readonly backend: ProcessGroupBackend;
  readonly rank: number;
  readonly worldSize: number;
  readonly timeoutMs: number;
}

/** What Gloo says happened, without its own source file and its general advice. */
function glooReason(line: string): string {
  return line.replace(/^(?:backward: )?\[\S+\.(?:cc|h):\d+\] /, "").replace(/\. This is typically caused by .*$/, "");
}

/** One line about a failed operation between processes: the rank, the operation, what happened, what to do. */
function collectiveError(group: Membership, operation: string, error: unknown): TorchError {
  const reason = glooReason(firstLine(error));
  const absent = /keys: \/miro\/0\/(\d+)/.exec(reason)?.[1];
  let what = reason;
  if (absent !== undefined) what = `rank ${absent} has not come within ${group.timeoutMs} ms, and perhaps others`;
  else if (/tim(ed|e) ?out/i.test(reason))
    what = `the other ranks did not answer within ${group.timeoutMs} ms (${reason})`;
  else if (/closed|reset by peer|refused|broken pipe/i.test(reason)) what = `another rank has ended (${reason})`;
  return new TorchError(
    `${operation} failed on rank ${group.rank} of ${group.worldSize} (${group.backend}): ${what}; see what the other ranks reported and start all of them again`,
    { cause: error },
  );
}

/**
 * Processes that compute together. Every rank must make the same calls in the same order with tensors of the same shape
 * and dtype. Calls return promises and may overlap; a tensor must not be used before its promise is settled. After a
 * failed call the connections are unusable and every further call fails at once.
 */
export class ProcessGroup implements Membership {
  /** What carries the values. */
  readonly backend: ProcessGroupBackend;
  /** This process's number, from 0. */
  readonly rank: number;
  /** The number of processes. */
  readonly worldSize: number;
  /** How long a collective waits for the other ranks, in milliseconds. */
  readonly timeoutMs: number;
  #id: number | undefined;
  #failure: TorchError | undefined;

  /** @internal */
  constructor(id: number, membership: Membership) {
    this.#id = id;
    this.backend = membership.backend;
    this.rank = membership.rank;
    this.worldSize = membership.worldSize;
    this.timeoutMs = membership.timeoutMs;
  }

  /** @internal */
  get id(): number {
    if (this.#id === undefined) throw new TorchError("this process group was destroyed");
    return this.#id;
  }

  /**
   * Runs one operation of the group, and remembers its failure.
   * @internal
   */
  async run<T>(operation: string, body: (id: number) => T | Promise<T>): Promise<T> {
    if (this.#failure !== undefined) throw this.#failure;
    const id = this.id;
    try {
      return await body(id);
    } catch (error) {
      throw this.fail(operation, error);
    }
  }

  /** As {@link run}, at once. */
  #now(operation: string, body: (id: number) => void): void {
    if (this.#failure !== undefined) throw this.#failure;
    const id = this.id;
    try {
      body(id);
    } catch (error) {
      throw this.fail(operation, error);
    }
  }

  /** @internal */
  fail(operation: string, error: unknown): TorchError {
    this.#failure = collectiveError(this, operation, error);
    return this.#failure;
  }

  /**
   * Replaces the values of `t` on every rank by their sum, mean (floating tensors), maximum or minimum over the ranks.
   */
  async allReduce(t: Tensor, operation: ReduceOperation = "sum"): Promise<void> {
    checkReduction("allReduce", t, operation);
    await this.run("allReduce", (id) => native.groupAllReduce(id, t.handle, operation));
  }

  /**
   * The same in the order of what a GPU is given: operators that are called afterwards come behind it, and the host
   * waits for nothing. Where it fails later, {@link check} says so. Between processors (Gloo) it waits for the ranks.
   * PyTorch: `torch.distributed.all_reduce`.
   */
  queueAllReduce(t: Tensor, operation: ReduceOperation = "sum"): void {
    checkReduction("queueAllReduce", t, operation);
    this.#now("queueAllReduce", (id) => native.groupQueueAllReduce(id, t.handle, operation));
  }

  /**
   * Call it before what {@link queueAllReduce} gave is believed, once the device has come so far.
   *
   * @throws TorchError when an operation has failed since it was queued: then its values are not there
   */
  check(): void {
    this.#now("allReduce", (id) => native.groupCheck(id));
  }

  /** Replaces the values of `t` on every rank by those of rank `root`. */
  async broadcast(t: Tensor, root = 0): Promise<void> {
    if (!Number.isInteger(root) || root < 0 || root >= this.worldSize)
      throw new TorchError(`broadcast: root must be between 0 and ${this.worldSize - 1}, got ${root}`);
    await this.run("broadcast", (id) => native.groupBroadcast(id, t.handle, root));
  }

  /** New tensors with the values that each rank has in its `t`, by rank. The caller owns them. */
  async allGather(t: Tensor): Promise<Tensor[]> {
    const handles = await this.run<Handle[]>("allGather", (id) => native.groupAllGather(id, t.handle));
    return handles.map((handle) => wrap(handle));
  }

  /** Resolves when every rank has come here. */
  async barrier(): Promise<void> {
    await this.run("barrier", (id) => native.groupBarrier(id));
  }

  /** Leaves the group; waits for operations that are under way, at most as long as their timeout. */
  async destroy(): Promise<void> {
    if (this.#id === undefined) return;
    const id = this.#id;
    this.#id = undefined;
    await native.groupFree(id);
  }
}
