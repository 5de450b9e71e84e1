/**
 * How long an optimizer step of a recipe takes on this machine, by making some: with its network, its batch and random
 * data, so that nothing has to be prepared. Reading the data is not counted; it goes on beside the computation.
 */
import { zeros } from "@miro-t2i/torch";
import { parseRinConfig } from "../../networks/config.js";
import { withThreads } from "../../with-threads.js";
import { RandomBatches } from "../batches/batches.js";
import { sourceFacts } from "../batches/sources.js";
import { assemble, createCapture } from "../loop/assemble.js";
import { Replicas } from "../loop/thread-replicas.js";
import { Trainer } from "../loop/trainer.js";
import { planOf } from "../recipes/batch-plan.js";
import type { Recipe } from "../recipes/recipe.js";

/** Steps that are measured at least, behind a first one that is not; and at most. */
const FEWEST = 3;
const MOST = 50;

/** What {@link measureSteps} measures. */
export interface MeasuredSteps {
  /** Median. */
  secondsPerStep: number;
  /** How many steps it is the median of. */
  steps: number;
}

/**
 * Makes steps for about so many seconds, three at least, in this process alone.
 * @throws the signal's reason when it is aborted
 */
export function measureSteps(
  recipe: Recipe,
  options: { seconds: number; signal?: AbortSignal | undefined },
): Promise<MeasuredSteps> {
  return withThreads(recipe.trainer.threads, () => measure(recipe, options));
}

async function measure(
  recipe: Recipe,
  { seconds, signal }: { seconds: number; signal?: AbortSignal | undefined },
): Promise<MeasuredSteps> {
  const { trainer: settings } = recipe;
  const config = parseRinConfig(recipe.network);
  const uncondEmbedding = zeros([1, config.labelDim], { device: settings.device });
  const parts = assemble(recipe, { uncondEmbedding });
  const replicas = (settings.replicas ?? 1) > 1 ? new Replicas(recipe, settings.replicas!, parts) : null;
  const enough = new AbortController();
  const ends: number[] = [];
  try {
    const trainer = new Trainer(
      {
        ...parts,
        source: new RandomBatches({
          seed: recipe.seed,
          batchSize: settings.batchSize,
          channels: config.numInputChannels,
          size: config.dataSize,
          textLength: sourceFacts(recipe.data, config).textTokens,
          textWidth: config.labelDim,
          rewardKeys: config.coherenceKeys,
          device: settings.device,
        }),
        capture: createCapture(recipe, () => {}),
        replicas,
      },
      {
        ...settings,
        maxSteps: MOST + 1,
        logEveryNSteps: MOST + 2,
        checkpointEveryNSteps: MOST + 2,
        accumulateGradBatches: planOf(settings).accumulateGradBatches,
        seed: recipe.seed,
        ema: recipe.ema,
        samples: { everyNSteps: 0, offset: 0 },
        validation: { everyNSteps: 0 },
      },
      {
        onProgress: () => {
          ends.push(performance.now());
          if (ends.length > FEWEST && ends.at(-1)! - ends[0]! >= 1000 * seconds) enough.abort();
        },
      },
    );
    await trainer.run(signal === undefined ? enough.signal : AbortSignal.any([signal, enough.signal]));
    signal?.throwIfAborted();
  } finally {
    await replicas?.close();
    for (const { module } of parts.emas.values()) module.dispose();
    parts.network.dispose();
    parts.preconditioning.dispose();
    uncondEmbedding.dispose();
  }
  const durations = ends
    .slice(1)
    .map((end, i) => end - ends[i]!)
    .sort((a, b) => a - b);
  return { secondsPerStep: durations[Math.floor(durations.length / 2)]! / 1000, steps: durations.length };
}
