import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memory, readSafetensors, scope } from "@miro-t2i/torch";
import { afterAll, describe, expect, it } from "vitest";
import { mixSeed } from "./batches.js";
import { listCheckpoints } from "./checkpoint.js";
import { VARYING_METRICS } from "./meter.js";
import { runTraining } from "./run.js";
import { bits, tinyRecipe as recipe } from "./testing/tiny.js";

const root = mkdtempSync(join(tmpdir(), "miro-train-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Trained weights of the newest checkpoint. */
function weights(output: string): Record<string, number[]> {
  const { path } = listCheckpoints(join(output, "checkpoints")).at(-1)!;
  return scope(() => {
    const tensors = [...readSafetensors(join(path, "network.safetensors"))].filter(([, t]) => t.dtype === "float32");
    return Object.fromEntries(tensors.map(([name, t]) => [name, t.flatten().toList() as number[]]));
  });
}

/** The lines of a run's log without what differs from run to run. */
const withoutTimes = (output: string) =>
  readFileSync(join(output, "log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) =>
      Object.fromEntries(Object.entries(JSON.parse(line)).filter(([name]) => !VARYING_METRICS.test(name))),
    );

describe.each(["32-true", "bf16-mixed"])("training in %s", (precision) => {
  it("is the same when it is interrupted and resumed, to the bit", async () => {
    const whole = join(root, `whole-${precision}`);
    const parts = join(root, `parts-${precision}`);
    const options = { precision };
    expect(await runTraining({ recipe: recipe(options), output: whole })).toMatchObject({ finished: true, step: 9 });

    const stop = new AbortController();
    const interrupted = await runTraining({
      recipe: recipe(options),
      output: parts,
      signal: stop.signal,
      onProgress: ({ step }) => step === 5 && stop.abort(),
    });
    expect(interrupted).toMatchObject({ finished: false, step: 5 });
    expect(await runTraining({ recipe: recipe(options), output: parts, resume: true })).toMatchObject({
      finished: true,
      step: 9,
    });

    expect(bits(parts)).toEqual(bits(whole));
    expect(withoutTimes(parts).length).toBe(4);
    expect(withoutTimes(parts).at(-1)).toEqual(withoutTimes(whole).at(-1));
  });
});

describe("replicas", () => {
  it("compute what one thread computes, up to rounding, and resume to the bit", async () => {
    const plain = { network: { ...recipe().network, coherence_dropout: 0 }, optimizer: { name: "adamw", lr: 0.001 } };
    const one = join(root, "one-thread");
    const three = join(root, "three-threads");
    const again = join(root, "three-threads-again");
    await runTraining({ recipe: recipe({ max_steps: 5, batch_size: 7 }, plain), output: one });
    const divided = recipe({ max_steps: 5, batch_size: 7, replicas: 3 }, plain);
    await runTraining({ recipe: divided, output: three });
    const stop = new AbortController();
    const abortAt2 = ({ step }: { step: number }) => void (step === 2 && stop.abort());
    await runTraining({ recipe: divided, output: again, signal: stop.signal, onProgress: abortAt2 });
    await runTraining({ recipe: divided, output: again, resume: true });
    expect(bits(again)).toEqual(bits(three));

    const [a, b] = [weights(one), weights(three)];
    expect(Object.keys(b)).toEqual(Object.keys(a));
    for (const name of Object.keys(a)) {
      if (name.endsWith("k_norm.bias") || name.endsWith("qkv.bias")) continue; // gradients of rounding noise
      a[name]!.forEach((value, i) => void expect(b[name]![i], name).toBeCloseTo(value, 4));
    }
  });
});

describe("runTraining", () => {
  it("refuses to start over a run that is there", async () => {
    const output = join(root, "twice");
    await runTraining({ recipe: recipe({ max_steps: 1 }), output });
    await expect(runTraining({ recipe: recipe(), output })).rejects.toThrow(
      /holds a run at step 1; continue it with --resume/,
    );
  });

  it("refuses to resume with another network", async () => {
    const output = join(root, "other");
    await runTraining({ recipe: recipe({ max_steps: 1 }), output });
    const other = recipe();
    other.network = { ...other.network, num_latents: 8 };
    await expect(runTraining({ recipe: other, output, resume: true, allowChanges: true })).rejects.toThrow(
      /latents: expected \[8,16\], got \[4,16\]/,
    );
  });

  it("learns: the error falls below 1.25, that of predicting nothing", async () => {
    const output = join(root, "learns");
    await runTraining({
      recipe: recipe(
        { max_steps: 60, batch_size: 32, log_every_n_steps: 20 },
        {
          optimizer: { name: "adamw", lr: 0.01 },
          lr_scheduler: { warmup_steps: 5 },
          logger: { peak_tflops: 0.25 },
        },
      ),
      output,
    });
    const lines = readFileSync(join(output, "log.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.map(({ step }) => step)).toEqual([20, 40, 60]);
    expect(lines[2]["train/raw_loss"]).toBeLessThan(lines[0]["train/raw_loss"]);
    expect(lines[2]["train/raw_loss"]).toBeLessThan(1.2);
    for (const line of lines) {
      expect(line["speed/mfu"] / line["speed/tflops"]).toBeCloseTo(1 / 0.25, 4);
      expect(line["speed/data_wait_share"]).toBeGreaterThanOrEqual(0);
      expect(line["memory/rss_bytes"]).toBeGreaterThan(line["memory/tensor_bytes"]);
    }
  });

  it("skips steps that are not finite, and gives up after as many in a row as it is told, naming the tensor", async () => {
    const messages: string[] = [];
    const output = join(root, "nan");
    const bad = recipe({ max_skipped_in_a_row: 3 }, { optimizer: { name: "adamw", lr: 1e30 } });
    await expect(runTraining({ recipe: bad, output, onMessage: (m) => messages.push(m) })).rejects.toThrow(
      /first the output of network\.\S+ \([\d, ]+\) float32: .*; the step was skipped, 3 in a row: lower optimizer\.lr/,
    );
    expect(messages.filter((m) => m.includes("was skipped")).length).toBe(2);
    const [first] = messages.filter((m) => m.includes("was skipped"));
    expect(first).toMatch(/^step 2: loss \S+, gradient norm \S+; first the output of network\./);
  });

  it.each([1, 2])("holds no more memory after many steps than after few, with %i threads", async (replicas) => {
    const live: { tensors: number; bytes: number }[] = [];
    await runTraining({
      recipe: recipe({ max_steps: 80, checkpoint_every_n_steps: 1000, replicas }),
      output: join(root, `memory-${replicas}`),
      onProgress: ({ step }) => {
        const { liveTensors: tensors, liveBytes: bytes } = memory.stats();
        if (step % 10 === 0) live.push({ tensors, bytes });
      },
    });
    const [first, ...later] = live.slice(1);
    for (const { tensors, bytes } of later) {
      expect(tensors).toBe(first!.tensors);
      expect(bytes).toBeLessThanOrEqual(first!.bytes * 1.1); // another thread may still hold its rows
    }
  });
});

describe("mixSeed", () => {
  it("depends on every part and its place, and stays below 2^53", () => {
    const seeds = [mixSeed(1, 2), mixSeed(2, 1), mixSeed(1), mixSeed(1, 2, 0), mixSeed(1, 3)];
    expect(new Set(seeds).size).toBe(seeds.length);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
  });
});
