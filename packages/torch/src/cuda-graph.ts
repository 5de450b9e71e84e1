// CUDA graphs: a sequence of operators queued once and replayed with a single launch on the same tensors.
import { native } from "./native.js";
import { scope } from "./scope.js";
import { Tensor } from "./tensor.js";

/** Work that can be done again. */
export interface Replayable<T> {
  /** What the work makes; each replay writes new values into these tensors. They live until `dispose()`. */
  readonly outputs: T;
  /** Does the work once more, on the present values of the tensors that it reads. Returns before the device is done. */
  replay(): void;
  /** Frees the outputs and what the replays need. */
  dispose(): void;
}

/** Whether graphs can be made on a device, by its index. */
const supported = new Map<number, boolean>();

/**
 * Whether {@link captureGraph} is there for a device: libtorch has CUDA, the device is available, and CUDA's headers
 * were found at set-up. `MIRO_CUDA_GRAPHS=0` says that it is not to be used.
 */
export function hasCudaGraphs(device = 0): boolean {
  if (process.env.MIRO_CUDA_GRAPHS === "0" || !native.cudaAvailable()) return false;
  let known = supported.get(device);
  if (known === undefined) {
    try {
      native.graphFree(native.graphNew(device));
      known = true;
    } catch {
      known = false;
    }
    supported.set(device, known);
  }
  return known;
}

/** Memory that several graphs take what they compute from, see {@link captureGraph}. */
export class GraphPool {
  /** @internal */
  readonly id = native.graphPool();
}

/** Options of {@link captureGraph}. */
export interface CaptureOptions {
  /** Index of the CUDA device; default 0. */
  device?: number | undefined;
  /** Runs before the capture, in which libraries make their choices; default 2. */
  warmUps?: number | undefined;
  /**
   * Memory shared with other graphs, so that all of them need no more than the largest. They must not run at the same
   * time, and no graph may read what another one has computed: its outputs hold until another one is replayed.
   */
  pool?: GraphPool | undefined;
}

/**
 * Captures `body` as a CUDA graph. It runs `warmUps` times first, so that libraries have made their choices, then once
 * under capture. It must read and write the same tensors at every run, give plain objects of tensors, never look at a
 * value (`item`, `data`) and never copy from the host. The outputs hold nothing before the first replay.
 *
 * Captures wait for each other, whichever threads ask for them, and so do waits for a whole device and
 * `memory.emptyCache()`: `body` must not capture another graph, nor wait for a thread that does any of it.
 *
 * @throws TorchError where the engine was built without CUDA, or when `body` does what cannot be captured
 */
export function captureGraph<T extends object>(
  body: () => T,
  { device = 0, warmUps = 2, pool }: CaptureOptions = {},
): Replayable<T> {
  const graph = native.graphNew(device, pool?.id ?? -1);
  try {
    native.graphEnter(graph);
    let outputs: T;
    try {
      for (let i = 0; i < warmUps; i++) scope(() => void body());
      native.emptyCache(); // a capture allocates from a pool of its own, which cannot use what the warm-ups left cached
      native.graphBegin(graph);
      try {
        outputs = scope(() => keepTensors(body()));
      } catch (error) {
        // What the body did wrong is the reason; that the capture cannot be ended any more follows from it.
        try {
          native.graphEnd(graph);
        } catch {}
        throw error;
      }
      native.graphEnd(graph);
    } finally {
      native.graphLeave(graph);
    }
    return {
      outputs,
      replay: () => native.graphReplay(graph),
      dispose() {
        for (const value of Object.values(outputs)) if (value instanceof Tensor) value.dispose();
        native.graphFree(graph);
      },
    };
  } catch (error) {
    native.graphFree(graph);
    throw error;
  }
}

function keepTensors<T extends object>(value: T): T {
  for (const item of Object.values(value)) if (item instanceof Tensor) item.keep();
  return value;
}
