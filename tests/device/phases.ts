/** The phases of the device check in their order, with the time that each may take. */
import type { Phase } from "./checks.js";

interface PhaseSpec {
  /** Seconds after which it is stopped, however much of the budget is left. */
  limitSeconds: number;
  load(): Promise<Phase>;
}

export const PHASES = {
  smoke: { limitSeconds: 90, load: async () => (await import("./smoke.js")).smoke },
  conformance: { limitSeconds: 120, load: async () => (await import("./conformance.js")).conformance },
  parity: { limitSeconds: 120, load: async () => (await import("./parity.js")).parity("float32") },
  parity16: { limitSeconds: 60, load: async () => (await import("./parity.js")).parity("bfloat16") },
  step: { limitSeconds: 60, load: async () => (await import("./step.js")).step },
  train: { limitSeconds: 180, load: async () => (await import("./train.js")).train },
  replay: { limitSeconds: 60, load: async () => (await import("./replay.js")).replay },
  nccl: { limitSeconds: 90, load: async () => (await import("./groups.js")).groups },
  memory: { limitSeconds: 90, load: async () => (await import("./memory.js")).pictures200 },
  scorers: { limitSeconds: 60, load: async () => (await import("./scorers.js")).scorers },
} as const satisfies Record<string, PhaseSpec>;

export type PhaseName = keyof typeof PHASES;
export const PHASE_NAMES = Object.keys(PHASES) as PhaseName[];
