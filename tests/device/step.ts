/**
 * What a training step is made of on a device: norms, optimizers, skipped steps, batches and checkpoints on their way.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  aten,
  autocast,
  copyBeside,
  F,
  full,
  HostCopy,
  manualSeed,
  noGrad,
  ones,
  pinnedMemory,
  randn,
  scope,
  type Tensor,
  zeros,
} from "@miro-t2i/torch";
import { AdamW, clipGradNorm_, GradScaler, Lamb } from "@miro-t2i/torch/optim";
import { CheckpointWriter, listCheckpoints, loadTrainingCheckpoint, parseRecipe, runTraining } from "miro-t2i/training";
import { type Checks, must, relativeDifference, within } from "./checks.js";

export async function step(checks: Checks): Promise<void> {
  await norms(checks);
  await optimizers(checks);
  await copies(checks);
  await checkpoints(checks);
  await skipped(checks);
}

async function norms(checks: Checks): Promise<void> {
  const { device } = checks;
  const shapes = [
    [4, 256, 1024],
    [3, 33, 130],
  ];
  await checks.check("the norm that is one node of the graph, and its gradients, as operators one by one", () => {
    let worst = 0;
    for (const shape of shapes)
      scope(() => {
        manualSeed(21);
        const values = [randn(shape), randn([shape.at(-1)!]), randn(shape)] as [Tensor, Tensor, Tensor];
        const of = (norm: (x: Tensor, w: Tensor) => Tensor, where: string, dtype: "float32" | "float64") => {
          const [x, w, g] = values.map((t) => t.to({ device: where, dtype, copy: true })) as [Tensor, Tensor, Tensor];
          const y = norm(x.requiresGrad_(), w.requiresGrad_());
          y.backward(g);
          return [y, x.grad!, w.grad!];
        };
        const got = of((x, w) => F.fusedRmsNorm(x, w, 1e-6), device, "float32");
        const want = of((x, w) => F.rmsNorm(x, [shape.at(-1)!], null, 1e-6).mul(w), "cpu", "float64");
        worst = Math.max(worst, ...got.map((t, i) => relativeDifference(t, want[i]!)));
      });
    return within(worst, 1e-5);
  });
  await checks.check("layer norm of half precision in one kernel: statistics in float32", () =>
    scope(() => {
      manualSeed(22);
      // Far from zero, so that statistics in half precision would be of no use.
      const x = randn([64, 32]).add(30).to({ device, dtype: "bfloat16" });
      const [w, b] = [randn([32]), randn([32])].map((t) => t.to({ device, dtype: "bfloat16" })) as [Tensor, Tensor];
      const norm = (t: Tensor, weight: Tensor, bias: Tensor) => F.layerNorm(t, [32], weight, bias, 1e-6);
      const off = { device, dtype: "bfloat16", enabled: false } as const;
      const got = autocast({ device, dtype: "bfloat16" }, () => autocast(off, () => norm(x, w, b)));
      must(got.dtype === "bfloat16", `the result is ${got.dtype}`);
      const wide = (t: Tensor) => t.cpu().double();
      return within(relativeDifference(got, norm(wide(x), wide(w), wide(b))), 1e-2);
    }),
  );
}

const OPTIMIZERS = {
  AdamW: (params: Tensor[]) => new AdamW(params, { lr: 1e-2, weightDecay: 0.1 }),
  "LAMB with trust ratios": (params: Tensor[]) => new Lamb(params, { lr: 1e-2, weightDecay: 0.1, decouple: false }),
  "LAMB without": (params: Tensor[]) => new Lamb(params, { lr: 1e-2, weightDecay: 0 }),
  "LAMB, decay apart": (params: Tensor[]) => new Lamb(params, { lr: 1e-2, weightDecay: 0.1, decouple: true }),
};
const SHAPES = [[64, 48], [48], [1, 1, 7], [], [300, 5]];

/** Parameters and, for each step, gradients: the same ones wherever they lie. */
function parametersOn(
  device: string,
  dtype: "float32" | "float64",
): { params: Tensor[]; gradientsOf(k: number): void } {
  manualSeed(31);
  const values = SHAPES.map((shape) => randn(shape).to({ device, dtype, copy: true }));
  const params = values.map((t) => t.keep().requiresGrad_());
  return {
    params,
    gradientsOf(k) {
      manualSeed(100 + k);
      for (const param of params) param.grad = randn(param.shape).to({ device, dtype, copy: true });
    },
  };
}

