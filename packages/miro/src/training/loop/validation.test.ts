import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { copyPublished, recorded } from "../../data/dataset/testing/published.js";
import { parseRecipe } from "../recipes/recipe.js";
import { bits, tinyRecipeJson } from "../testing/tiny.js";
import { trained } from "../testing/trained.js";
import { runTraining } from "./run.js";

const published = copyPublished();
const root = mkdtempSync(join(tmpdir(), "miro-validation-"));
const { scores } = recorded();
afterAll(() => {
  published.remove();
  rmSync(root, { recursive: true, force: true });
});

const TRAINER = { max_steps: 4, batch_size: 2, checkpoint_every_n_steps: 2 };

function recipe(validation: object, rest: object = {}) {
  const data = { kind: "shards", dir: published.path, root: "cc12m", max_bad_rate: 0.1 };
  const json = tinyRecipeJson(TRAINER, { data, loss: {}, ...rest });
  const sizes = { data_size: 8, label_dim: 16, num_cond_tokens: 20, coherence_keys: scores };
  return parseRecipe({ ...json, network: { ...(json.network as object), ...sizes }, validation });
}

/** Figures by step. */
function figures(output: string): Map<number, Record<string, number>> {
  const lines = readFileSync(join(output, "log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  return new Map(
    lines
      .filter((line) => "val/loss" in line)
      .map(({ step, ...rest }) => [step, Object.fromEntries(Object.entries(rest)) as Record<string, number>]),
  );
}

const every2 = { every_n_steps: 2, root: "laion", batches: 3, batch_size: 2 };

describe("validation", () => {
  it("leaves the training as it is, to the bit, and is the same in a resumed run", async () => {
    const [without, whole, parts] = ["without", "whole", "parts"].map((name) => join(root, name)) as [
      string,
      string,
      string,
    ];
    await runTraining({ recipe: recipe({}), output: without });
    await runTraining({ recipe: recipe(every2), output: whole });
    const stop = new AbortController();
    const options = { recipe: recipe(every2), output: parts };
    await runTraining({ ...options, signal: stop.signal, onProgress: ({ step }) => step === 3 && stop.abort() });
    await runTraining({ ...options, resume: true });
    expect(bits(whole)).toEqual(bits(without));
    expect([...figures(whole).keys()]).toEqual([2, 4]);
    expect(figures(parts)).toEqual(figures(whole));
    expect(Object.keys(figures(whole).get(4)!).sort()).toEqual(
      ["loss", "raw_loss", "loss_gradnorm_reweighted", "logvar"]
        .flatMap((name) => [`val/${name}`, `val/${name}_ema`])
        .sort(),
    );
  });

  it("whose data are not there ends the run before it has written anything", async () => {
    const output = join(root, "nowhere");
    const run = runTraining({ recipe: recipe({ ...every2, root: "nowhere" }), output });
    await expect(run).rejects.toThrow(/nowhere: no such file or directory/);
    expect(existsSync(output)).toBe(false);
  });

  it.each([2, 4])("is left at once by a run that is to stop after step %i, and made up for", async (last) => {
    const output = join(root, `left-${last}`);
    const stop = new AbortController();
    const options = { recipe: recipe(every2), output };
    const result = await runTraining({
      ...options,
      signal: stop.signal,
      onProgress: ({ step }) => step === last && stop.abort(),
    });
    const checkpoint = expect.stringMatching(new RegExp(`step-0000000${last}$`));
    expect(result).toMatchObject({ finished: last === 4, step: last, checkpoint });
    expect([...figures(output).keys()]).toEqual(last === 4 ? [2] : []);
    await runTraining({ ...options, resume: true });
    expect(figures(output)).toEqual(figures(join(root, "whole")));
    // Once is enough.
    await runTraining({ ...options, resume: true });
    const lines = readFileSync(join(output, "log.jsonl"), "utf8").split("\n");
    expect(lines.filter((line) => line.includes("val/loss"))).toHaveLength(2);
  });

  it("of several processes is made up for, too", { timeout: 120_000 }, async () => {
    const two = recipe({ ...every2, batch_size: 1, batches: 8 }, { trainer: { ...TRAINER, devices: 2, threads: 1 } });
    const [whole, parts] = [join(root, "two"), join(root, "two-parts")];
    await runTraining({ recipe: two, output: whole });
    const stop = new AbortController();
    const options = { recipe: two, output: parts };
    await runTraining({ ...options, signal: stop.signal, onProgress: ({ step }) => step === 2 && stop.abort() });
    await runTraining({ ...options, resume: true });
    expect(figures(parts)).toEqual(figures(whole));
  });

  it.each([false, true])(
    "that ends for a request to stop is the last, before a sheet (later: %s)",
    async (readsLater) => {
      const done: string[] = [];
      const hooks = {
        onValidate: async (step: number) => {
          done.push(`validation ${step}`);
          return step < 4;
        },
        onSamples: async (step: number) => void done.push(`samples ${step}`),
      };
      const due = { validation: { everyNSteps: 2 }, samples: { everyNSteps: 2, offset: 0 } };
      const { stored, error } = await trained({}, {}, { readsLater, ...due, hooks });
      expect(done).toEqual(["validation 2", "samples 2", "validation 4"]);
      expect([stored.at(-1)![0], error]).toEqual([4, null]);
    },
  );

  it("asks the same of every network at every time: equal weights have equal losses", async () => {
    const output = join(root, "equal");
    const still = { optimizer: { name: "adamw", lr: 1e-30 }, lr_scheduler: { warmup_steps: 1 }, ema: { decay: 0.5 } };
    await runTraining({ recipe: recipe(every2, still), output });
    const [first, second] = [...figures(output).values()];
    expect(second).toEqual(first);
    for (const name of ["loss", "raw_loss"]) expect(first![`val/${name}_ema`]).toBe(first![`val/${name}`]);
    expect(first!["val/raw_loss"]).toBeGreaterThan(0.5);
  });

  it.each(["bf16-mixed", "16-mixed"])("is measured in %s as the training is", async (precision) => {
    const output = join(root, precision);
    const settings = { max_steps: 1, batch_size: 2, precision, loss_scale: { init: 256 } };
    await runTraining({ recipe: recipe({ ...every2, every_n_steps: 1 }, { trainer: settings }), output });
    expect(figures(output).get(1)!["val/raw_loss"]).toBeGreaterThan(0.5);
  });

  it("is refused without data", () => {
    expect(() => recipe({ every_n_steps: 2 })).toThrow(/validation\.root: expected the folder/);
    const random = tinyRecipeJson({}, { validation: { every_n_steps: 2, root: "x" } });
    expect(() => parseRecipe(random)).toThrow(/only shards are validated with/);
  });
});
