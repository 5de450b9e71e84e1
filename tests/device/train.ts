/**
 * Training on recorded shards: 40 steps in one go and in two parts agree, and half precision follows float32. What is
 * compared is the loss of each step.
 */
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Generator, randn, scope } from "@miro-t2i/torch";
import { writeNpy } from "@miro-t2i/torch/io";
import { loadRecipe, PRECISIONS, type PrecisionName, readRunLog, runTraining } from "miro-t2i/training";
import { repositoryRoot } from "../reference/fixture.js";
import { type Checks, must, within } from "./checks.js";

const STEPS = 40;
const FIRST_PART = 20;

/** A GPU adds up gradients in an order of its own at each run, and training makes more of the difference. */
const RESUMED = { cpu: 1e-6, gpu: { "32-true": 1e-3, "bf16-mixed": 5e-2, "16-mixed": 5e-2 } };
/** Of the mean loss, to float32's. */
const HALF = 5e-2;

export async function train(checks: Checks): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), "miro-device-"));
  try {
    const shards = join(work, "shards");
    cpSync(join(repositoryRoot(), "tests", "reference", "fixtures", "shards", "enriched"), shards, { recursive: true });
    const emptyPrompt = join(work, "uncond_embedding.npy");
    scope(() => writeNpy(emptyPrompt, randn([20, 16], { generator: new Generator().manualSeed(0) })));
    const means = new Map<PrecisionName, number>();
    for (const precision of PRECISIONS) {
      const run = async (folder: string, maxSteps: number, { resume = false, graphs = false } = {}) => {
        const recipe = loadRecipe(join(repositoryRoot(), "scripts", "device", "shards-train.yaml"), [
          `data.dir=${shards}`,
          `data.uncond_embedding=${emptyPrompt}`,
          `trainer.device=${checks.device}`,
          `trainer.precision=${precision}`,
          `trainer.max_steps=${maxSteps}`,
          "trainer.log_every_n_steps=1",
          `trainer.cuda_graphs=${graphs}`,
        ]);
        const warnings: string[] = [];
        const onWarning = (warning: string) => void warnings.push(warning);
        const output = join(work, precision, folder);
        await runTraining({ recipe, output, resume, onWarning });
        must(warnings.length === 0, warnings.join("; "));
        must(existsSync(join(output, "export", "model.safetensors")), "there is no release at the end");
      };
      let whole: number[] = [];
      await checks.check(`${STEPS} steps in ${precision}`, async () => {
        await run("whole", STEPS);
        whole = losses(join(work, precision, "whole"));
        const [first, last] = [mean(whole.slice(0, 5)), mean(whole.slice(-5))];
        must(last < first, `the loss rises from ${first} to ${last}`);
        means.set(precision, mean(whole));
        return `loss ${first.toFixed(3)} → ${last.toFixed(3)}`;
      });
      await checks.check(`${FIRST_PART} steps and ${STEPS - FIRST_PART} resumed in ${precision}`, async () => {
        must(whole.length === STEPS, "the run to compare with has failed");
        await run("parts", FIRST_PART);
        await run("parts", STEPS, { resume: true });
        const parts = losses(join(work, precision, "parts"));
        return within(furthest(parts, whole), checks.onGpu ? RESUMED.gpu[precision] : RESUMED.cpu);
      });
      const recorded = `${STEPS} steps in ${precision} with gradients recorded as CUDA graphs`;
      if (!checks.onGpu) checks.doesNotApply(recorded, "a CPU has no graphs");
      else
        await checks.check(recorded, async () => {
          must(whole.length === STEPS, "the run to compare with has failed");
          await run("graphs", STEPS, { graphs: true });
          const graphs = losses(join(work, precision, "graphs"));
          const times = ["graphs", "whole"].map((folder) => stepTime(join(work, precision, folder)).toFixed(1));
          const error = furthest(graphs, whole);
          return `${within(error, RESUMED.gpu[precision])}; a step takes ${times[0]} ms, ${times[1]} without`;
        });
      if (precision !== "32-true")
        await checks.check(`mean loss in ${precision} as in 32-true`, () => {
          const [half, exact] = [means.get(precision), means.get("32-true")];
          must(half !== undefined && exact !== undefined, "a run to compare has failed");
          return within(Math.abs(half! - exact!) / Math.abs(exact!), HALF);
        });
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The largest difference of two lists of losses, as a part of the second one's. */
function furthest(losses: readonly number[], reference: readonly number[]): number {
  return Math.max(...losses.map((loss, i) => Math.abs(loss - reference[i]!) / Math.abs(reference[i]!)));
}

/** Milliseconds of a step: the median of the second half of a run. */
function stepTime(folder: string): number {
  const { values } = readRunLog(folder).series.get("speed/step_ms") ?? { values: [] };
  const later = values.slice(values.length / 2).sort((a, b) => a - b);
  return later[later.length >> 1] ?? Number.NaN;
}

/** The loss of each step. @throws Error where one is missing or not finite */
function losses(folder: string): number[] {
  const { steps, values } = readRunLog(folder).series.get("train/loss") ?? { steps: [], values: [] };
  must(steps.length === STEPS, `${steps.length} losses were logged, not ${STEPS}`);
  must(values.every(Number.isFinite), "a loss is not finite");
  return values;
}
