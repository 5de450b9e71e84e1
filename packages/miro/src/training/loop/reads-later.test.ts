// On a GPU the figures of a step are read when the gradients of the next one are queued. What is computed is the same.
import { manualSeed, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { GradScaler } from "@miro-t2i/torch/optim";
import { describe, expect, it } from "vitest";
import type { LogRecord } from "../logging/logging.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import { planOf } from "../recipes/batch-plan.js";
import { tinyRecipe } from "../testing/tiny.js";
import { createAverages, createOptimizer } from "./assemble.js";
import { WarmupCosine } from "./lr-schedule.js";
import { createLoss, createNetworks } from "./model.js";
import { openBatches } from "./open-data.js";
import { Trainer } from "./trainer.js";

interface Told {
  records: LogRecord[];
  warnings: string[];
  /** Losses of the progress. */
  losses: number[];
  /** Steps at which a checkpoint was asked for, and its values. */
  stored: [step: number, values: string[]][];
  error: string | null;
}

/** What a whole training tells. */
async function trained(trainer: object, rest: object, readsLater: boolean): Promise<Told> {
  const recipe = tinyRecipe(trainer, rest);
  const { trainer: settings } = recipe;
  manualSeed(0);
  const { network, preconditioning } = createNetworks(recipe);
  const emas = createAverages(recipe, network);
  const empty = scope(() => zeros([1, network.config.labelDim]).keep());
  const optimizer = createOptimizer(recipe, network, preconditioning);
  const group = DataParallelGroup.alone();
  const told: Told = { records: [], warnings: [], losses: [], stored: [], error: null };
  const run = new Trainer(
    {
      network,
      preconditioning,
      ema: [...emas.values()][0]!,
      emas,
      scaler: settings.precision === "16-mixed" ? new GradScaler({ initScale: 2 ** 40, growthInterval: 2 }) : null,
      loss: createLoss(recipe, empty),
      optimizer,
      schedule: new WarmupCosine(optimizer, { warmupSteps: 3, totalSteps: 9, rate: 1 }),
      source: await openBatches(recipe, group, { onMessage: () => {}, warn: () => {} }),
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
    },
    {
      onLog: ({ step, ...figures }) => {
        const steady = Object.entries(figures).filter(([name]) => !/^(speed|memory|seconds)/.test(name));
        told.records.push({ step, ...Object.fromEntries(steady) });
      },
      onProgress: ({ loss }) => told.losses.push(loss),
      onWarning: (_, message) => told.warnings.push(message),
      onCheckpoint: () => {
        const { state, network, emas, optimizer } = run.checkpoint({});
        const tensors = Object.entries({ ...network, ...optimizer, ...emas.ema_network }).map(([name, t]) =>
          bits(name, t),
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
  empty.dispose();
  return told;
}

const bits = (name: string, t: Tensor) => {
  const data = t.detach().data();
  return `${name} ${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64")}`;
};

describe("figures that are read one step later", () => {
  it.each([
    ["in float32, in accumulation steps", { device_batch_size: 2 }, {}],
    ["in float16, with overflows at first", { precision: "16-mixed", max_steps: 24, max_skipped_in_a_row: 99 }, {}],
    [
      "with averages that move in skipped steps, too",
      { precision: "16-mixed" },
      { ema: { decay: 0.9, update_on_skipped_steps: true } },
    ],
  ])("%s: weights, moments, averages, log and warnings are the same", async (_, trainer, rest) => {
    const [later, atOnce] = [await trained(trainer, rest, true), await trained(trainer, rest, false)];
    expect(later.error).toBeNull();
    expect({ ...later, losses: [] }).toEqual({ ...atOnce, losses: [] });
    expect(later.stored.length).toBeGreaterThan(2);
    expect(later.losses.length).toBe(atOnce.losses.length);
    expect(later.losses.every(Number.isFinite)).toBe(atOnce.losses.every(Number.isFinite));
    if ("precision" in trainer) expect(later.warnings.join()).toContain("overflow at the loss scale");
  });

  it("a step that is not finite is named with its own tensors, and the run ends after as many in a row", async () => {
    const trainer = { max_skipped_in_a_row: 3, checkpoint_every_n_steps: 1000, log_every_n_steps: 1000 };
    const rest = { optimizer: { name: "adamw", lr: 1e30 } };
    const [later, atOnce] = [await trained(trainer, rest, true), await trained(trainer, rest, false)];
    expect(atOnce.error).toMatch(/^step 4: loss .*first the output of network\.\S+ .*the step was skipped, 3 in a row/);
    expect(later.error).toBe(atOnce.error);
    expect(later.warnings).toEqual(atOnce.warnings);
    expect(later.warnings.length).toBe(2);
  });
});
