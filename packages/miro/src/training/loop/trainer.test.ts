import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memory, scope } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { afterAll, describe, expect, it } from "vitest";
import { listCheckpoints } from "../state/checkpoint.js";
import { bits, tinyRecipe as recipe } from "../testing/tiny.js";
import { VARYING_METRICS } from "../testing/varying-metrics.js";
import { runTraining } from "./run.js";

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

describe.each(["32-true", "bf16-mixed", "16-mixed"])("training in %s", (precision) => {
  it("is the same when it is interrupted and resumed, to the bit", async () => {
    const whole = join(root, `whole-${precision}`);
    const parts = join(root, `parts-${precision}`);
    const options = { precision, device_batch_size: 2, loss_scale: { init: 2 ** 20, growth_interval: 3 } };
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
    // The line of step 6 has the means over steps 5 and 6, of which one was made before the interruption.
    const lines = (output: string) => withoutTimes(output).filter((line) => !("warning" in line));
    expect(lines(parts).map(({ step }) => step)).toEqual([2, 4, 6, 8]);
    expect(lines(parts)).toEqual(lines(whole));
  });
});

describe("accumulation", () => {
  it("gives the gradient of the whole batch, whatever the number of accumulation steps", async () => {
    const plain = { network: { ...recipe().network, coherence_dropout: 0 }, optimizer: { name: "adamw", lr: 0.001 } };
    const trained = async (settings: object) => {
      const output = join(root, `steps-${JSON.stringify(settings)}`);
      await runTraining({ recipe: recipe({ max_steps: 4, batch_size: 12, ...settings }, plain), output });
      return weights(output);
    };
    const whole = await trained({});
    for (const settings of [{ device_batch_size: 6 }, { accumulate_grad_batches: 3, replicas: 2 }]) {
      const parts = await trained(settings);
      expect(Object.keys(parts)).toEqual(Object.keys(whole));
      for (const name of Object.keys(whole)) {
        if (name.endsWith("k_norm.bias") || name.endsWith("qkv.bias")) continue; // gradients of rounding noise
        whole[name]!.forEach((value, i) => void expect(parts[name]![i], name).toBeCloseTo(value, 4));
      }
    }
  });
});

describe("clipping", () => {
  it("of 0 or null leaves gradients as they are, as a norm does that none reaches; the log has the norm", async () => {
    const trained = async (gradient_clip_val: number | null) => {
      const output = join(root, `clipped-${gradient_clip_val}`);
      await runTraining({ recipe: recipe({ max_steps: 2, log_every_n_steps: 1, gradient_clip_val }), output });
      return { weights: bits(output), norms: withoutTimes(output).map((line) => line["train/grad_norm"]) };
    };
    const free = await trained(1e6);
    expect(free.norms).toEqual([expect.any(Number), expect.any(Number)]);
    expect(await trained(null)).toEqual(free);
    expect(await trained(0)).toEqual(free);
    expect((await trained(1e-3)).weights).not.toEqual(free.weights);
  });
});

describe("several averages", () => {
  it("are each what a run with that one alone has, and resume to the bit", async () => {
    const run = async (name: string, decay: number | number[], stopAt = 9) => {
      const output = join(root, name);
      const stop = new AbortController();
      const options = { recipe: recipe({ max_steps: 9 }, { ema: { decay } }), output };
      await runTraining({ ...options, signal: stop.signal, onProgress: ({ step }) => step === stopAt && stop.abort() });
      if (stopAt < 9) await runTraining({ ...options, resume: true });
      return bits(output);
    };
    const both = await run("averages-both", [0.9, 0.5]);
    expect(await run("averages-resumed", [0.9, 0.5], 5)).toEqual(both);
    const file = (name: string) =>
      readFileSync(join(listCheckpoints(join(root, name, "checkpoints")).at(-1)!.path, "ema.safetensors"));
    await run("averages-first", 0.9);
    await run("averages-second", 0.5);
    expect(file("averages-both").equals(file("averages-first"))).toBe(true);
    const second = join(
      listCheckpoints(join(root, "averages-both", "checkpoints")).at(-1)!.path,
      "ema_0_5.safetensors",
    );
    expect(readFileSync(second).equals(file("averages-second"))).toBe(true);
    expect(file("averages-first").equals(file("averages-second"))).toBe(false);
  });

  it("cannot be added to a run that is under way", async () => {
    const output = join(root, "averages-added");
    await runTraining({ recipe: recipe({ max_steps: 1 }), output });
    const more = recipe({}, { ema: { decay: [0.9, 0.99] } });
    await expect(runTraining({ recipe: more, output, resume: true })).rejects.toThrow(
      /ema\.decay: 0\.9 in the checkpoint, \[0\.9,0\.99\] now/,
    );
    const says = "step-00000001: ema.decay asks for EMA weights ema_network_0_99, the checkpoint has ema_network; ";
    await expect(runTraining({ recipe: more, output, resume: true, allowChanges: true })).rejects.toThrow(
      `${says}give the recipe`,
    );
  });
});

