/**
 * Which of several processes this one is. Whoever starts the processes tells it by variables of the environment:
 *
 *   RANK, LOCAL_RANK, WORLD_SIZE                           torchrun and its like
 *   SLURM_PROCID, SLURM_LOCALID, SLURM_STEP_NUM_TASKS      srun
 *
 * and where they meet by MASTER_ADDR and MASTER_PORT; under srun both have defaults: the first host of the step, and a
 * port that follows from the numbers of job and step.
 */
import { servedBy } from "@miro-t2i/torch/distributed";
import { InvalidInputError } from "../../errors.js";
import { isLoopback } from "../../loopback.js";

/** A process among those that train together. */
export interface RankPlace {
  /** From 0. */
  rank: number;
  /** The same among the processes on its machine. */
  localRank: number;
  worldSize: number;
  /** Whether all of them are on this machine. */
  oneMachine: boolean;
  /** Where they meet, and whether this process serves the meeting point. */
  host: string;
  port: number;
  serves: boolean;
  /** What their keys begin with, where the meeting point is not of this run alone. */
  prefix?: string;
}

/**
 * The place that the environment gives this process.
 * @returns null where it was started alone
 * @throws InvalidInputError naming the variable that is missing or wrong
 */
export function rankPlaceOf(environment: NodeJS.ProcessEnv): RankPlace | null {
  if (environment.RANK && Number(environment.WORLD_SIZE ?? 1) !== 1) return fromTorchrun(environment);
  // The batch script of a job has SLURM_PROCID too; only a step has a number.
  if (environment.SLURM_STEP_ID && Number(environment.SLURM_STEP_NUM_TASKS ?? 1) !== 1) return fromSlurm(environment);
  return null;
}

function fromTorchrun(environment: NodeJS.ProcessEnv): RankPlace {
  const number = numberOf(environment);
  const worldSize = number("WORLD_SIZE", 1);
  const rank = number("RANK", 0, worldSize - 1);
  const localRank = environment.LOCAL_RANK ? number("LOCAL_RANK", 0) : rank;
  if (!environment.MASTER_ADDR)
    throw new InvalidInputError(
      "MASTER_ADDR: RANK and WORLD_SIZE are set, so it must name the machine of rank 0 (MASTER_PORT a free port there); unset RANK to train in one process",
    );
  return {
    rank,
    localRank,
    worldSize,
    oneMachine:
      Number(environment.LOCAL_WORLD_SIZE ?? (isLoopback(environment.MASTER_ADDR) ? worldSize : 0)) === worldSize,
    host: environment.MASTER_ADDR,
    port: number("MASTER_PORT", 1, 65535),
    ...servedBy(environment, rank),
  };
}

function fromSlurm(environment: NodeJS.ProcessEnv): RankPlace {
  const number = numberOf(environment);
  const worldSize = number("SLURM_STEP_NUM_TASKS", 1);
  const rank = number("SLURM_PROCID", 0, worldSize - 1);
  const nodes = environment.SLURM_STEP_NODELIST ?? environment.SLURM_JOB_NODELIST ?? "";
  const host = environment.MASTER_ADDR || firstHost(nodes);
  if (host === "")
    throw new InvalidInputError("MASTER_ADDR: expected the machine of rank 0; SLURM_STEP_NODELIST names none either");
  return {
    rank,
    localRank: number("SLURM_LOCALID", 0),
    worldSize,
    oneMachine: Number(environment.SLURM_STEP_NUM_NODES ?? environment.SLURM_NNODES) === 1,
    host,
    port: environment.MASTER_PORT ? number("MASTER_PORT", 1, 65535) : portOf(environment),
    serves: rank === 0,
  };
}

/** Steps of a job may run side by side. */
function portOf(environment: NodeJS.ProcessEnv): number {
  const number = numberOf(environment);
  return 29500 + ((number("SLURM_JOB_ID", 0) + number("SLURM_STEP_ID", 0)) % 1000);
}

function numberOf(environment: NodeJS.ProcessEnv) {
  return (name: string, least: number, most = Number.MAX_SAFE_INTEGER): number => {
    const text = environment[name] ?? "";
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidInputError(
        `${name}: expected a whole number from ${least}${most < Number.MAX_SAFE_INTEGER ? ` to ${most}` : ""}, found ${text === "" ? "nothing" : JSON.stringify(text)}`,
      );
    return value;
  };
}

/**
 * The first host of SLURM's short form of a list, in which any part of a name may be a list of numbers in brackets:
 * `gpu[03-05,09],cpu1` begins with `gpu03`, `rack[1-2]node[3-4]` with `rack1node3`. Empty where the list is none.
 */
export function firstHost(list: string): string {
  let host = "";
  for (let at = 0; at < list.length && list[at] !== ","; at++) {
    if (list[at] !== "[") {
      host += list[at];
      continue;
    }
    const close = list.indexOf("]", at);
    const first = close < 0 ? null : /^[0-9A-Z]+/.exec(list.slice(at + 1, close)); // SLURM counts in base 36 too
    if (first === null) return "";
    host += first[0];
    at = close;
  }
  return host.trim();
}
