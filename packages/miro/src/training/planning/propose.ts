/**
 * What a training should be like, from its data and this machine: batch, threads, steps, schedule, how often something
 * is stored, and how long it takes. What the user has set stays; the rest is proposed as overrides of the recipe, and
 * the recipe with them is checked as every recipe is.
 *
 * Steps are as many as 25 passes over the data take, which is what `emoji-shards` makes of its 8,192 pictures. Of fewer
 * pictures each is seen more often, by the square root; starting from weights takes a quarter.
 */
import { cuda } from "@miro-t2i/torch";
import { availableMemory, processors } from "@miro-t2i/torch/limits";
import { counted } from "../../numbers.js";
import { availableDevices, cudaIndex } from "../../pipeline/loading/device.js";
import { measurePeakFlops } from "../logging/peak-flops.js";
import { planOf } from "../recipes/batch-plan.js";
import { MATMUL_DTYPE } from "../recipes/precision.js";
import { type Recipe, recipeToJson } from "../recipes/recipe.js";
import { type DryRunReport, dryRun } from "./dry-run.js";
import type { StartOptions } from "./folder-check.js";
import { type MeasuredSteps, measureSteps } from "./measure-steps.js";
import { memoryPlan } from "./memory-plan.js";
import { modelSize } from "./model-size.js";

const PASSES = 25;
const USUAL_SAMPLES = 8192;
const FROM_WEIGHTS = 0.25;
/** Share of the free memory that a training may take. */
const MEMORY_SHARE = 0.8;
/** A step that would take longer is not made: its time is estimated. */
const LONGEST_MEASURED_SECONDS = 5;
/** How long the steps of one choice of threads are measured. */
const MEASURING_SECONDS = 3;
/** Share of the best matrix product that a step is taken to reach where it is not measured. */
const EFFICIENCY = 0.5;
/** What an interruption may cost. */
const CHECKPOINT_SECONDS = 600;
/** EMA weights look back over this part of a run at most. */
const EMA_PART = 0.25;

/** How long a step takes. */
export type StepTime =
  | ({ how: "measured" } & MeasuredSteps)
  | { how: "estimated"; secondsPerStep: number; tflops: number }
  | { how: "unknown"; reason: string };

/** What {@link proposeTraining} proposes. */
export interface TrainingProposal {
  /** Keys of the recipe whose values are proposed. */
  overrides: Record<string, number>;
  /** The dry run of the recipe with them. */
  report: DryRunReport;
  steps: number;
  device: string;
  /** Bytes that are free on the device; null where it is not of this machine. */
  freeMemory: number | null;
  time: StepTime;
  /** Seconds of all steps; null where the time of one is not known. */
  totalSeconds: number | null;
}

/** What {@link proposeTraining} works with. */
export interface ProposalOptions {
  /** The checked recipe with `key=value` behind its own. */
  compose(overrides: readonly string[]): Recipe;
  /** Whether the user has set a value, which then stays. */
  isGiven(key: string): boolean;
  /** How it would be started. */
  start: StartOptions;
  signal?: AbortSignal | undefined;
  onMessage?: ((message: string) => void) | undefined;
}

/** Proposes a training. Where data are missing the report says so, and the steps stay those of the recipe. */
export async function proposeTraining(options: ProposalOptions): Promise<TrainingProposal> {
  const proposal = new Overrides(options);
  // Another machine may be planned for: that this one lacks its devices is said by the time and the memory.
  const here = availableDevices().includes(proposal.recipe.trainer.device);
  const start = { ...options.start, readAll: true, here };
  const { data, flops } = await dryRun(proposal.recipe, start);
  const samples = data.samples === 0 ? null : data.samples; // from none nothing follows
  const freeMemory = freeMemoryOf(proposal.recipe.trainer.device);
  proposeBatch(proposal, samples);
  proposeMicroBatch(proposal, flops.textTokens, freeMemory);
  const time = await proposeThreads(proposal, flops.perSample, options);
  proposeSteps(proposal, samples);
  proposeSchedule(proposal, time.how === "unknown" ? null : time.secondsPerStep);
  const { device, maxSteps } = proposal.recipe.trainer;
  return {
    overrides: proposal.changes(),
    report: await dryRun(proposal.recipe, start),
    steps: maxSteps,
    device,
    freeMemory,
    time,
    totalSeconds: time.how === "unknown" ? null : time.secondsPerStep * maxSteps,
  };
}

