/**
 * The data-parallel group: the processes that train together, as one of them sees them. Each computes its rows of every
 * batch. Gradients are all-reduced while the backward pass still runs, and whatever decides how the run goes on (is the
 * loss finite, was a stop asked for) is summed over the group, so that all processes make the same calls.
 *
 * A process that trains alone is a group of one: it has all rows, sums are what it gave, and nothing waits.
 */
import { createHash } from "node:crypto";
import { lookup } from "node:dns/promises";
import type { Worker } from "node:worker_threads";
import { type nn, scope, type Tensor, TorchError, tensor } from "@miro-t2i/torch";
import { DistributedReducer, initProcessGroup, type ProcessGroup, RendezvousStore } from "@miro-t2i/torch/distributed";
import { startThread } from "../../compiled-module.js";
import { InvalidInputError, MiroError } from "../../errors.js";
import { counted, plural } from "../../numbers.js";
import { listed } from "../../printable.js";
import { divideRows, type Rows } from "../batches/batch-slices.js";
import type { Recipe } from "../recipes/recipe.js";
import { Activity } from "./activity.js";
import type { RankPlace } from "./launch-environment.js";
import type { WaitsData } from "./waits-worker.js";

/** How processes work together; `trainer.strategy` of a recipe. */
export type Strategy = Recipe["trainer"]["strategy"];

/** A wait for the other processes that is longer is told. */
const WAIT_TOLD_MS = 10_000;

/** What joins several processes. */
interface Processes {
  group: ProcessGroup;
  device: string;
  strategy: Strategy;
  /** What this process does, for the others. */
  activity: Activity;
  /** The thread that tells them. */
  teller: Worker;
}

export class DataParallelGroup {
  readonly rank: number;
  readonly worldSize: number;
  /** Undefined where gradients are summed by whoever computes them; null before {@link synchronize}. */
  #reducer: DistributedReducer | undefined | null = null;

  /** Absent in a group of one. */
  readonly #processes: Processes | null;

  private constructor(rank: number, worldSize: number, processes: Processes | null) {
    this.rank = rank;
    this.worldSize = worldSize;
    this.#processes = processes;
  }

  /** The group of a process that trains alone. */
  static alone(): DataParallelGroup {
    return new DataParallelGroup(0, 1, null);
  }

  /**
   * Meets the other processes.
   * @param trainer.device a rank on `cuda` takes the GPU of its local number
   * @param onMessage told when it waits longer; absent where somebody else looks on
   * @throws TorchError when they do not come within the timeout; the signal's reason when it is aborted
   */
  static async join(
    place: RankPlace,
    { device, strategy }: { device: string; strategy: Strategy },
    {
      signal,
      onMessage,
    }: { signal?: AbortSignal | undefined; onMessage?: ((message: string) => void) | undefined } = {},
  ): Promise<DataParallelGroup> {
    const cuda = device.startsWith("cuda");
    if (cuda) chooseGpu(place.localRank);
    // Gloo listens where the machine's name leads to, which on one machine need not be anywhere.
    if (!cuda && place.oneMachine) process.env.GLOO_SOCKET_IFNAME ??= "lo";
    const timeoutMs = strategy.timeoutSeconds * 1000;
    const { rank, worldSize, host, port, serves, prefix } = place;
    let isReached = false;
    const told = setTimeout(async () => {
      // Rank 0 cannot say that it does not run.
      if (rank > 1 || (rank === 1 && isReached)) return;
      const others = rank === 0 ? counted(worldSize - 1, "other process", "other processes") : "rank 0";
      const most = `at most ${counted(strategy.timeoutSeconds, "second")}`;
      const unknown = await lookup(host).then(
        () => "",
        () => `; this machine does not know the name ${host}`,
      );
      onMessage?.(`rank ${rank} waits for ${others} at ${host}:${port}, ${most}${unknown}`);
    }, WAIT_TOLD_MS);
    try {
      const store = await RendezvousStore.tcp({ host, port, serves, prefix, timeoutMs, signal });
      isReached = true;
      try {
        const backend = cuda ? "nccl" : "gloo";
        const group = await initProcessGroup({ backend, store, rank, worldSize, timeoutMs, signal });
        const activity = new Activity();
        const { memory } = activity;
        const looksOn = onMessage !== undefined;
        const data: WaitsData = { memory, host, port, prefix, rank, worldSize, timeoutMs, looksOn };
        const teller = startThread("training/process-group/waits-worker.js", data).on("error", () => {});
        teller.unref();
        return new DataParallelGroup(rank, worldSize, { group, device, strategy, activity, teller });
      } finally {
        store.close(); // the group holds what it needs of it
      }
    } finally {
      clearTimeout(told);
    }
  }

