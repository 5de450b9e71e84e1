/** A whole training and all that it tells, to be compared with another one. */
import { manualSeed } from "@miro-t2i/torch";
import { GradScaler } from "@miro-t2i/torch/optim";
import type { Capture } from "../../flow/recording.js";
import type { LogRecord } from "../logging/logging.js";
import { assemble } from "../loop/assemble.js";
import { WarmupCosine } from "../loop/lr-schedule.js";
import { openBatches } from "../loop/open-data.js";
import { Trainer } from "../loop/trainer.js";
import type { TrainerHooks, TrainerOptions } from "../loop/trainer-parts.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import { planOf } from "../recipes/batch-plan.js";
import { bitsOf, tinyRecipe } from "./tiny.js";

export interface Told {
  records: LogRecord[];
  /** How many batches had been taken when each was told. */
  taken: number[];
  warnings: string[];
  /** Losses of the progress. */
  losses: number[];
  /** Steps at which a checkpoint was asked for, and its values. */
  stored: [step: number, values: string[]][];
  error: string | null;
}

/** What a whole training by the tiny recipe tells, without figures of time and memory. */
export async function trained(
  trainer: object,
  rest: object,
  {
    readsLater = false,
    capture = null,
    group = DataParallelGroup.alone(),
    hooks = {},
    ...options
  }: Partial<Pick<TrainerOptions, "readsLater" | "padsTexts" | "validation" | "samples">> & {
    capture?: Capture | null;
    group?: DataParallelGroup;
    hooks?: Pick<TrainerHooks, "onValidate" | "onSamples">;
  } = {},
): Promise<Told> {
  const recipe = tinyRecipe(trainer, rest);
  const { trainer: settings } = recipe;
  manualSeed(0);
  const parts = assemble(recipe);
  const { network, preconditioning, emas, optimizer } = parts;
  await group.synchronize({ network, preconditioning }, { reduces: capture === null });
  const source = await openBatches(recipe, group, { onMessage: () => {}, warn: () => {} });
  let taken = 0;
  const ready = new Set<number>();
  const told: Told = { records: [], taken: [], warnings: [], losses: [], stored: [], error: null };
  const run = new Trainer(
    {
      ...parts,
      scaler: settings.precision === "16-mixed" ? new GradScaler({ initScale: 2 ** 40, growthInterval: 2 }) : null,
      schedule: new WarmupCosine(optimizer, { warmupSteps: 3, totalSteps: 9, rate: 1 }),
      source: {
        async ready(step) {
          await source.ready(step);
          ready.add(step);
        },
        batch(step) {
          if (!ready.delete(step)) throw new Error(`batch ${step} is taken again`); // shards give each once
          taken = Math.max(taken, step + 1);
          return source.batch(step);
        },
        close: () => source.close(),
      },
      capture,
      group,
    },
    {
      ...settings,
      accumulateGradBatches: planOf(settings).accumulateGradBatches,
      seed: recipe.seed,
      ema: recipe.ema,
      samples: { everyNSteps: 0, offset: 0 },
      validation: { everyNSteps: 0 },
      readsLater,
      ...options,
    },
    {
      ...hooks,
      onLog: ({ step, ...figures }) => {
        const steady = Object.entries(figures).filter(([name]) => !/^(speed|memory|seconds)/.test(name));
        told.taken.push(taken);
        told.records.push({ step, ...Object.fromEntries(steady) });
      },
      onProgress: ({ loss }) => told.losses.push(loss),
      onWarning: (_, message) => told.warnings.push(message),
      onCheckpoint: () => {
        const { state, network, emas, optimizer } = run.checkpoint({});
        const tensors = Object.entries({ ...network, ...optimizer, ...emas.ema_network }).map(
          ([name, t]) => `${name} ${bitsOf(t)}`,
        );
        told.stored.push([state.step, [JSON.stringify({ ...state, seconds: 0 }), ...tensors]]);
      },
    },
  );
  try {
    await run.run();
  } catch (error) {
    told.error = (error as Error).message;
  }
  for (const module of [network, preconditioning, ...[...emas.values()].map(({ module }) => module)]) module.dispose();
  return told;
}
