// Data-parallel gradients by c10d::Reducer: every rank computes the gradients of its part of the batch, and buckets of
// them are averaged over the ranks while backward still computes the others (S. Li et al., PyTorch Distributed, VLDB
// 2020).
import { type BackwardOptions, backward } from "../autograd.js";
import { tensor } from "../creation.js";
import { TorchError } from "../errors.js";
import { native } from "../native.js";
import type { Tensor } from "../tensor.js";
import type { ProcessGroup } from "./process-group.js";
import { firstLine } from "./store.js";

/** Options of {@link DistributedReducer.create}; names as of PyTorch's `DistributedDataParallel`. */
export interface DistributedReducerOptions {
  /** Size of a bucket in MiB (25 by default): large ones use the network well, small ones overlap more. */
  bucketCapMb?: number | undefined;
  /** Size of the bucket that is reduced first, in MiB (1 by default, at most `bucketCapMb`). */
  firstBucketCapMb?: number | undefined;
  /** Looks for parameters that the loss does not depend on, on every step. Without it such a parameter is an error. */
  findUnusedParameters?: boolean | undefined;
}

/** How long computing and communicating took, see {@link DistributedReducer.statistics}. */
export interface ReducerStatistics {
  /** Bytes of each bucket, in the order in which they are reduced. */
  bucketBytes: number[];
  /** Mean over the sampled steps (the first ten, then every hundredth), in milliseconds; 0 before there are any. */
  backwardMs: number;
  /** Mean time from the first bucket's start to the last one's end over the sampled steps, in milliseconds. */
  communicationMs: number;
  /** Communication that ran while backward computed, in milliseconds. */
  overlapMs: number;
}

const MEBIBYTE = 2 ** 20;

/**
 * Averages gradients over the ranks of a group. A step is
 *
 *     reducer.prepareForForward();
 *     const loss = …;              // the mean over this rank's part of the batch
 *     reducer.backward(loss);      // every rank's `grad` is now that of the mean over all parts
 *
 * and with accumulation all parts of a batch but the last run inside `noSync`. The parameters must live as long as the
 * reducer.
 */
export class DistributedReducer {
  /** The ranks. */
  readonly group: ProcessGroup;
  #id: number | undefined;
  readonly #names: readonly string[];
  #syncs = true;

  private constructor(group: ProcessGroup, id: number, names: readonly string[]) {
    this.group = group;
    this.#id = id;
    this.#names = names;
  }

  /**
   * Checks that all ranks have the same parameters (names, dtypes, shapes), gives every rank the values of rank 0, and
   * listens to their gradients. All ranks must call it.
   *
   * @param parameters names and leaves, as `module.namedParameters()` gives them; those without gradient are left out
   * @throws TorchError that names the first parameter that differs, on every rank
   */
  static async create(
    group: ProcessGroup,
    parameters: Iterable<readonly [string, Tensor]>,
    {
      bucketCapMb = 25,
      firstBucketCapMb = Math.min(1, bucketCapMb),
      findUnusedParameters = false,
    }: DistributedReducerOptions = {},
  ): Promise<DistributedReducer> {
    for (const [name, value] of Object.entries({ bucketCapMb, firstBucketCapMb })) {
      if (!(value > 0 && value <= 65536))
        throw new TorchError(`DistributedReducer: ${name} must be between 0 and 65536 MiB, got ${value}`);
    }
    const trained = [...parameters].filter(([, t]) => t.requiresGrad);
    if (trained.length === 0) throw new TorchError("DistributedReducer: no parameter requires a gradient");
    await compareParameters(group, trained);
    const names = trained.map(([name]) => name);
    const id = await group.run("DistributedReducer.create", (groupId) =>
      native.reducerNew(
        groupId,
        trained.map(([, t]) => t.handle),
        names,
        Math.ceil(bucketCapMb * MEBIBYTE),
        Math.ceil(firstBucketCapMb * MEBIBYTE),
        findUnusedParameters,
      ),
    );
    return new DistributedReducer(group, id, names);
  }

  get #handle(): number {
    if (this.#id === undefined) throw new TorchError("this reducer was disposed");
    return this.#id;
  }

