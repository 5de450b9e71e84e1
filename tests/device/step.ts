/**
 * What a training step is made of on a device: norms, optimizers, skipped steps, batches and checkpoints on their way.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  aten,
  copyBeside,
  cuda,
  DeviceEvent,
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
  await events(checks);
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
  await checks.check("layer norm of queries as they lie, and SwiGLU, with gradients, as in float64 on the CPU", () => {
    let worst = 0;
    for (const dtype of ["float32", "bfloat16", "float16"] as const)
      for (const width of [32, 64, 1024])
        scope(() => {
          manualSeed(22);
          // Far from zero, so that statistics in half precision would be of no use.
          const packed = randn([3, 33, 3, 5, width]).add(30).to(dtype);
          const [g, w, b] = [randn([3, 33, 5, width]).to(dtype), randn([width]), randn([width])];
          const of = (where: string, wide: boolean) => {
            const [p, gradient] = [packed, g].map((t) => t.to({ device: where, dtype: wide ? "float64" : dtype }));
            const leaves = [p!, w, b].map((t) =>
              t.to({ device: where, dtype: wide ? "float64" : t.dtype, copy: true }),
            );
            const [x, weight, bias] = leaves.map((t) => t.requiresGrad_()) as [Tensor, Tensor, Tensor];
            const normed = F.fusedLayerNorm(x.unbind(2)[1]!, weight, bias, 1e-6);
            normed.backward(gradient!);
            const gate = p!.select(2, 0).sub(30).contiguous().requiresGrad_();
            const opened = F.swiGlu(gate);
            opened.backward(gradient!.narrow(-1, 0, width / 2));
            return [normed, x.grad!, weight.grad!, bias.grad!, opened, gate.grad!];
          };
          const [got, want] = [of(device, false), of("cpu", true)];
          must(got[0]!.dtype === dtype, `the result is ${got[0]!.dtype}`);
          const allowed = { float32: 1e-5, bfloat16: 5e-2, float16: 8e-3 }[dtype];
          worst = Math.max(worst, ...got.map((t, i) => relativeDifference(t, want[i]!) / allowed));
        });
    return within(worst, 1);
  });
  if (!checks.onGpu) return;
  await checks.check("this program's own kernels are compiled, and agree with ATen's", () => {
    const failure = cuda.kernelFailure();
    must(failure === null, String(failure));
    return "in use";
  });
  await checks.check("the norms of queries and SwiGLU at full size move memory as fast as it goes", () =>
    scope(() => {
      const run = (work: () => void) => {
        for (let i = 0; i < 3; i++) scope(work);
        checks.synchronize();
        const start = performance.now();
        for (let i = 0; i < 20; i++) scope(work);
        checks.synchronize();
        return (performance.now() - start) / 20;
      };
      const options = { device, dtype: "bfloat16" } as const;
      const [packed, w, b] = [zeros([128, 256, 3, 32, 32], options), ones([32], { device }), zeros([32], { device })];
      const norm = run(() => void F.fusedLayerNorm(packed.select(2, 0), w, b, 1e-6));
      const aten = run(() => void F.layerNorm(packed.select(2, 0), [32], w.to("bfloat16"), b.to("bfloat16"), 1e-6));
      const gates = zeros([128 * 256, 2 * 2816], options);
      const gate = run(() => void F.swiGlu(gates));
      const speed = (gigabytes: number, ms: number) => `${ms.toFixed(3)} ms, ${(gigabytes / ms).toFixed(2)} TB/s`;
      const [normBytes, gateBytes] = [2 * 128 * 256 * 1024 * 2, 3 * 128 * 256 * 2816 * 2];
      return `norm ${speed(normBytes / 1e9, norm)} (ATen ${aten.toFixed(3)} ms); SwiGLU ${speed(gateBytes / 1e9, gate)}`;
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

async function events(checks: Checks): Promise<void> {
  const { device } = checks;
  const name = "an event is done when the device has done what came before it, and not sooner";
  if (!checks.onGpu) {
    checks.doesNotApply(name, "what a CPU is given is done at once");
    return;
  }
  await checks.check(name, async () => {
    using busy = randn([4096, 4096], { device });
    for (const round of [1, 2, 3]) {
      const start = performance.now();
      for (let i = 0; i < 200; i++) scope(() => void busy.copy_(busy.matmul(busy).clamp(-1, 1)));
      using event = new DeviceEvent(busy);
      must(!event.isDone, `round ${round}: done as soon as it was queued`);
      while (!event.isDone) await new Promise((resolve) => setImmediate(resolve));
      const polled = performance.now() - start;
      checks.synchronize();
      const late = performance.now() - start - polled;
      must(late < polled / 10, `round ${round}: the device went on for ${late} ms after ${polled} ms`);
    }
    return undefined;
  });
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
          data_size: 8,
          label_dim: 16,
          num_cond_tokens: 8,
          num_input_channels: 4,
          patch_size: 2,
          data_dim: 32,
          num_latents: 8,
          latents_dim: 32,
          num_blocks: 1,
          num_processing_layers: 1,
          read_write_heads: 2,
          compute_heads: 2,
          use_cond_rin_block: true,
          concat_cond_token_to_latents: false,
          use_self_conditioning: true,
          coherence_keys: ["clip_score"],
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