describe("loss scaling", () => {
  /** A run whose scale is far too large at first. */
  const overflowing = (output: string, ema: object, messages: string[] = []) =>
    runTraining({
      recipe: recipe(
        {
          max_steps: 6,
          precision: "16-mixed",
          loss_scale: { init: 2 ** 40 },
          checkpoint_every_n_steps: 1,
          keep_last: 9,
        },
        { ema: { decay: 0.5, ...ema } },
      ),
      output,
      onMessage: (message) => messages.push(message),
    });
  const state = (output: string, step: number) =>
    JSON.parse(readFileSync(join(listCheckpoints(join(output, "checkpoints"))[step - 1]!.path, "state.json"), "utf8"));

  it("skips steps that overflow, halves the scale each time, and leaves averages and optimizer alone", async () => {
    const output = join(root, "scaled");
    const messages: string[] = [];
    await overflowing(output, {}, messages);
    expect(messages.filter((m) => /overflow at the loss scale/.test(m)).length).toBe(6);
    expect(state(output, 6)).toMatchObject({
      step: 6,
      skippedSteps: 6,
      optimizerStep: 0,
      emaUpdates: 0,
      scaler: { scale: 2 ** 34, growthTracker: 0 },
    });
  });

  it("moves the averages in skipped steps where upstream's way is asked for", async () => {
    const output = join(root, "scaled-upstream");
    await overflowing(output, { update_on_skipped_steps: true });
    expect(state(output, 6)).toMatchObject({ skippedSteps: 6, emaUpdates: 6 });
  });

  it("changes nothing but rounding: float16 with scaling trains as float32 does", async () => {
    const logged = async (precision: string) => {
      const output = join(root, `like-${precision}`);
      const settings = { max_steps: 20, batch_size: 8, precision, log_every_n_steps: 10 };
      await runTraining({ recipe: recipe(settings, { optimizer: { name: "adamw", lr: 0.003 } }), output });
      const lines = readFileSync(join(output, "log.jsonl"), "utf8").trim().split("\n");
      return lines.map((line) => JSON.parse(line)).filter((line) => "train/raw_loss" in line || "raw_loss" in line);
    };
    const [exact, half] = [await logged("32-true"), await logged("16-mixed")];
    expect(half.length).toBe(exact.length);
    half.forEach((line, i) => {
      const name = "raw_loss" in line ? "raw_loss" : "train/raw_loss";
      // How much depends on the processor: without half-precision products of its own it rounds in more places.
      expect(Math.abs(line[name] / exact[i]![name] - 1)).toBeLessThan(0.03);
    });
  });
});

describe("gradients that are not finite", () => {
  it("become 0 where upstream's repair is asked for: the step is made", async () => {
    const output = join(root, "repaired");
    const result = await runTraining({
      recipe: recipe({ max_steps: 4, zero_non_finite_gradients: true }, { optimizer: { name: "adamw", lr: 1e30 } }),
      output,
    });
    expect(result).toMatchObject({ finished: true, step: 4 });
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
      /holds a run at step 1; continue it with `resume: true`/,
    );
  });

  it("resumes a run whose recipe was stored before some settings came", async () => {
    const output = join(root, "older");
    await runTraining({ recipe: recipe({ max_steps: 1 }), output });
    const checkpoint = listCheckpoints(join(output, "checkpoints")).at(-1)!.path;
    const path = join(checkpoint, "state.json");
    const state = JSON.parse(readFileSync(path, "utf8"));
    for (const setting of ["loss_scale", "zero_non_finite_gradients", "num_nodes"])
      delete state.recipe.trainer[setting];
    writeFileSync(path, JSON.stringify(state));
    rmSync(join(checkpoint, "SHA256SUMS")); // older ones have none
    const resumed = await runTraining({ recipe: recipe({ max_steps: 2 }), output, resume: true });
    expect(resumed).toMatchObject({ finished: true, step: 2 });
  });

  it("refuses to resume with another network", async () => {
    const output = join(root, "other");
    await runTraining({ recipe: recipe({ max_steps: 1 }), output });
    const other = recipe();
    other.network = { ...other.network, num_latents: 8 };
    await expect(runTraining({ recipe: other, output, resume: true, allowChanges: true })).rejects.toThrow(
      /step-00000001: Rin: the state dict does not fit\. .*latents: expected \[8,16\], got \[4,16\]; give the recipe/,
    );
    other.network = { ...recipe().network, num_blocks: 2 };
    const { message } = await runTraining({ recipe: other, output, resume: true, allowChanges: true }).then(
      () => expect.unreachable(),
      (error: Error) => error,
    );
    expect(message).toMatch(/missing \(\d+\): rin_blocks\.1\..*\.\.\.; give the recipe it was made with$/);
    expect(message.length - output.length).toBeLessThan(400);
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