  /** Whether this process trains alone. */
  get isAlone(): boolean {
    return this.#processes === null;
  }

  /** Whether this is the process that writes the run's folder. */
  get isFirst(): boolean {
    return this.rank === 0;
  }

  /** The rows of a batch that this process computes. */
  rowsOf(batchSize: number): Rows {
    return divideRows(batchSize, this.worldSize)[this.rank]!;
  }

  /** Runs what ends only when all processes have come to it. @param operation as the others are told */
  async together<T>(operation: string, body: () => T | Promise<T>): Promise<T> {
    this.#processes?.activity.enter(operation);
    return this.#thenComputing(body);
  }

  /** Waits for what was queued before, and ends only when all processes have come to that. */
  async awaitQueued<T>(operation: string, body: () => T | Promise<T>): Promise<T> {
    this.#processes?.activity.wait(operation);
    return this.#thenComputing(body);
  }

  async #thenComputing<T>(body: () => T | Promise<T>): Promise<T> {
    try {
      return await body();
    } finally {
      this.note("computing");
    }
  }

  /** Says what this process does next, for others that will wait for it. */
  note(what: string): void {
    this.#processes?.activity.note(what);
  }

  /** Sums over all processes, the same on each. */
  async sum(values: readonly number[]): Promise<number[]> {
    if (this.#processes === null) return [...values];
    const { group } = this.#processes;
    return this.#shared(values, async (shared) => {
      await this.together("a sum", () => group.allReduce(shared, "sum"));
      return shared.toList() as number[];
    });
  }

  /**
   * Sums a tensor over all processes, in place; in a group of one it stays as it is. Nothing waits for a GPU: look at
   * the values after {@link check} only.
   */
  async sumInPlace(values: Tensor): Promise<void> {
    const group = this.#processes?.group;
    if (values.device !== "cpu") group?.queueAllReduce(values, "sum");
    else await this.together("a sum", async () => group?.allReduce(values, "sum"));
  }

  /** @throws TorchError when a sum that was queued has failed, and its values are not there */
  check(): void {
    this.#processes?.group.check();
  }

  /**
   * Makes sure that all processes have the same text.
   * @param difference what to say of a text that is not that of rank 0, in words that follow "; "
   * @throws InvalidInputError on every process where two differ
   */
  async agree(what: string, text: string, difference?: (first: string) => string): Promise<void> {
    const digest = createHash("sha256").update(text).digest().readUIntBE(0, 6);
    const digests = await this.#gather(digest);
    const others = digests.flatMap((other, rank) => (other === digests[0] ? [] : [rank]));
    if (others.length === 0) return;
    const first = await this.#textOfFirst(text);
    const own = first === text || difference === undefined ? "" : `; ${difference(first)}`;
    const named = `${plural(others.length, "rank")} ${listed(others, 5)}`;
    const verb = plural(others.length, "does", "do");
    throw new InvalidInputError(`ranks disagree on ${what}: ${named} ${verb} not have that of rank 0${own}`);
  }

  /** What each process gives, by rank. */
  async #gather(value: number): Promise<number[]> {
    if (this.#processes === null) return [value];
    const { group } = this.#processes;
    return this.#shared([value], async (own) => {
      const all = await this.together("a comparison", () => group.allGather(own));
      const values = all.map((of) => of.item());
      for (const of of all) of.dispose();
      return values;
    });
  }

  /** Runs `body` with values where the group computes, float64. */
  async #shared<T>(values: readonly number[], body: (shared: Tensor) => Promise<T>): Promise<T> {
    const { device } = this.#processes!;
    const shared = scope(() => tensor(Float64Array.from(values), { device }).keep());
    try {
      return await body(shared);
    } finally {
      shared.dispose();
    }
  }

  /** The text that rank 0 has. */
  async #textOfFirst(text: string): Promise<string> {
    const bytes = Buffer.from(this.isFirst ? text : "");
    const [length] = await this.sum([bytes.length]);
    return Buffer.from(await this.sum(Array.from({ length: length! }, (_, i) => bytes[i] ?? 0))).toString();
  }

  /** Waits until all processes have come here. */
  async barrier(): Promise<void> {
    await this.together("a barrier", async () => this.#processes?.group.barrier());
  }

  /**
   * Opens something on rank 0 first, then on the others: what it makes, they find. It is closed where they do not come.
   * @param what it is, as the others are told
   */
  async firstRankFirst<T extends { close(): Promise<void> } | null>(what: string, open: () => Promise<T>): Promise<T> {
    if (!this.isFirst) await this.barrier();
    this.note(what);
    const opened = await open();
    try {
      if (this.isFirst) await this.barrier();
    } catch (error) {
      await opened?.close();
      throw error;
    }
    return opened;
  }

  /**
   * Gives every process the weights of rank 0.
   * @param reduces whether gradients of these modules are all-reduced during backward passes from now on
   */
  async synchronize(modules: Readonly<Record<string, nn.Module>>, { reduces = true } = {}): Promise<void> {
    if (this.#processes === null) return;
    const { group, strategy } = this.#processes;
    const { bucketCapMb, findUnusedParameters } = strategy;
    const parameters = Object.entries(modules).flatMap(([name, module]) => [...module.namedParameters(name)]);
    const reducer = await this.together("comparing the weights", () =>
      DistributedReducer.create(group, parameters, { bucketCapMb, findUnusedParameters }),
    );
    if (!reduces) reducer.dispose();
    this.#reducer = reduces ? reducer : undefined;
  }

  /**
   * Averages the gradients of backward passes over the processes; absent in a group of one, and where they are not
   * reduced during backward passes.
   */
  get reducer(): DistributedReducer | undefined {
    if (this.#reducer === null && !this.isAlone) throw new TypeError("synchronize() the modules first");
    return this.#reducer ?? undefined;
  }

  /**
   * How long gradients were on their way in a step, and how much of it while others were still computed; see the
   * reducer.
   */
  communicationFigures(): Record<string, number> {
    if (this.#reducer == null) return {};
    const { communicationMs, overlapMs } = this.#reducer.statistics();
    const rounded = (ms: number) => Math.round(ms * 100) / 100;
    return { "speed/communication_ms": rounded(communicationMs), "speed/communication_hidden_ms": rounded(overlapMs) };
  }

  /** Leaves the group without waiting for other ranks. */
  async leave(): Promise<void> {
    this.#reducer?.dispose();
    this.#reducer = null;
    await this.#processes?.teller.terminate();
    await this.#processes?.group.destroy();
  }
}

/** Whether an error only says that other processes failed. */
export function isLostRank(error: unknown): boolean {
  return error instanceof TorchError && / failed on rank \d+ of \d+ \(/.test(error.message);
}

/** Leaves this process the GPU of its number alone, which then is `cuda`; must come before CUDA is used. */
function chooseGpu(localRank: number): void {
  const visible = process.env.CUDA_VISIBLE_DEVICES?.split(",").filter((name) => name !== "");
  if (visible?.length === 1) return; // the launcher has chosen
  if (visible !== undefined && localRank >= visible.length)
    throw new MiroError(
      `CUDA_VISIBLE_DEVICES names ${counted(visible.length, "GPU")}, this is process ${localRank + 1} of its machine; lower trainer.devices`,
    );
  process.env.CUDA_VISIBLE_DEVICES = visible?.[localRank] ?? String(localRank);
}
