import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nn, randn, type Tensor } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  openRunFolder,
  type PretrainingRun,
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

const schema = z.object({ name: z.string().default("double"), widthOfInput: z.number().default(3) });

async function run(
  name: string,
  what = task(),
  options: Partial<Pick<PretrainingRun, "resume" | "allowChanges" | "signal" | "recipe">> = {},
) {
  const output = join(root, name);
  openRunFolder({ output, resume: options.resume ?? false }, trainer);
  const recipe = schema.parse({});
  return runPretraining({ task: what, trainer, seed: 1, recipe, schema, output, resume: false, ...options });
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

  it("refuses to go on by another recipe, unless that is insisted on", async () => {
    await run("changed", task(), { recipe: {} }); // as stored before the recipes had these keys
    const other = { name: "another", widthOfInput: 4 };
    await expect(run("changed", task(), { resume: true, recipe: other })).rejects.toThrow(
      /step-00000012: the run was made by another recipe:\n {2}width_of_input: 3 in the checkpoint, 4 now\n.*--allow-changes/,
    );
    expect((await run("changed", task(), { resume: true, recipe: other, allowChanges: true })).step).toBe(12);
    // From now on the new recipe is the run's; a name decides nothing.
    expect((await run("changed", task(), { resume: true, recipe: { ...other, name: "third" } })).step).toBe(12);
  });

  it("does not touch an earlier run unless asked to", async () => {
    await run("kept");
    await expect(run("kept")).rejects.toThrow(/holds a run at step 12.*--resume/);
  });
});
