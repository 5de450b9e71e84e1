import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getNumThreads, nn, randn, setNumThreads, type Tensor } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { MiroError } from "../../errors.js";
import type { RunOptions } from "./run-options.js";
import { runTask } from "./run-task.js";
import { registerTask, type Task, type TaskRecipe, taskRecipeSchema } from "./tasks.js";

const root = mkdtempSync(join(tmpdir(), "miro-task-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const schema = taskRecipeSchema("double", { widthOfInput: z.number().default(3) });
const recipe = schema.parse({
  kind: "double",
  name: "double",
  seed: 1,
  trainer: {
    maxSteps: 12,
    batchSize: 4,
    lr: 0.05,
    warmupSteps: 2,
    threads: 1,
    logEveryNSteps: 1,
    evaluateEveryNSteps: 6,
    checkpointEveryNSteps: 5,
  },
});

/** What the next run trains. */
let current: TestTask;
registerTask("double", {
  schema,
  build(_, { seedInitialWeights }) {
    seedInitialWeights();
    current.network = new nn.Linear(3, 3);
    return current;
  },
});

interface TestTask extends Task {
  network: nn.Linear;
}

/** Learns to double its input; the batch and its noise come from the global generator. */
function task(onStep: (step: number) => void = () => {}): TestTask {
  const learned: TestTask = {
    network: undefined as unknown as nn.Linear, // made by the run
    loss(step) {
      onStep(step);
      const x = randn([4, 3]);
      return { loss: nn.functional.mseLoss(learned.network.forward(x), x.mul(2)) };
    },
    evaluate: () => ({ weight: learned.network.weight.abs().mean().item(), drawn: randn([1]).item() }),
    export(folder, figures) {
      writeFileSync(join(folder, "done"), JSON.stringify(figures));
    },
  };
  return learned;
}

const values = (t: Tensor) => Array.from(t.detach().data() as Float32Array);

function run(name: string, what = task(), options: Partial<RunOptions<TaskRecipe>> = {}) {
  current = what;
  return runTask({ recipe, output: join(root, name), ...options });
}

describe("runTask", () => {
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

  it("leaves the threads of the process as they were", async () => {
    setNumThreads(2); // the recipe has one
    await run("threads");
    expect(getNumThreads()).toBe(2);
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
    const logged = (name: string) =>
      readFileSync(join(root, name, "log.jsonl"), "utf8").replaceAll(/"seconds":[\d.]+/g, '"seconds":0');
    expect(logged("stopped")).toBe(logged("undisturbed"));
    // What is measured is the same too, also when only that is left to be done.
    const measured = (name: string) => JSON.parse(readFileSync(join(root, name, "export", "done"), "utf8"));
    expect(measured("stopped")).toEqual(measured("undisturbed"));
    await run("stopped", task(), { resume: true });
    expect(measured("stopped")).toEqual(measured("undisturbed"));
  });

  it("stops as at its end when its time is over, and can go on", async () => {
    const timed = { ...recipe, trainer: { ...recipe.trainer, maxMinutes: 1e-9 } };
    const first = await run("timed", task(), { recipe: timed });
    expect(first).toMatchObject({ finished: false, outOfTime: true, step: 1, exported: join(root, "timed", "export") });
    expect(await run("timed", task(), { resume: true })).toMatchObject({ finished: true, step: 12 });
  });

  it("keeps its last step where the export cannot be written, and makes no step again for it", async () => {
    const failing = Object.assign(task(), { export: () => Promise.reject(new MiroError("no room")) });
    await expect(run("no-room", failing)).rejects.toThrow(
      "no room; the checkpoint of the last step is stored, and `resume: true` writes the export",
    );
    const steps: number[] = [];
    const exported = await run(
      "no-room",
      task((step) => void steps.push(step)),
      { resume: true },
    );
    expect(steps).toEqual([]);
    expect(existsSync(join(exported.exported!, "done"))).toBe(true);
  });

  it("refuses to go on by another recipe, unless that is insisted on", async () => {
    const { widthOfInput: _, ...asOnceStored } = recipe;
    await run("changed", task(), { recipe: asOnceStored }); // as stored before the recipes had these keys
    const other = { ...recipe, name: "another", widthOfInput: 4 };
    await expect(run("changed", task(), { resume: true, recipe: other })).rejects.toThrow(
      /step-00000012: the run was made by another recipe:\n {2}width_of_input: 3 in the checkpoint, 4 now\n.*`allowChanges: true`/,
    );
    expect((await run("changed", task(), { resume: true, recipe: other, allowChanges: true })).step).toBe(12);
    // From now on the new recipe is the run's; a name decides nothing.
    expect((await run("changed", task(), { resume: true, recipe: { ...other, name: "third" } })).step).toBe(12);
  });

  it("does not touch an earlier run unless asked to", async () => {
    await run("kept");
    await expect(run("kept")).rejects.toThrow(/holds a run at step 12.*`resume: true`/);
  });
});
