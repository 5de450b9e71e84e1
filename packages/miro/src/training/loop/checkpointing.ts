/** A training as a checkpoint, and a training that goes on from one. */
import { noGrad, type Tensor } from "@miro-t2i/torch";
import { MiroError } from "../../errors.js";
import type { Rin } from "../../networks/rin.js";
import type { NamedTensors, TrainingCheckpoint, TrainingState } from "../state/checkpoint.js";
import type { Ema } from "./ema.js";
import type { TrainerParts } from "./trainer-parts.js";

/** Name of the first average. */
const DEFAULT_EMA = "ema_network";

/** The EMA weights by their published names. */
export function emasOf({ emas, ema }: TrainerParts): ReadonlyMap<string, Ema<Rin>> {
  return emas ?? new Map([[DEFAULT_EMA, ema]]);
}

/** How far a training is, and what it was told: what a checkpoint holds beside the tensors of its parts. */
export type TrainingProgress = Pick<
  TrainingState,
  "step" | "skippedSteps" | "seconds" | "batches" | "unlogged" | "recipe"
>;

/** The tensors are the live ones, not copies. */
export function checkpointOf(parts: TrainerParts, progress: TrainingProgress): TrainingCheckpoint {
  const { network, preconditioning, optimizer, scaler } = parts;
  const { step: optimizerStep, tensors } = optimizer.stateDict();
  const emas = [...emasOf(parts)];
  return {
    state: {
      format: 1,
      ...progress,
      emaUpdates: emas[0]![1].updates,
      optimizerStep,
      ...(scaler ? { scaler: scaler.stateDict() } : {}),
    },
    network: Object.fromEntries([...network.stateDict("network"), ...preconditioning.stateDict("preconditioning")]),
    emas: Object.fromEntries(emas.map(([name, { module }]) => [name, Object.fromEntries(module.stateDict())])),
    optimizer: tensors,
  };
}

/** Tensors of the shapes that a checkpoint has once the optimizer has moments, which it gets in its first step. */
export function checkpointForms(parts: TrainerParts, trainable: readonly Tensor[]): Tensor[] {
  const { network, preconditioning, optimizer } = parts;
  const modules = [network, preconditioning, ...[...emasOf(parts).values()].map(({ module }) => module)];
  const moments = Object.values(optimizer.stateDict().tensors);
  return [
    ...modules.flatMap((module) => [...module.stateDict().values()]),
    ...(moments.length > 0 ? moments : [...trainable, ...trainable]),
  ];
}

/** Copies a checkpoint's tensors into the parts. @throws MiroError when it lacks EMA weights */
export function restoreParts(parts: TrainerParts, checkpoint: TrainingCheckpoint): void {
  const { network, preconditioning, optimizer, scaler } = parts;
  const { state } = checkpoint;
  noGrad(() => {
    network.loadStateDict(withoutPrefix("network.", checkpoint.network));
    preconditioning.loadStateDict(withoutPrefix("preconditioning.", checkpoint.network));
    for (const [name, ema] of emasOf(parts)) {
      const average = checkpoint.emas[name];
      if (average === undefined) {
        const there = Object.keys(checkpoint.emas).join(", ");
        throw new MiroError(`ema.decay asks for EMA weights ${name}, the checkpoint has ${there}`);
      }
      ema.module.loadStateDict(average);
      ema.updates = state.emaUpdates;
    }
    // Learning rates and the like are the recipe's: a changed recipe counts.
    optimizer.loadStateDict({
      step: state.optimizerStep,
      tensors: checkpoint.optimizer,
      groups: optimizer.stateDict().groups,
    });
  });
  if (state.scaler) scaler?.loadStateDict(state.scaler);
}

function withoutPrefix(prefix: string, tensors: NamedTensors): NamedTensors {
  const own = Object.entries(tensors).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}
