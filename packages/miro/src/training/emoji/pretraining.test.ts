import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nn, randn, type Tensor } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import {
  openRunFolder,
  type PretrainingTask,
  pretrainerSchema,
  runPretraining,
  seedInitialWeights,
} from "./pretraining.js";

const root = mkdtempSync(join(tmpdir(), "miro-pretraining-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const trainer = pretrainerSchema.parse({
  maxSteps: 12,
  batchSize: 4,
  lr: 0.05,
  warmupSteps: 2,
  threads: 1,
  logEveryNSteps: 1,
  evaluateEveryNSteps: 6,
  checkpointEveryNSteps: 5,
});

/** Learns to double its input; the batch and its noise come from the global generator. */
function task(onStep: (step: number) => void = () => {}): PretrainingTask & { network: nn.Linear } {
  seedInitialWeights(1);
  const network = new nn.Linear(3, 3);
  return {
    network,
    loss(step) {
      onStep(step);
      const x = randn([4, 3]);
      return { loss: nn.functional.mseLoss(network.forward(x), x.mul(2)) };
    },
    evaluate: () => ({ weight: network.weight.abs().mean().item() }),
    export(folder) {
      writeFileSync(join(folder, "done"), "");
    },
  };
}

const values = (t: Tensor) => Array.from(t.detach().data() as Float32Array);

async function run(name: string, what = task(), options: { resume?: boolean; signal?: AbortSignal } = {}) {
  const output = join(root, name);
  openRunFolder(output, options.resume ?? false);
  return runPretraining({ task: what, trainer, seed: 1, recipe: {}, output, resume: false, ...options });
}

describe("runPretraining", () => {
  it("learns, logs every step once and exports", async () => {
    const result = await run("whole");
    expect(result).toMatchObject({ finished: true, step: 12 });
    expect(existsSync(join(result.exported!, "done"))).toBe(true);
    const log = readFileSync(join(root, "whole", "log.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const losses = log.filter((line) => "loss" in line);
    expect(losses.map((line) => line.step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
    expect(losses.at(-1).loss).toBeLessThan(losses[0].loss);
    expect(log.filter((line) => "weight" in line).map((line) => line.step)).toEqual([6, 12]);
  });

  it("gives the same weights, bit for bit, when it is stopped and resumed", async () => {
    const undisturbed = task();
    await run("undisturbed", undisturbed);

    const stop = new AbortController();
    const first = await run(
      "stopped",
      task((step) => step === 6 && stop.abort()),
      { signal: stop.signal },
    );
    expect(first).toMatchObject({ finished: false, step: 7 });
    const second = task();
    await run("stopped", second, { resume: true });
    expect(values(second.network.weight)).toEqual(values(undisturbed.network.weight));
    expect(values(second.network.bias!)).toEqual(values(undisturbed.network.bias!));
  });

  it("does not touch an earlier run unless asked to", async () => {
    await run("kept");
    await expect(run("kept")).rejects.toThrow(/holds a run at step 12.*--resume/);
  });
});