/** A recipe with what is proposed so far. */
class Overrides {
  readonly #values = new Map<string, number>();
  readonly #options: ProposalOptions;

  constructor(options: ProposalOptions) {
    this.#options = options;
  }

  get recipe(): Recipe {
    return this.with({});
  }

  /** The recipe with further values. */
  with(values: Readonly<Record<string, number>>): Recipe {
    const all = Object.entries({ ...Object.fromEntries(this.#values), ...values });
    return this.#options.compose(all.map(([key, value]) => `${key}=${value}`));
  }

  isGiven(key: string): boolean {
    return this.#options.isGiven(key);
  }

  propose(values: Readonly<Record<string, number>>): void {
    for (const [key, value] of Object.entries(values)) if (!this.isGiven(key)) this.#values.set(key, value);
  }

  /** What differs from the recipe as it was. */
  changes(): Record<string, number> {
    const before = recipeToJson(this.#options.compose([]));
    const valueAt = (key: string) =>
      key.split(".").reduce<unknown>((at, part) => Reflect.get(Object(at), part), before);
    return Object.fromEntries([...this.#values].filter(([key, value]) => valueAt(key) !== value));
  }
}

/** A batch is no larger than the data. */
function proposeBatch(proposal: Overrides, samples: number | null): void {
  const {
    batchSize,
    devices,
    numNodes,
    deviceBatchSize,
    accumulateGradBatches,
    replicas = 1,
  } = proposal.recipe.trainer;
  if (samples === null || samples >= batchSize || proposal.isGiven("trainer.batch_size")) return;
  let fitting = devices * numNodes;
  while (2 * fitting <= samples) fitting *= 2;
  const share = fitting / (devices * numNodes);
  proposal.propose({
    "trainer.batch_size": fitting,
    ...(deviceBatchSize !== undefined && { "trainer.device_batch_size": share }),
    ...(accumulateGradBatches !== undefined && { "trainer.accumulate_grad_batches": 1 }),
    ...(replicas > share && { "trainer.replicas": share }),
  });
}

/** What a device computes at once fits into its memory, with more accumulation steps where it would not. */
function proposeMicroBatch(proposal: Overrides, textTokens: number, free: number | null): void {
  const given = ["device_batch_size", "accumulate_grad_batches"].some((key) => proposal.isGiven(`trainer.${key}`));
  if (free === null || given) return;
  const { recipe } = proposal;
  const size = modelSize(recipe);
  const { deviceBatchSize, accumulateGradBatches, batchSize, worldSize } = planOf(recipe.trainer);
  const share = batchSize / worldSize;
  // Processes on CPUs share the memory of their machine.
  const sharing = recipe.trainer.device === "cpu" ? recipe.trainer.devices : 1;
  const settings = (micro: number) => ({
    "trainer.device_batch_size": micro,
    ...(recipe.trainer.accumulateGradBatches !== undefined && { "trainer.accumulate_grad_batches": share / micro }),
    ...((recipe.trainer.replicas ?? 1) > micro && { "trainer.replicas": micro }),
  });
  const fits = (micro: number) =>
    sharing * memoryPlan(proposal.with(settings(micro)), size, textTokens).total <= MEMORY_SHARE * free;
  if (fits(deviceBatchSize)) return;
  const smaller = Array.from({ length: deviceBatchSize }, (_, i) => deviceBatchSize - i).filter((n) => share % n === 0);
  const micro = smaller.find(fits) ?? 1;
  if (share / micro !== accumulateGradBatches) proposal.propose(settings(micro));
}

/** How the cores are used, by trying it, and how long a step takes so. @param sampleFlops arithmetic of a sample */
async function proposeThreads(
  proposal: Overrides,
  sampleFlops: number,
  { signal, onMessage }: ProposalOptions,
): Promise<StepTime> {
  const { recipe } = proposal;
  const { device, precision, threads, replicas = 1 } = recipe.trainer;
  const { batchSize, worldSize, deviceBatchSize } = planOf(recipe.trainer);
  const here = availableDevices().includes(device);
  const peak = recipe.logger.peakTflops === undefined ? null : recipe.logger.peakTflops * 1e12;
  if (!here && peak === null)
    return {
      how: "unknown",
      reason: `this machine has no ${device}; logger.peak_tflops=N, what the device does in 10¹² operations a second, gives an estimate`,
    };
  const flops = peak ?? measurePeakFlops({ device, dtype: MATMUL_DTYPE[precision] });
  const secondsPerStep = (sampleFlops * batchSize) / worldSize / (EFFICIENCY * flops);
  if (!here || worldSize > 1 || secondsPerStep > LONGEST_MEASURED_SECONDS)
    return { how: "estimated", secondsPerStep, tflops: (EFFICIENCY * flops) / 1e12 };

  const cores = processors();
  const own = { "trainer.threads": threads, "trainer.replicas": replicas };
  const others =
    device === "cpu" && cores > 1
      ? [
          { "trainer.threads": 0, "trainer.replicas": 1 },
          { "trainer.threads": 1, "trainer.replicas": Math.min(cores, deviceBatchSize) },
        ]
      : [];
  const free = !proposal.isGiven("trainer.threads") && !proposal.isGiven("trainer.replicas");
  const choices = [own, ...(free ? others : [])].filter(
    (choice, i, all) => all.findIndex((other) => JSON.stringify(other) === JSON.stringify(choice)) === i,
  );
  onMessage?.(`measuring steps with ${counted(choices.length, "choice")} of threads`);
  const measured: { choice: typeof own; steps: MeasuredSteps }[] = [];
  for (const choice of choices)
    measured.push({ choice, steps: await measureSteps(proposal.with(choice), { seconds: MEASURING_SECONDS, signal }) });
  const best = measured.reduce((a, b) => (b.steps.secondsPerStep < a.steps.secondsPerStep ? b : a));
  proposal.propose(best.choice);
  return { how: "measured", ...best.steps };
}

function proposeSteps(proposal: Overrides, samples: number | null): void {
  const { recipe } = proposal;
  if (samples === null) return;
  const passes = PASSES * Math.max(1, Math.sqrt(USUAL_SAMPLES / samples));
  const part = recipe.initialization.from === undefined ? 1 : FROM_WEIGHTS;
  const steps = Math.max(10, Number(((part * passes * samples) / recipe.trainer.batchSize).toPrecision(2)));
  if (proposal.isGiven("trainer.max_steps")) return;
  const { totalSteps, warmupSteps } = recipe.lrScheduler;
  // All at once: a schedule that is longer than the steps would be refused.
  proposal.propose({
    "trainer.max_steps": steps,
    ...(totalSteps !== undefined && { "lr_scheduler.total_steps": steps }),
    "lr_scheduler.warmup_steps": Math.min(warmupSteps, Math.ceil(steps / 20)),
  });
}

/** What is counted in steps fits their number. */
function proposeSchedule(proposal: Overrides, secondsPerStep: number | null): void {
  const { trainer, lrScheduler, ema, samples, validation } = proposal.recipe;
  const { maxSteps } = trainer;
  if (lrScheduler.warmupSteps > maxSteps / 5)
    proposal.propose({ "lr_scheduler.warmup_steps": Math.ceil(maxSteps / 20) });
  if (typeof ema.decay === "number" && 1 / (1 - ema.decay) > EMA_PART * maxSteps)
    proposal.propose({ "ema.decay": Math.max(0, Number((1 - 1 / (EMA_PART * maxSteps)).toPrecision(3))) });
  const seldom = (every: number) => every > maxSteps / 4;
  const tenth = Math.max(1, Math.floor(maxSteps / 10));
  const timely = secondsPerStep === null ? tenth : Math.max(1, Math.floor(CHECKPOINT_SECONDS / secondsPerStep));
  if (seldom(trainer.checkpointEveryNSteps) || trainer.checkpointEveryNSteps > timely)
    proposal.propose({ "trainer.checkpoint_every_n_steps": Math.min(tenth, timely) });
  if (trainer.logEveryNSteps > maxSteps / 20)
    proposal.propose({ "trainer.log_every_n_steps": Math.max(1, Math.floor(maxSteps / 100)) });
  if (samples.everyNSteps > 0 && seldom(samples.everyNSteps)) proposal.propose({ "samples.every_n_steps": tenth });
  if (validation.everyNSteps > 0 && seldom(validation.everyNSteps))
    proposal.propose({ "validation.every_n_steps": tenth });
}

/** Bytes that are free on a device; null for one that this machine has not. */
function freeMemoryOf(device: string): number | null {
  if (!availableDevices().includes(device)) return null;
  const gpu = cudaIndex(device);
  return gpu === null ? availableMemory() : cuda.devices()[gpu]!.memoryBytes - cuda.memory(gpu).allocatedBytes;
}
