// 200 steps of `miro train` against the published code's, recorded by record_training.py: same weights, batches and
// draws.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { scope } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { listCheckpoints, loadRecipe, type RunLog, readRunLog, runTraining } from "miro-t2i/training";
import { afterAll, beforeAll, expect, test } from "vitest";
import { referenceFolder, relativeError, thinned } from "../reference/fixture.js";

const fixture = path.join(referenceFolder(), "..", "training");
/** Of record_training.py. */
const FINAL_VALUES = 32;
const output = mkdtempSync(path.join(tmpdir(), "miro-loss-curve-"));
let [ours, recorded]: RunLog[] = [];

beforeAll(async () => {
  await runTraining({ recipe: loadRecipe(path.join(fixture, "recipe.yaml")), output });
  [ours, recorded] = [output, path.join(fixture, "python")].map(readRunLog);
}, 120_000);
afterAll(() => rmSync(output, { recursive: true, force: true }));

// Our log has six digits, so half a unit of the last one is 5e-6 at most.
test.each(["train/loss", "train/raw_loss", "train/grad_norm", "lr-Lamb/pg1", "lr-Lamb/pg2"])(
  "%s is the recorded one within 1e-5 in every step",
  (name) => {
    const [curve, reference] = [ours!.series.get(name)!, recorded!.series.get(name)!];
    expect(reference.steps).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
    expect(curve.steps).toEqual(reference.steps);
    const errors = curve.values.map((value, i) => Math.abs(value / reference.values[i]! - 1));
    expect(Math.max(...errors)).toBeLessThan(1e-5);
  },
);

test("the loss falls, so that the curves are not equal for want of training", () => {
  const { values } = recorded!.series.get("train/raw_loss")!;
  const mean = (some: number[]) => some.reduce((sum, value) => sum + value, 0) / some.length;
  expect(mean(values.slice(-20))).toBeLessThan(0.8 * mean(values.slice(0, 20)));
});

test("weights and averages after the last step are the recorded ones within 1e-5", () => {
  scope(() => {
    const { path: checkpoint } = listCheckpoints(path.join(output, "checkpoints")).at(-1)!;
    const weights = readSafetensors(path.join(checkpoint, "network.safetensors"));
    const averages = readSafetensors(path.join(checkpoint, "ema.safetensors"));
    const expected = readSafetensors(path.join(fixture, "final.safetensors"));
    for (const [name, kept] of expected) {
      // Gradients of zero in theory, see checks.ts.
      if (name.endsWith("k_norm.bias") || name.endsWith("qkv.bias")) continue;
      const full = name.startsWith("ema.") ? averages.get(name.slice("ema.".length)) : weights.get(name);
      expect(full, name).toBeDefined();
      expect(relativeError(thinned(full!, kept, { compact: FINAL_VALUES }), kept), name).toBeLessThan(1e-5);
    }
  });
});
