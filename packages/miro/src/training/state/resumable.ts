/** A training as far as its state is concerned: what a checkpoint stores and restores. */
import type { nn, Tensor } from "@miro-t2i/torch";
import type { GradScaler, OptimizerState } from "@miro-t2i/torch/optim";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";

/** EMA weights: a copy of the network that follows it, and how often it was updated. */
export interface EmaWeights {
  readonly module: nn.Module & Rin;
  updates: number;
}

/** The part of an optimizer that a checkpoint holds. */
export interface ResumableOptimizer {
  paramGroups: { params: Tensor[] }[];
  stateDict(): OptimizerState;
  loadStateDict(state: OptimizerState): void;
}

/** A training that can go on from stored state. */
export interface Resumable {
  /** Optimizer steps done. */
  step: number;
  readonly parts: {
    readonly network: Rin;
    readonly preconditioning: FlowPrecond;
    readonly optimizer: ResumableOptimizer;
    readonly scaler?: GradScaler | null;
  };
  /** EMA weights by their published names, the first of them `ema_network`. */
  emas(): ReadonlyMap<string, EmaWeights>;
}
