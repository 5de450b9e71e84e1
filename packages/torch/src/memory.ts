// Memory: statistics, and the safety net for tensors that were not freed.
//
// Tensors that no scope owns (made outside of all, kept, or what the outermost one gave) are followed by a weak
// reference each. When enough new bytes (or tensors) have come together, the next operation runs a garbage collection
// and frees the native memory of the objects that died. So a loop that forgets stays bounded even when it never returns
// to the event loop. Generators are followed, too.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { flags, native } from "./native.js";

/** Full without options. Node 20's V8 takes any options object, even `{ type: "major" }`, for a young collection. */
type Collect = (options?: { type: "minor" }) => void;

const BUDGET_BYTES = 64 * 2 ** 20;
let collect: Collect | undefined;

function collector(): Collect {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as Collect;
  }
  return collect;
}

/** The least size since the last full collection. */
let baseBytes = 0;

/**
 * Collects forgotten tensors now: a young-generation collection, and a full one where memory has grown since the last
 * full one all the same (each young collection lets a few dead objects grow old).
 */
function collectForgotten(): void {
  collector()({ type: "minor" });
  let sizeBytes = sweptSize();
  if (sizeBytes > baseBytes + Math.max(2 * BUDGET_BYTES, baseBytes / 2)) {
    collector()();
    sizeBytes = sweptSize();
    baseBytes = sizeBytes;
  }
  baseBytes = Math.min(baseBytes, sizeBytes);
  native.setBudget(Math.max(BUDGET_BYTES, Math.floor(sizeBytes / 4)));
}

/**
 * Frees the tensors whose objects are gone; the bytes left: those of followed tensors on any device, and all on the
 * CPU.
 */
function sweptSize(): number {
  const [, , heldBytes] = native.sweep();
  const [liveBytes] = native.memoryStats();
  return Math.max(heldBytes, liveBytes);
}

/** Called after each operation outside of scopes. */
export function collectWhenDue(): void {
  if (flags[0] !== 0) collectForgotten();
}

/** Figures of the CPU allocator and of this thread's tensors, see {@link memory}. */
export interface MemoryStats {
  /** Bytes of CPU tensors that are alive. */
  liveBytes: number;
  /** Largest value of `liveBytes` so far. */
  peakBytes: number;
  /** Bytes kept for reuse by the caching allocator. */
  cachedBytes: number;
  /** Tensors that this thread's JavaScript can name. */
  liveTensors: number;
}

/**
 * Memory of tensors on the CPU. For GPUs see `cuda.memory`.
 *
 * @example
 * ```ts
 * const before = memory.stats().liveBytes;
 * using x = ones([1024, 1024]);
 * memory.stats().liveBytes - before; // 4 MiB and the header of a block
 * ```
 */
export const memory = {
  /** Figures of the CPU allocator (whole process) and of this thread's tensors. */
  stats(): MemoryStats {
    const [liveBytes, peakBytes, cachedBytes, liveTensors] = native.memoryStats();
    return { liveBytes, peakBytes, cachedBytes, liveTensors };
  },
  /** Gives cached blocks back to the system. */
  emptyCache(): void {
    native.emptyCache();
  },
  /** Frees tensors that JavaScript has forgotten. */
  collect: collectForgotten,
};
