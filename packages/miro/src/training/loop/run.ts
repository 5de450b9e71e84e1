/**
 * A training: in this process alone, as one of several processes that a launcher has started (srun, torchrun), or in
 * processes of its own, one for each device of the recipe. What a process does is in train-process.ts.
 */
import { hostname } from "node:os";
import { cuda } from "@miro-t2i/torch";
import { checkObject } from "../../arguments.js";
import { exitCodeOf, InvalidInputError, MiroError } from "../../errors.js";
import { message, option } from "../../message.js";
import { counted } from "../../numbers.js";
import { type RankPlace, rankPlaceOf } from "../process-group/launch-environment.js";
import { DataParallelGroup, isLostRank } from "../process-group/process-group.js";
import { planOf } from "../recipes/batch-plan.js";
import type { Recipe } from "../recipes/recipe.js";
import type { RunOptions, RunResult } from "./run-options.js";
import { runRanks } from "./spawn-ranks.js";
import { trainProcess } from "./train-process.js";

export type { RunOptions, RunResult } from "./run-options.js";

/** Trains by a recipe. */
export async function runTraining(options: RunOptions): Promise<RunResult> {
  checkObject("options", options, "{ recipe, output, … }", ["recipe", "output"]);
  checkObject("recipe", options.recipe, "a recipe, as loadRecipe gives it", ["network", "trainer", "data"]);
  const { trainer } = options.recipe;
  const place = rankPlaceOf(process.env);
  checkProcesses(trainer, place);
  if (place === null)
    return planOf(trainer).worldSize > 1 ? runRanks(options) : trainProcess(options, DataParallelGroup.alone());
  const group = await DataParallelGroup.join(place, trainer, options);
  try {
    return await trainProcess(options, group);
  } catch (error) {
    throw options.signal?.aborted ? error : ofRank(error, place);
  } finally {
    await group.leave();
  }
}

/** An error with the process and the machine that it is of: the log of a job has those of all of them. */
function ofRank(cause: unknown, { rank, worldSize }: RankPlace): unknown {
  if (!(cause instanceof Error) || isLostRank(cause)) return cause;
  const wording = message`rank ${rank} of ${worldSize} on ${hostname()}: ${cause}`;
  return exitCodeOf(cause) === 2 ? new InvalidInputError(wording, { cause }) : new MiroError(wording, { cause });
}

/**
 * Compares the processes and GPUs that there are with those that the recipe speaks of.
 * @throws InvalidInputError naming the setting
 */
export function checkProcesses(trainer: Recipe["trainer"], place: RankPlace | null): void {
  const { devices, numNodes, device } = trainer;
  const { worldSize } = planOf(trainer);
  if (place !== null && place.worldSize !== worldSize)
    throw new InvalidInputError(
      `trainer.devices × trainer.num_nodes: ${worldSize}, but the environment starts ${counted(place.worldSize, "process", "processes")} (SLURM_STEP_NUM_TASKS or WORLD_SIZE); make them agree`,
    );
  if (place === null && numNodes > 1)
    throw new InvalidInputError(
      message`trainer.num_nodes: ${numNodes} machines need one process for each device, started with srun or torchrun (${option("dryRun", true)} works without)`,
    );
  if (place !== null || device === "cpu") return;
  const gpus = cuda.isAvailable() ? cuda.deviceCount() : 0;
  if (devices > gpus)
    throw new InvalidInputError(
      `trainer.devices: expected at most the ${counted(gpus, "GPU")} of this machine (received ${devices}); trainer.device=cpu trains without${gpus === 0 ? ", miro doctor says why none was found" : ""}`,
    );
}
