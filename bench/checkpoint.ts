/**
 * `npm run bench -- checkpoint [--size full|tiny] [--device cuda]`: storing a training checkpoint of the published
 * network (weights, one average, both moments, float32): how long the training waits when copy and write go on beside
 * it, how long the copy and the write take, how long a write takes that is waited for, and what a matrix product takes
 * meanwhile. The first checkpoint stands apart: on a CPU its copy goes into new memory. On a GPU the copies' memory is
 * pinned before the first step, which is timed on its own. Needs twice the checkpoint's size in memory; on a GPU once
 * there and once in pinned memory.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nn, randn, scope, type Tensor } from "@miro-t2i/torch";
import { parseRinConfig, Rin } from "miro-t2i/networks";
import { CheckpointWriter, saveTrainingCheckpoint, type TrainingCheckpoint } from "miro-t2i/training";
import { NETWORKS } from "./configurations.js";
import { type BenchOptions, columns, type Spread, spread, store } from "./harness.js";

const SIDE = 1024;

export async function checkpoint(options: BenchOptions): Promise<void> {
  const { device } = options;
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-checkpoint-"));
  const network = nn.init.skipped(() => new Rin(parseRinConfig(NETWORKS[options.size])));
  const kept: Tensor[] = [];
  const like = (suffix: string) =>
    Object.fromEntries(
      [...network.stateDict()].map(([name, t]) => {
        const values = () => (t.dtype === "float32" ? randn(t.shape, { device }).mul(0.02) : t.to({ device }).clone());
        const copy = scope(() => values().keep());
        kept.push(copy);
        return [`${name}${suffix}`, copy];
      }),
    );
  const parts = {
    network: like(""),
    emas: { ema_network: like("") },
    optimizer: { ...like(".exp_avg"), ...like(".exp_avg_sq") },
  };
  const bytes = kept.reduce((sum, t) => sum + t.numel * (t.dtype === "float32" ? 4 : 1), 0);
  const at = (step: number): TrainingCheckpoint => ({
    state: { format: 1, step, emaUpdates: step, skippedSteps: 0, seconds: 0, optimizerStep: step, recipe: {} },
    ...parts,
  });
  const [a, b] = scope(() => [1, 2].map(() => randn([SIDE, SIDE], { device }).keep())) as [Tensor, Tensor];
  const product = () => {
    const start = performance.now();
    scope(() => a.matmul(b).sum().item());
    return performance.now() - start;
  };
  const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

  const writer = new CheckpointWriter(folder, { keepLast: 1 });
  await writer.save({ ...at(0), network: {}, emas: {}, optimizer: {} }); // starts the thread
  await writer.settled();
  const pinning = performance.now();
  if (device !== "cpu") writer.reserve(kept);
  const pinSeconds = device === "cpu" ? null : (performance.now() - pinning) / 1000;
  const alone = Array.from({ length: 50 }, product);
  const waits: number[] = [];
  const copies: number[] = [];
  const writes: number[] = [];
  const beside: number[] = [];
  const blocking: number[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    const start = performance.now();
    const since = () => (performance.now() - start) / 1000;
    await writer.begin(at(2 * round - 1));
    waits.push(since());
    let written = false;
    // A GPU would hold back what is queued from there on: the gradients of the next step come before it.
    const copied = device === "cpu" ? writer.copied().then(() => void copies.push(since())) : null;
    const done = writer.settled().then(() => {
      written = true;
    });
    // The gradients of the next step.
    while (!written) {
      beside.push(product());
      await nextTurn();
    }
    await Promise.all([copied ?? writer.copied(), done]);
    writes.push(since() - (copies.at(-1) ?? 0));
    const again = performance.now();
    saveTrainingCheckpoint(folder, at(2 * round), { keepLast: 1 });
    blocking.push((performance.now() - again) / 1000);
  }
  await writer.close();
  for (const tensor of [...kept, a, b]) tensor.dispose();
  rmSync(folder, { recursive: true });

  const all = (values: readonly number[]) => ({ ...spread(values), first: values[0]! });
  const rows = {
    gigabytes: bytes / 1e9,
    pinSeconds,
    waitSeconds: all(waits),
    copySeconds: copies.length > 0 ? all(copies) : null,
    writeBesideSeconds: all(writes),
    writeWaitedForSeconds: all(blocking),
    productAloneMs: spread(alone),
    productBesideMs: spread(beside),
  };
  const line = (name: string, { first, median, min, max }: Spread & { first?: number }) => [
    name,
    ...[first, median, min, max].map((value) => value?.toFixed(2) ?? ""),
  ];
  console.log(
    columns([
      [`checkpoint of ${rows.gigabytes.toFixed(2)} GB, ${device}`, "first", "median", "min", "max"],
      line("the training waits, s", rows.waitSeconds),
      ...(rows.copySeconds === null ? [] : [line("until weights may change, beside gradients, s", rows.copySeconds)]),
      line(
        rows.copySeconds === null ? "copy and write beside it, s" : "the write beside it, s",
        rows.writeBesideSeconds,
      ),
      line("a write that is waited for, s", rows.writeWaitedForSeconds),
      line(`product of ${SIDE} x ${SIDE} matrices, alone, ms`, rows.productAloneMs),
      line("the same beside a write, ms", rows.productBesideMs),
    ]),
  );
  if (pinSeconds !== null) console.log(`memory pinned before the first step in ${pinSeconds.toFixed(2)} s`);
  console.log(`written: ${store(options, { network: options.size, device, rounds: options.rounds }, rows)}`);
}
