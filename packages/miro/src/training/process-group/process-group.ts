/**
 * The processes that train together, as one of them sees them. Each computes its rows of every batch; gradients are averaged while the
 * backward pass still runs, and everything that decides how the run goes on (is the loss finite, shall it stop) is agreed on, so that all
 * processes make the same calls.
 */
import { createHash } from "node:crypto";
import { scope, TorchError, tensor } from "@miro-t2i/torch";
import { DistributedReducer, initProcessGroup, type ProcessGroup, RendezvousStore } from "@miro-t2i/torch/distributed";
import { InvalidInputError, MiroError } from "../../errors.js";
import { divideRows, type Rows } from "../loop/batch-slices.js";
import type { Model } from "../loop/gradients.js";
import type { Recipe } from "../recipes/recipe.js";
import type { RankPlace } from "./launch-environment.js";

/** How processes work together; `trainer.strategy` of a recipe. */
export type Strategy = Recipe["trainer"]["strategy"];

export class World {
  readonly rank: number;
  readonly worldSize: number;
  #reducer: DistributedReducer | null = null;

  private constructor(
    place: RankPlace,
    private readonly group: ProcessGroup,
    private readonly device: string,
    private readonly strategy: Strategy,
  ) {
    this.rank = place.rank;
    this.worldSize = place.worldSize;
  }

  /**
   * Meets the other processes.
   * @param device of the training; a rank on `cuda` takes the GPU of its local number
   * @throws TorchError when they do not come within the timeout
   */
  static async join(place: RankPlace, { device, strategy }: { device: string; strategy: Strategy }): Promise<World> {
    const cuda = device.startsWith("cuda");
    if (cuda) chooseGpu(place.localRank);
    // Gloo listens where the machine's name leads to, which on one machine need not be anywhere.
    if (!cuda && place.oneMachine) process.env.GLOO_SOCKET_IFNAME ??= "lo";
    const timeoutMs = strategy.timeoutSeconds * 1000;
    const { rank, worldSize, host, port, serves } = place;
    const store = await RendezvousStore.tcp({ host, port, serves, timeoutMs });
    try {
      const group = await initProcessGroup({ backend: cuda ? "nccl" : "gloo", store, rank, worldSize, timeoutMs });
      return new World(place, group, device, strategy);
    } finally {
      store.close(); // the group holds what it needs of it
    }
  }

  /** The rows of a batch that this process computes. */
  rowsOf(batchSize: number): Rows {
    return divideRows(batchSize, this.worldSize)[this.rank]!;
  }

  /** Sums over all processes, the same on each. */
  async sum(values: readonly number[]): Promise<number[]> {
    return this.reduced(values, "sum");
  }

  /**
   * Makes sure that all processes have the same text.
   * @throws InvalidInputError on every process where two differ
   */
  async agree(what: string, text: string): Promise<void> {
    const digest = createHash("sha256").update(text).digest().readUIntBE(0, 6);
    const [largest, smallest] = await this.reduced([digest, -digest], "max");
    if (largest !== -smallest!)
      throw new InvalidInputError(`${what} on rank ${this.rank} of ${this.worldSize} is not that of every other rank`);
  }

  /** Waits until all processes have come here. */
  async meet(): Promise<void> {
    await this.group.barrier();
  }

  /** Rank 0 first, then the others: what it makes, they find. */
  async firstRankFirst<T>(body: () => Promise<T>): Promise<T> {
    if (this.rank !== 0) await this.group.barrier();
    const result = await body();
    if (this.rank === 0) await this.group.barrier();
    return result;
  }

  /** Listens to the gradients of a model; every process gets rank 0's weights. */
  async share(model: Omit<Model, "loss">): Promise<void> {
    const { bucketCapMb, findUnusedParameters } = this.strategy;
    const parameters = [
      ...model.network.namedParameters("network"),
      ...model.preconditioning.namedParameters("preconditioning"),
    ];
    this.#reducer = await DistributedReducer.create(this.group, parameters, { bucketCapMb, findUnusedParameters });
  }

  /** Averages the gradients of backward passes over the processes. */
  get reducer(): DistributedReducer {
    if (this.#reducer === null) throw new TypeError("share() a model first");
    return this.#reducer;
  }

  /** How long gradients were on their way in a step, and how much of it while others were still computed; see the reducer. */
  communicationFigures(): Record<string, number> {
    const { communicationMs, overlapMs } = this.reducer.statistics();
    const rounded = (ms: number) => Math.round(ms * 100) / 100;
    return { "speed/communication_ms": rounded(communicationMs), "speed/communication_hidden_ms": rounded(overlapMs) };
  }

  /** Leaves the group; waits for nobody. */
  async leave(): Promise<void> {
    this.#reducer?.dispose();
    this.#reducer = null;
    await this.group.destroy();
  }

  private async reduced(values: readonly number[], operation: "sum" | "max"): Promise<number[]> {
    const shared = scope(() => tensor(Float64Array.from(values), { device: this.device }).keep());
    try {
      await this.group.allReduce(shared, operation);
      return shared.toList() as number[];
    } finally {
      shared.dispose();
    }
  }
}

/** Whether an error only says that other processes failed. */
export function isLostRank(error: unknown): boolean {
  return error instanceof TorchError && / failed on rank \d+ of \d+ \(/.test(error.message);
}

/** Leaves this process the GPU of its number alone, which then is `cuda`; must come before CUDA is used. */
function chooseGpu(localRank: number): void {
  const visible = process.env.CUDA_VISIBLE_DEVICES?.split(",").filter((name) => name !== "");
  if (visible?.length === 1) return; // whoever started it has chosen
  if (visible !== undefined && localRank >= visible.length)
    throw new MiroError(
      `CUDA_VISIBLE_DEVICES names ${visible.length} GPUs, this is process ${localRank + 1} of its machine; lower trainer.devices`,
    );
  process.env.CUDA_VISIBLE_DEVICES = visible?.[localRank] ?? String(localRank);
}
