// Memory: statistics, and the safety net for tensors that nobody freed.
//
// Tensors made outside of every scope are followed by a weak reference each. When enough new bytes (or tensors) have
// come together, the next operation runs a garbage collection and frees the native memory of the objects that died.
// So a loop that forgets stays bounded even when it never returns to the event loop.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { flags, native } from "./native.js";

type Collect = (options?: { type?: "minor" | "major" }) => void;

const BUDGET_BYTES = 64 * 2 ** 20;
let collect: Collect | undefined;

function collector(): Collect {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as Collect;
  }
  return collect;
}

let budgetBytes = BUDGET_BYTES;

/** Collects forgotten tensors now: a young-generation collection first, a full one where that freed little. */
export function collectForgotten(): void {
  collector()({ type: "minor" });
  let [, freedBytes, heldBytes] = native.sweep();
  if (freedBytes < budgetBytes / 2) {
    collector()({ type: "major" });
    [, freedBytes, heldBytes] = native.sweep();
  }
  budgetBytes = Math.max(BUDGET_BYTES, Math.floor(heldBytes / 4));
  native.setBudget(budgetBytes);
}

/** Called after each operation outside of scopes. */
export function collectWhenDue(): void {
  if (flags[0] !== 0) collectForgotten();
}

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