async function optimizers(checks: Checks): Promise<void> {
  const { device } = checks;
  for (const [name, build] of Object.entries(OPTIMIZERS)) {
    await checks.check(`${name}: five clipped steps as in float64 on the CPU`, () => {
      const run = (where: string, dtype: "float32" | "float64") =>
        scope(() => {
          const { params, gradientsOf } = parametersOn(where, dtype);
          const optimizer = build(params);
          for (let k = 1; k <= 5; k++) {
            gradientsOf(k);
            scope(() => void clipGradNorm_(params, 20));
            optimizer.step();
            optimizer.zeroGrad();
          }
          optimizer.dispose();
          return params;
        });
      const [got, want] = [run(device, "float32"), run("cpu", "float64")];
      const error = Math.max(...got.map((t, i) => relativeDifference(t, want[i]!)));
      for (const t of [...got, ...want]) t.dispose();
      return within(error, 1e-5);
    });
    await checks.check(`${name}: a step that the device skips changes no bit`, () =>
      scope(() => {
        const { params, gradientsOf } = parametersOn(device, "float32");
        const optimizer = build(params);
        gradientsOf(1);
        optimizer.step(zeros([], { device }));
        const state = () =>
          [...params, ...Object.values(optimizer.stateDict().tensors)].map((t) => t.detach().cpu().clone());
        const before = state();
        for (const param of params) param.grad = full(param.shape, Number.NaN, { device });
        optimizer.step(ones([], { device }));
        const after = state();
        must(
          after.every((t, i) => aten.equal(t, before[i]!)),
          "a weight, a moment or a count is another",
        );
        gradientsOf(2);
        optimizer.step(zeros([], { device }));
        must(
          state().every((t) => t.isfinite().all().item() === 1),
          "a value is not finite afterwards",
        );
        optimizer.dispose();
        for (const t of params) t.dispose();
        return undefined;
      }),
    );
  }
  await checks.check("the loss scale is chosen on the device", () =>
    scope(() => {
      const { params, gradientsOf } = parametersOn(device, "float32");
      const scaler = new GradScaler({ initScale: 16, growthInterval: 2 });
      const scales = [..."..o..."].map((kind, k) => {
        gradientsOf(k);
        if (kind === "o") params[0]!.grad = full(SHAPES[0]!, Number.POSITIVE_INFINITY, { device });
        scaler.unscale_(params);
        scaler.update();
        return scaler.scaleOn(device).item();
      });
      must(String(scales) === "16,32,16,16,32,32", `scales ${scales}`);
      for (const t of params) t.dispose();
      return undefined;
    }),
  );
}

async function copies(checks: Checks): Promise<void> {
  const { device } = checks;
  const name = "pinned batches: 200 copies beside products, and 200 back, have the values that they were sent with";
  if (!checks.onGpu) {
    checks.doesNotApply(name, "nothing is sent");
    return;
  }
  await checks.check(name, () =>
    scope(() => {
      const busy = randn([2048, 2048], { device });
      const back: { sum: Tensor; copy: HostCopy; arrived: Tensor }[] = [];
      for (let i = 0; i < 200; i++)
        scope(() => {
          const staged = pinnedMemory(4 * 2 ** 18)
            .viewDtype("float32")
            .fill_(i);
          const there = copyBeside(staged, device);
          busy.copy_(busy.matmul(busy).clamp(-1, 1));
          const sum = there.sum().view([1]).keep();
          const arrived = pinnedMemory(4).viewDtype("float32").keep();
          back.push({ sum, copy: new HostCopy([sum], [arrived]), arrived });
          // Both buffers are freed here, and used anew by the next round while this one may still be queued.
        });
      for (const [i, { sum, copy, arrived }] of back.entries()) {
        copy.wait();
        must(arrived.item() === i * 2 ** 18, `copy ${i} has the sum ${arrived.item()}`);
        for (const one of [sum, copy, arrived]) one.dispose();
      }
      return undefined;
    }),
  );
}

