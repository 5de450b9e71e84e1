/**
 * How the samples of one optimizer step are divided:
 *
 *   trainer.batch_size = device_batch_size × devices × num_nodes × accumulate_grad_batches
 *
 * exactly. Two of the three on the right that a recipe may leave open follow from the others; what does not come out
 * even is refused.
 */
import { counted, plural } from "../../numbers.js";
import { type RecipeFault, recipeFault } from "../batches/recipe-fault.js";

/** The part of a recipe that decides it. */
export interface BatchSettings {
  /** Samples of one optimizer step. */
  batchSize: number;
  /** Processes on each node. */
  devices: number;
  numNodes: number;
  /** Samples that a device computes at once. */
  deviceBatchSize?: number | undefined;
  /** Accumulation steps in which a device computes its share. */
  accumulateGradBatches?: number | undefined;
}

/** The same, complete. */
export interface BatchPlan {
  batchSize: number;
  /** Processes in all. */
  worldSize: number;
  /** Samples that a device computes at once. */
  deviceBatchSize: number;
  accumulateGradBatches: number;
}

/** The division of a batch, or why there is none. */
export function batchPlan(settings: BatchSettings): BatchPlan | RecipeFault {
  const { batchSize, devices, numNodes, deviceBatchSize, accumulateGradBatches } = settings;
  const worldSize = devices * numNodes;
  const share = batchSize / worldSize;
  const processes = `${counted(devices, "device")} × ${counted(numNodes, "node")}`;
  if (!Number.isInteger(share))
    return recipeFault(
      "trainer.batch_size",
      `expected a multiple of the ${counted(worldSize, "process", "processes")} (${processes}) (received ${batchSize})`,
    );
  const steps = accumulateGradBatches ?? (deviceBatchSize === undefined ? 1 : share / deviceBatchSize);
  const atOnce = deviceBatchSize ?? share / steps;
  if (!Number.isInteger(steps) || !Number.isInteger(atOnce) || atOnce * steps !== share) {
    const open = deviceBatchSize === undefined ? "accumulate_grad_batches" : "device_batch_size";
    const both = deviceBatchSize !== undefined && accumulateGradBatches !== undefined;
    const expected = both ? `device_batch_size × accumulate_grad_batches = ${share}` : `a divisor of ${share}`;
    const received = both ? `${deviceBatchSize} × ${accumulateGradBatches}` : (deviceBatchSize ?? steps);
    const found = `${counted(batchSize, "sample")} ${plural(batchSize, "is", "are")} ${share} for each of the ${counted(worldSize, "process", "processes")} (${processes})`;
    return recipeFault(`trainer.${open}`, `${found}; expected ${expected} (received ${received})`);
  }
  return { batchSize, worldSize, deviceBatchSize: atOnce, accumulateGradBatches: steps };
}

/** The division of a checked recipe's batch. */
export function planOf(settings: BatchSettings): BatchPlan {
  const plan = batchPlan(settings);
  if ("key" in plan) throw new TypeError(plan.text); // parseRecipe has refused it
  return plan;
}
