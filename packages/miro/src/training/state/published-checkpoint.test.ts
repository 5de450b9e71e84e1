import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, type Tensor, zeros } from "@miro-t2i/torch";
import { Lamb } from "@miro-t2i/torch/optim";
import { afterAll, describe, expect, it } from "vitest";
import { createNetworks, startFrom } from "../loop/model.js";
import { parameterGroups } from "../loop/parameter-groups.js";
import { runTraining } from "../loop/run.js";
import { parseRecipe, type Recipe } from "../recipes/recipe.js";
import { bits, tinyRecipeJson } from "../testing/tiny.js";
import { listCheckpoints, loadTrainingCheckpoint } from "./checkpoint.js";
import { PublishedCheckpoint } from "./published-checkpoint.js";
import { describeTorchFile } from "./torch-file-summary.js";

const fixture = (name: string) => join(import.meta.dirname, "../fixtures", name);
const ckpt = fixture("epoch=0-step=3.ckpt");
const recorded = JSON.parse(readFileSync(fixture("ckpt.json"), "utf8")) as {
  network: Record<string, unknown>;
  parameters: Record<string, Record<string, string | number>>;
};
const root = mkdtempSync(join(tmpdir(), "miro-ckpt-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function recipe(initialization: object = {}, trainer: object = {}, network: object = {}): Recipe {
  const json = tinyRecipeJson(trainer, {
    network: { ...recorded.network, ...network },
    ema: { decay: [0.9999, 0.999] },
    lr_scheduler: { warmup_steps: 3, total_steps: 100, rate: 0.8 },
    initialization,
  });
  return parseRecipe(json);
}

const digest = (tensor: Tensor) => {
  const data = tensor.detach().contiguous().data();
  return createHash("sha256")
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest("hex");
};
/** Digests of the recorded parameters of one module, by the names below it. */
const expected = (module: string, value: string) =>
  Object.fromEntries(
    Object.entries(recorded.parameters).flatMap(([name, values]) =>
      name.startsWith(`${module}.`) ? [[name.slice(module.length + 1), values[value]]] : [],
    ),
  );
const found = (parameters: Iterable<[string, Tensor]>, names: object) =>
  Object.fromEntries([...parameters].flatMap(([name, t]) => (Object.hasOwn(names, name) ? [[name, digest(t)]] : [])));

describe("a published training checkpoint", () => {
  it.each([
    [ckpt, "network", "value"],
    [ckpt, "ema_network", "ema_network"],
    [ckpt, "ema_network_0_999", "ema_network_0_999"],
    [fixture("compiled.ckpt"), "network", "value"],
  ])("%s: %s has the recorded values", (path, module, value) => {
    const { network, preconditioning } = createNetworks(recipe());
    startFrom(path, network, preconditioning, module);
    const want = expected("network", value);
    expect(Object.keys(want).length).toBeGreaterThan(100);
    expect(found(network.namedParameters(), want)).toEqual(want);
    const wantPre = expected("preconditioning", "value");
    expect(found(preconditioning.namedParameters(), wantPre)).toEqual(wantPre);
  });

  it("gives each parameter the moments that it was saved with", () => {
    const { network, preconditioning } = createNetworks(recipe());
    const optimizer = new Lamb(parameterGroups(network, preconditioning, 0.01), { lr: 1e-3, decouple: false });
    const names = new Map<Tensor, string>();
    for (const [name, t] of network.namedParameters("network")) names.set(t, name);
    for (const [name, t] of preconditioning.namedParameters("preconditioning")) names.set(t, name);
    using checkpoint = PublishedCheckpoint.open(ckpt);
    const groups = optimizer.paramGroups.map(({ params }) =>
      params.map((param) => ({ name: names.get(param)!, param })),
    );
    scope(() => {
      const { step, tensors } = checkpoint.optimizerState(groups);
      expect(step).toBe(3);
      for (const [i, { name }] of groups.flat().entries()) {
        const want = recorded.parameters[name]!;
        const got = ["exp_avg", "exp_avg_sq"].map((part) => digest(tensors[`${i}.${part}`]!));
        expect([name, ...got, tensors[`${i}.step`]!.item()]).toEqual([name, want.exp_avg, want.exp_avg_sq, want.step]);
      }
      expect(groups.flat().length).toBe(Object.keys(recorded.parameters).length);
      expect(() => checkpoint.optimizerState([groups[0]!.slice(1), groups[1]!])).toThrow(
        /state does not fit: group 1 has \d+ trained tensors, this recipe \d+; start with its weights alone/,
      );
    });
    optimizer.dispose();
  });

  it("of AdamW gives each parameter its moments and the step that a tensor holds, whatever stands beside", () => {
    const adamw = join(import.meta.dirname, "../../../../torch/src/io/fixtures/adamw.ckpt");
    using checkpoint = PublishedCheckpoint.open(adamw);
    expect(checkpoint.step).toBe(2);
    scope(() => {
      const shapes = { "network.weight": [2, 2], "network.bias": [2] };
      const groups = [Object.entries(shapes).map(([name, shape]) => ({ name, param: zeros(shape) }))];
      const { step, tensors } = checkpoint.optimizerState(groups);
      expect([step, tensors["0.step"]!.item(), tensors["1.step"]!.item()]).toEqual([2, 2, 2]);
      // Gradients are the input, ±1, twice: 0.1 of it, then 0.1 more of what is missing.
      const moments = tensors["0.exp_avg"]!.toList() as number[][];
      for (const [a, b] of moments) expect([a, b]).toEqual([expect.closeTo(0.19, 6), expect.closeTo(-0.19, 6)]);
      expect(tensors["1.exp_avg_sq"]!.toList()).toEqual([expect.closeTo(0.001999, 8), expect.closeTo(0.001999, 8)]);
    });
    expect(describeTorchFile(adamw)).toMatchObject({
      state_dict: { modules: { network: { tensors: 2, parameters: 6 } }, "not tensors": 1 },
      optimizer_states: [{ steps: 2, "tensors with moments": 2 }],
      global_step: 2,
      best: 0.5,
      cfg: "an object of argparse.Namespace, not read",
    });
    const { network } = createNetworks(recipe());
    expect(() => checkpoint.load("network", network)).toThrow(
      /not read, since they are no tensors \(1\): network\.extra, an object of datetime\.date$/,
    );
  });

  it("says the step, the schedule and the loss scale", () => {
    using checkpoint = PublishedCheckpoint.open(ckpt);
    expect([checkpoint.step, checkpoint.averages]).toEqual([3, ["ema_network", "ema_network_0_999"]]);
    expect(checkpoint.schedule).toEqual({ warmupSteps: 5, totalSteps: 100, rate: 0.8 });
    expect(checkpoint.scaler).toEqual({ scale: 4096, growthTracker: 7 });
  });

  it("is described without its values", () => {
    const report = describeTorchFile(ckpt) as Record<string, any>;
    expect(report.file).toBe(ckpt);
    expect(report.global_step).toBe(3);
    expect(Object.keys(report.state_dict.modules)).toContain("postprocessing.vae");
    expect(report.optimizer_states[0].groups.map((group: { weight_decay: number }) => group.weight_decay)).toEqual([
      0.01, 0,
    ]);
  });

  it("of another network is refused with what differs", () => {
    const { network, preconditioning } = createNetworks(recipe({}, {}, { num_latents: 8 }));
    expect(() => startFrom(ckpt, network, preconditioning)).toThrow(
      /step=3\.ckpt: network: .*latents: expected \[8,16\], got \[4,16\]/,
    );
    expect(() => startFrom(ckpt, network, preconditioning, "ema_network_0_5")).toThrow(
      /holds no ema_network_0_5; it holds network, data_preprocessing/,
    );
  });
});

describe("runs that start from one", () => {
  it("go on at its step, and resume to the bit", async () => {
    const options = { max_steps: 9, checkpoint_every_n_steps: 100 };
    const messages: string[] = [];
    const whole = join(root, "whole");
    const parts = join(root, "parts");
    const from = recipe({ from: ckpt, continue: true }, options);
    await runTraining({ recipe: from, output: whole, onMessage: (message) => messages.push(message) });
    expect(messages).toContainEqual(expect.stringMatching(/^lr_scheduler\.warmup_steps: 5 in .*, 3 now$/));
    expect(messages).toContainEqual(expect.stringMatching(/^continues at step 3 from /));
    const log = readFileSync(join(whole, "log.jsonl"), "utf8").trim().split("\n");
    expect(JSON.parse(log[0]!).step).toBe(4);
    const { state } = scope(() => loadTrainingCheckpoint(listCheckpoints(join(whole, "checkpoints")).at(-1)!.path));
    expect(state).toMatchObject({ step: 9, optimizerStep: 9, emaUpdates: 9 });
    expect(state.origin).toMatchObject({ globalBatch: 4, samplesSeen: 36, processes: 1 });

    const stop = new AbortController();
    await runTraining({
      recipe: from,
      output: parts,
      signal: stop.signal,
      onProgress: ({ step }) => step === 6 && stop.abort(),
    });
    await runTraining({ recipe: from, output: parts, resume: true });
    expect(bits(parts)).toEqual(bits(whole));
  });

  it("start at step 0 with its weights alone", async () => {
    const output = join(root, "weights");
    await runTraining({ recipe: recipe({ from: ckpt, average: "ema_network" }, { max_steps: 1 }), output });
    expect(listCheckpoints(join(output, "checkpoints")).at(-1)!.step).toBe(1);
  });

  it.each([
    [{ continue: true }, /initialization\.continue: needs a training checkpoint/],
    [
      { from: "release", average: "ema_network" },
      /initialization\.average: needs a training checkpoint.*received "release"/,
    ],
    [{ from: "a.ckpt", average: "ema_network", continue: true }, /set either average or continue, not both/],
  ])("refuse %j", (initialization, error) => {
    expect(() => recipe(initialization)).toThrow(error);
  });
});
