// How long libtorch's threads wait awake for the next operator.
import { closeSync, openSync, readSync } from "node:fs";

/**
 * GNU OpenMP counts the turns of a waiting loop, each of which pauses the processor. Its default number, 3 to 15 ms,
 * makes every small operator wait for threads that another process keeps from running: a machine with more runnable
 * threads than cores computes ten times slower. A tenth of a millisecond bridges the gap between two operators as well.
 * A pause takes some 45 ns on Intel's processors before those with AVX-512 FP16, on which 10 ns were measured. There a
 * guided step of the published network in int8 took 250 ms with 2,000 turns, 213 ms with 10,000 and no less with more.
 */
const TURNS = { usual: 2000, shortPauses: 8000 };

/** @param processors what Linux tells of them in /proc/cpuinfo; the first one's flags count */
export function spinCount(processors: string): number {
  const flags = /^flags\s*:(.*)$/m.exec(processors)?.[1] ?? "";
  return /\bavx512_fp16\b/.test(flags) ? TURNS.shortPauses : TURNS.usual;
}

/** The first processor's part of /proc/cpuinfo, which is long on large machines; empty where there is none. */
function firstProcessor(): string {
  try {
    const file = openSync("/proc/cpuinfo", "r");
    try {
      const start = Buffer.alloc(8192);
      return start.toString("latin1", 0, readSync(file, start));
    } finally {
      closeSync(file);
    }
  } catch {
    return "";
  }
}

/** To be called before libtorch is loaded. What the environment says counts. */
export function shortenSpinning(env: NodeJS.ProcessEnv): void {
  if (env.OMP_WAIT_POLICY !== undefined || env.GOMP_SPINCOUNT !== undefined) return;
  env.GOMP_SPINCOUNT = String(spinCount(firstProcessor()));
}