async function checkpoints(checks: Checks): Promise<void> {
  const { device } = checks;
  await checks.check(
    "a checkpoint has the values of its step, while the next one computes and changes them",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "miro-device-"));
      const writer = new CheckpointWriter(folder, { keepLast: 10 });
      const w = scope(() => zeros([2000, 1000], { device }).keep());
      try {
        let waited = 0;
        for (let step = 1; step <= 5; step++) {
          noGrad(() => scope(() => void w.fill_(step)));
          const state = { step, emaUpdates: 0, skippedSteps: 0, seconds: 0, optimizerStep: step, recipe: {} };
          await writer.begin({
            state: { format: 1, ...state },
            network: { w },
            optimizer: {},
            emas: { ema_network: { w } },
          });
          const start = performance.now();
          await writer.copied();
          waited = Math.max(waited, performance.now() - start);
          noGrad(() => scope(() => void w.fill_(-1)));
        }
        await writer.settled();
        scope(() => {
          for (const { step, path } of listCheckpoints(folder)) {
            const { network, emas } = loadTrainingCheckpoint(path);
            for (const t of [network.w!, emas.ema_network!.w!])
              must(t.amin().item() === step && t.amax().item() === step, `values of another moment at step ${step}`);
          }
        });
        must(listCheckpoints(folder).length === 5, "a checkpoint is missing");
        return `the host waited ${waited.toFixed(1)} ms at most`;
      } finally {
        await writer.close();
        w.dispose();
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );
}

/** Steps whose loss is not finite, which the device skips before the host knows. */
async function skipped(checks: Checks): Promise<void> {
  await checks.check("steps that are not finite are skipped and named, and end the run", async () => {
    const folder = mkdtempSync(join(tmpdir(), "miro-device-"));
    try {
      const recipe = parseRecipe({
        name: "not-finite",
        data: { kind: "random", text_len: 4 },
        network: {
          ...{ data_size: 8, label_dim: 16, num_cond_tokens: 8, num_input_channels: 4, patch_size: 2, data_dim: 32 },
          ...{ num_latents: 8, latents_dim: 32, num_blocks: 1, num_processing_layers: 1, read_write_heads: 2 },
          ...{ compute_heads: 2, use_cond_rin_block: true, concat_cond_token_to_latents: false },
          ...{ use_self_conditioning: true, coherence_keys: ["clip_score"] },
        },
        optimizer: { name: "adamw", lr: 1e30 },
        lr_scheduler: { warmup_steps: 1, total_steps: 9 },
        trainer: {
          device: checks.device,
          max_steps: 9,
          batch_size: 4,
          log_every_n_steps: 100,
          max_skipped_in_a_row: 3,
        },
      });
      const said: string[] = [];
      let error = "";
      await runTraining({ recipe, output: join(folder, "run"), onMessage: (message) => said.push(message) }).catch(
        (reason: Error) => {
          error = reason.message;
        },
      );
      must(/^step 4: .*first the output of network\..*, 3 in a row/.test(error), error === "" ? "no error" : error);
      const skips = said.filter((message) => message.includes("the step was skipped")).length;
      must(skips === 2, `${skips} warnings, not 2`);
      return error.split(";")[1]?.trim();
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}