  #run<T>(operation: string, body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw this.group.fail(operation, error);
    }
  }

  /**
   * Before the forward pass of each step. After the first step the ranks agree here on buckets in the order in which
   * gradients came.
   */
  prepareForForward(): void {
    const id = this.#handle;
    if (this.#syncs) this.#run("prepareForForward", () => native.reducerForward(id));
  }

  /**
   * Between forward and `backward`: the gradients of the coming backward will be reduced.
   * @param outputs what backward starts from; needed with `findUnusedParameters`
   */
  prepareForBackward(outputs: readonly Tensor[]): void {
    const id = this.#handle;
    if (!this.#syncs) return;
    const handles = outputs.map((t) => t.handle);
    this.#run("prepareForBackward", () => native.reducerBackward(id, handles));
  }

  /**
   * After backward: makes sure that every gradient was reduced.
   * @throws TorchError when a parameter has got no gradient on this rank
   */
  finalize(): void {
    const id = this.#handle;
    if (!this.#syncs) return;
    try {
      native.reducerFinalize(id);
    } catch (error) {
      // c10d names them by number.
      const indices = /did not receive grad[^:]*: *([\d ]+)/
        .exec((error as Error).message)?.[1]
        ?.trim()
        .split(/\s+/);
      const names = indices?.map((i) => this.#names[Number(i)] ?? i).join(", ");
      throw this.group.fail(
        "backward",
        new TorchError(
          names === undefined
            ? firstLine(error)
            : `the loss does not depend on these parameters: ${names} (findUnusedParameters allows that)`,
        ),
      );
    }
  }

  /**
   * `prepareForBackward`, backward of one scalar, `finalize`; inside `noSync` backward alone. Waits for the reductions.
   */
  backward(loss: Tensor, options: BackwardOptions = {}): void {
    this.prepareForBackward([loss]);
    if (!this.#syncs) {
      backward([loss], [], options);
      return;
    }
    this.#run("backward", () => backward([loss], [], options));
    this.finalize();
  }

  /** Runs `body` without reducing: its gradients add to this rank's own until the next step outside. */
  noSync<T>(body: () => T): T {
    const before = this.#syncs;
    this.#syncs = false;
    try {
      const result = body();
      if (result instanceof Promise)
        throw new TorchError("noSync() needs a synchronous function, got one that returns a promise");
      return result;
    } finally {
      this.#syncs = before;
    }
  }

  /** Sizes of the buckets and how much of the communication was hidden behind backward. */
  statistics(): ReducerStatistics {
    const [backwardNs, communicationNs, overlapNs, ...bucketBytes] = native.reducerStatistics(this.#handle);
    return {
      bucketBytes,
      backwardMs: backwardNs! / 1e6,
      communicationMs: communicationNs! / 1e6,
      overlapMs: overlapNs! / 1e6,
    };
  }

  /** Stops listening to the parameters. Before the group is destroyed. */
  dispose(): void {
    if (this.#id !== undefined) native.reducerFree(this.#id);
    this.#id = undefined;
  }
}

/** Fails on every rank when the descriptions of the parameters differ between any two. */
async function compareParameters(group: ProcessGroup, parameters: readonly (readonly [string, Tensor])[]) {
  const own = parameters.map(([name, t]) => `${name} ${t.dtype} [${t.shape.join(", ")}]`);
  const all = (await gatherTexts(group, own.join("\n"))).map((text) => text.split("\n"));
  for (const [rank, theirs] of all.entries()) {
    const first = all[0]!;
    for (let i = 0; i < Math.max(first.length, theirs.length); i++) {
      if (first[i] === theirs[i]) continue;
      throw new TorchError(
        `DistributedReducer: parameter ${i} is ${first[i] ?? "missing"} on rank 0 but ${theirs[i] ?? "missing"} on rank ${rank}; start all ranks with the same model`,
      );
    }
  }
}

/** Every rank's text. */
async function gatherTexts(group: ProcessGroup, text: string): Promise<string[]> {
  const bytes = new TextEncoder().encode(text);
  const lengths = (await gatherValues(group, Int32Array.of(bytes.length))).map((values) => Number(values[0]));
  const padded = new Uint8Array(Math.max(...lengths));
  padded.set(bytes);
  const gathered = await gatherValues(group, padded);
  return gathered.map((values, rank) => new TextDecoder().decode((values as Uint8Array).subarray(0, lengths[rank])));
}

async function gatherValues(group: ProcessGroup, values: Int32Array | Uint8Array) {
  const own = tensor(values, { device: group.backend === "nccl" ? "cuda" : "cpu" });
  try {
    const all = await group.allGather(own);
    try {
      return all.map((t) => t.data());
    } finally {
      for (const t of all) t.dispose();
    }
  } finally {
    own.dispose();
  }
}
