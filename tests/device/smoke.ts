/** The engine on a device: allocation, random numbers, mixed precision, attention, optimizers, errors, speed. */
import { spawnSync } from "node:child_process";
import {
  arange,
  autocast,
  buildInfo,
  cuda,
  type DType,
  F,
  full,
  Generator,
  manualSeed,
  memory,
  nn,
  noGrad,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from "@miro-t2i/torch";
import { AdamW, clipGradNorm_, GradScaler, Lamb } from "@miro-t2i/torch/optim";
import { type Checks, must, relativeDifference, within } from "./checks.js";

export async function smoke(checks: Checks): Promise<void> {
  await engine(checks);
  await randomNumbers(checks);
  for (const dtype of ["float32", "bfloat16", "float16"] as const) await attention(checks, dtype);
  for (const dtype of ["bfloat16", "float16"] as const) await attentionInTraining(checks, dtype);
  await exactFloat32(checks);
  await optimizers(checks);
  if (checks.onGpu) await outOfMemory(checks);
  else checks.doesNotApply("more memory than there is", "a system lends memory that it does not have");
  await speed(checks);
  await pythonsNumbers(checks);
}

async function engine(checks: Checks): Promise<void> {
  const { device } = checks;
  await checks.check("the engine loads", () => {
    const { torchVersion, cuda: withCuda, aten } = buildInfo();
    return `libtorch ${torchVersion} ${withCuda ? "with" : "without"} CUDA, kernels for ${aten}`;
  });
  await checks.check("memory is counted", () => {
    if (checks.onGpu) {
      const before = cuda.memory(checks.gpu).allocatedBytes;
      const x = zeros([1024, 1024], { device }).keep();
      const grown = cuda.memory(checks.gpu).allocatedBytes - before;
      x.dispose();
      must(grown >= 2 ** 22 && grown < 2 ** 23, `4 MiB count as ${grown} bytes`);
      must(cuda.memory(checks.gpu).allocatedBytes === before, "what was freed is still counted");
      memory.emptyCache();
      return `${(cuda.memory(checks.gpu).reservedBytes / 2 ** 20).toFixed(0)} MiB reserved`;
    }
    const before = memory.stats().liveBytes;
    const x = zeros([1024, 1024]).keep();
    const grown = memory.stats().liveBytes - before;
    x.dispose();
    must(grown >= 2 ** 22 && grown < 2 ** 23, `4 MiB count as ${grown} bytes`);
    must(memory.stats().liveBytes === before, "what was freed is still counted");
    return `${(before / 2 ** 20).toFixed(0)} MiB before`;
  });
  await checks.check("values there and back in every dtype", () => {
    const dtypes: DType[] = ["float64", "float32", "bfloat16", "float16", "int64", "int32", "uint8"];
    for (const dtype of dtypes)
      scope(() => {
        const there = tensor([1, 2, 250], { dtype, device });
        must(there.device.startsWith(device.replace(/:.*/, "")), `${dtype} lies on ${there.device}`);
        const back = String(there.cpu().to({ dtype: "float64" }).toList());
        must(back === "1,2,250", `${dtype}: 1,2,250 came back as ${back}`);
      });
    return dtypes.join(", ");
  });
  await checks.check("autocast: products in bfloat16, on a GPU softmax in float32", () =>
    scope(() => {
      const a = randn([8, 8], { device });
      const [product, softmax] = autocast({ device, dtype: "bfloat16" }, () => {
        const y = a.matmul(a);
        return [y, y.softmax(-1)];
      }) as [Tensor, Tensor];
      must(product.dtype === "bfloat16", `the product is ${product.dtype}`);
      const wanted = checks.onGpu ? "float32" : "bfloat16"; // as PyTorch's lists for the two have it
      must(softmax.dtype === wanted, `softmax is ${softmax.dtype}`);
      return undefined;
    }),
  );
}

async function randomNumbers(checks: Checks): Promise<void> {
  const { device } = checks;
  await checks.check("a seed repeats its numbers, a state can be taken and set", () =>
    scope(() => {
      const draw = (generator?: Generator) => String(randn([5], { device, ...(generator && { generator }) }).toList());
      manualSeed(3);
      const first = draw();
      must(first !== draw(), "the same numbers twice without a new seed");
      manualSeed(3);
      must(first === draw(), "manualSeed does not repeat them");
      const generator = new Generator(device).manualSeed(1);
      const state = generator.getState();
      const own = draw(generator);
      generator.setState(state);
      must(own === draw(generator), "a state that was set does not repeat them");
      return undefined;
    }),
  );
}

/** Last of all: to import Python's torch may take longer than everything else. */
async function pythonsNumbers(checks: Checks): Promise<void> {
  const { device } = checks;
  const name = "the stream of a seed is PyTorch's";
  const python = process.env.MIRO_PYTHON || "python3";
  const code =
    "import json, torch; " +
    `print(json.dumps(torch.randn(8, device="${device}", generator=torch.Generator("${device}").manual_seed(7)).tolist()))`;
  const { status, stdout } = spawnSync(python, ["-c", code], { encoding: "utf8" });
  if (status !== 0) checks.doesNotApply(name, `${python} has no torch for ${device}`);
  else
    await checks.check(name, () =>
      scope(() => {
        const mine = randn([8], { device, generator: new Generator(device).manualSeed(7) }).cpu();
        return within(relativeDifference(mine, tensor(JSON.parse(stdout) as number[])), 1e-6);
      }),
    );
}

/** Heads of 32, as the network has them: queries against more keys, some of them masked. */
async function attention(checks: Checks, dtype: "float32" | "bfloat16" | "float16"): Promise<void> {
  const { device } = checks;
  const bound = { float32: checks.onGpu ? 1e-4 : 1e-5, bfloat16: 3e-2, float16: 5e-3 }[dtype];
  await checks.check(`attention in ${dtype}, with a mask and backward`, () =>
    scope(() => {
      manualSeed(11);
      const make = (length: number) => randn([2, 16, length, 32]).to({ device, dtype }).requiresGrad_();
      const [q, k, v] = [make(256), make(87), make(87)] as const;
      const mask = full([2, 1, 1, 87], true, { dtype: "bool", device });
      mask.narrow(3, 80, 7).fill_(false);
      const out = F.scaledDotProductAttention(q, k, v, { mask });
      const whole = F.scaledDotProductAttention(q, k, v);
      out
        .to({ dtype: "float32" })
        .square()
        .sum()
        .add(whole.to({ dtype: "float32" }).square().sum())
        .backward();
      const exact = [q, k, v].map((x) => x.detach().cpu().to({ dtype: "float64" }).requiresGrad_());
      const [eq, ek, ev] = exact as [Tensor, Tensor, Tensor];
      const wanted = F.scaledDotProductAttention(eq, ek, ev, { mask: mask.cpu() });
      const wantedWhole = F.scaledDotProductAttention(eq, ek, ev);
      wanted.square().sum().add(wantedWhole.square().sum()).backward();
      const errors = [
        relativeDifference(out, wanted),
        relativeDifference(whole, wantedWhole),
        ...[q, k, v].map((x, i) => relativeDifference(x.grad!, exact[i]!.grad!)),
      ];
      must(errors.every(Number.isFinite), "a value or a gradient is not finite");
      return within(Math.max(...errors), bound);
    }),
  );
}

/** Queries, keys and values (B, tokens, H, E) as training has them in memory, by the number of source tokens. */
const LAYOUTS: Record<string, { shapes: (S: number) => number[][]; parts: (leaves: Tensor[]) => Tensor[] }> = {
  /** The conditioning transformer. */
  "q, k and v in one tensor": { shapes: (S) => [[S, 3]], parts: ([qkv]) => qkv!.unbind(2) },
  /** Norms write queries and keys anew; the values stay where they are. */
  "k and v in one tensor, k normed": {
    shapes: (S) => [[128], [S, 2]],
    parts: ([q, kv]) => [q!, kv!.select(2, 0).contiguous(), kv!.select(2, 1)],
  },
};

/** Numbers of source tokens that are, and are not, a multiple of what kernels take at a time. Texts are masked. */
const SOURCES = [
  { S: 100, masked: true },
  { S: 101, masked: true },
  { S: 128, masked: true },
  { S: 128, masked: false },
];

/** Attention as training calls it, with heads of 64 and 32, against softmax(q kᵀ / √E) v in float32. */
async function attentionInTraining(checks: Checks, dtype: "bfloat16" | "float16"): Promise<void> {
  const cases = Object.keys(LAYOUTS).flatMap((layout) =>
    [64, 32].flatMap((E) => SOURCES.map((source) => ({ layout, E, ...source }))),
  );
  await checks.check(`attention in ${dtype} in the layouts of training, backward too`, () => {
    const bound = { bfloat16: 3e-2, float16: 5e-3 }[dtype];
    const errors = cases.map((one) => {
      const error = Math.max(...scope(() => attentionErrors(one, dtype, checks.device)));
      const { layout, E, S, masked } = one;
      const where = `${layout}, heads of ${E}, ${S} tokens${masked ? ", masked" : ""}`;
      must(error <= bound, `${where}: error ${error.toExponential(1)}, at most ${bound} is allowed`);
      return error;
    });
    return within(Math.max(...errors), bound);
  });
}

/** How far the result and each gradient are off; NaN where one is not finite. */
function attentionErrors(
  { layout, E, S, masked }: { layout: string; E: number; S: number; masked: boolean },
  dtype: DType,
  device: string,
): number[] {
  manualSeed(13);
  const { shapes, parts } = LAYOUTS[layout]!;
  const exact = shapes(S).map((shape) =>
    randn([2, ...shape, 2, E])
      .to({ dtype })
      .to({ dtype: "float32" }),
  );
  const leaves = exact.map((leaf) => leaf.to({ device, dtype }));
  for (const leaf of [...exact, ...leaves]) leaf.requiresGrad_();
  const lengths = tensor([S, 61]).view([2, 1, 1, 1]);
  const mask = masked ? arange(S).view([1, 1, 1, S]).lt(lengths) : null;
  const [q, k, v] = parts(leaves) as [Tensor, Tensor, Tensor];
  const out = F.multiHeadAttention(q, k, v, mask?.to({ device }));
  const wanted = softmaxAttention(parts(exact), mask);
  const weights = randn(wanted.shape);
  out.to({ dtype: "float32" }).mul(weights.to({ device })).sum().backward();
  wanted.mul(weights).sum().backward();
  return [relativeDifference(out, wanted), ...leaves.map((leaf, i) => relativeDifference(leaf.grad!, exact[i]!.grad!))];
}

/** By the formula, with its results of the heads side by side: (B, Q, H · E). */
function softmaxAttention(parts: Tensor[], mask: Tensor | null): Tensor {
  const [q, k, v] = parts.map((part) => part.transpose(1, 2)) as [Tensor, Tensor, Tensor];
  const scores = q.matmul(k.transpose(2, 3)).div(Math.sqrt(q.size(3)));
  const allowed = mask === null ? scores : scores.maskedFill(mask.logicalNot(), Number.NEGATIVE_INFINITY);
  return allowed.softmax(-1).matmul(v).transpose(1, 2).flatten(2);
}

/** float32 is float32: TF32 would show as an error of about 1e-3. */
async function exactFloat32(checks: Checks): Promise<void> {
  const { device } = checks;
  cuda.allowTf32({ matmul: false, cudnn: false });
  await checks.check("float32 products and convolutions without TF32", () =>
    scope(() =>
      noGrad(() => {
        manualSeed(12);
        const [a, b] = [randn([512, 512]), randn([512, 512])];
        const [x, w] = [randn([1, 64, 32, 32]), randn([64, 64, 3, 3])];
        const there = (t: Tensor) => t.to({ device });
        const wide = (t: Tensor) => t.to({ dtype: "float64" });
        const product = relativeDifference(there(a).matmul(there(b)), wide(a).matmul(wide(b)));
        const convolved = F.conv2d(there(x), there(w), null, { padding: 1 });
        const convolution = relativeDifference(convolved, F.conv2d(wide(x), wide(w), null, { padding: 1 }));
        return within(Math.max(product, convolution), 2e-5);
      }),
    ),
  );
}

const OPTIMIZERS = {
  AdamW: (parameters: Tensor[]) => new AdamW(parameters, { lr: 1e-2 }),
  LAMB: (parameters: Tensor[]) => new Lamb(parameters, { lr: 1e-2, weightDecay: 0.01, decouple: false }),
};

/** Losses of eight steps of a small network. */
function losses(
  device: string,
  optimizerOf: (parameters: Tensor[]) => AdamW | Lamb,
  precision: "bfloat16" | "float16" | null,
): number[] {
  return scope(() => {
    manualSeed(5);
    using net = new nn.Sequential(new nn.Linear(16, 64), new nn.Linear(64, 64), new nn.Linear(64, 1));
    const [x, y] = [randn([32, 16]), randn([32, 1])].map((t) => t.to({ device })) as [Tensor, Tensor];
    net.to({ device });
    const parameters = [...net.parameters()];
    const optimizer = optimizerOf(parameters);
    const scaler = precision === "float16" ? new GradScaler({ initScale: 1024 }) : null;
    const found: number[] = [];
    for (let step = 0; step < 8; step++)
      scope(() => {
        optimizer.zeroGrad();
        const run = () => (net.forward(x) as Tensor).sub(y).square().mean();
        const loss = precision === null ? run() : autocast({ device, dtype: precision }, run);
        loss.mul(scaler?.scale ?? 1).backward();
        const finite = scaler === null || scaler.unscale(parameters);
        clipGradNorm_(parameters, 1);
        if (finite) optimizer.step();
        scaler?.update();
        found.push(loss.to({ dtype: "float64" }).item() as number);
      });
    optimizer.dispose();
    return found;
  });
}

async function optimizers(checks: Checks): Promise<void> {
  const precisions = [null, "bfloat16", ...(checks.onGpu ? (["float16"] as const) : [])] as const;
  for (const [name, optimizerOf] of Object.entries(OPTIMIZERS))
    for (const precision of checks.onGpu ? precisions : precisions.filter((one) => one !== null))
      await checks.check(`8 steps of ${name} in ${precision ?? "float32"}, as in float32 on the CPU`, () => {
        const [got, want] = [losses(checks.device, optimizerOf, precision), losses("cpu", optimizerOf, null)];
        must(want.at(-1)! < want[0]!, "the loss does not fall on the CPU");
        const error = Math.max(...got.map((loss, i) => Math.abs(loss - want[i]!) / want[i]!));
        return within(error, precision === null ? 1e-4 : 5e-2);
      });
}

async function outOfMemory(checks: Checks): Promise<void> {
  const { device } = checks;
  await checks.check("more memory than there is: an error that says so, and the next operation works", () => {
    let said = "";
    try {
      scope(() => void zeros([2 ** 42], { dtype: "uint8", device }));
    } catch (error) {
      said = (error as Error).message.split("\n")[0]!;
    }
    must(/out of memory/i.test(said), said === "" ? "no error" : `another error: ${said}`);
    must(scope(() => zeros([1], { device }).add(1).item()) === 1, "a sum is wrong afterwards");
    return undefined;
  });
}

/** Figures without a bound: they tell a debug build, a slow bus or a driver in trouble. */
async function speed(checks: Checks): Promise<void> {
  const { device } = checks;
  await checks.check("host time of a small operation", () => {
    const count = 5000;
    using x = zeros([64], { device }).keep();
    const queue = () =>
      scope(() =>
        noGrad(() => {
          for (let i = 0; i < count; i++) x.add(1).dispose();
        }),
      );
    queue();
    checks.synchronize();
    const start = performance.now();
    queue();
    const queued = performance.now() - start;
    checks.synchronize();
    const all = performance.now() - start;
    return [queued, all].map((ms) => `${((ms * 1e3) / count).toFixed(2)} µs`).join(" queued, ");
  });
  await checks.check("copies of 64 MB", () => {
    using host = randn([2 ** 24]).keep();
    using there = host.to({ device, copy: true }).keep();
    const rate = (copy: () => Tensor) => {
      const once = () => scope(() => void copy());
      once();
      checks.synchronize();
      const start = performance.now();
      once();
      checks.synchronize();
      return (2 ** 26 / (performance.now() - start) / 1e6).toFixed(1);
    };
    must(relativeDifference(there, host) === 0, "other values than were sent");
    return `${rate(() => host.to({ device, copy: true }))} GB/s there, ${rate(() => there.cpu().clone())} GB/s back`;
  });
}
