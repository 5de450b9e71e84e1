// One rank of the tests of collectives, run as a process of its own: `node rank.js CASE STORE RANK WORLD_SIZE
// TIMEOUT_MS`. STORE is the path of a file, or host:port of a TCP store that the test serves. The result goes to stdout
// as one JSON line.
import { setTimeout as delay } from "node:timers/promises";
import { aten, F, manualSeed, memory, nn, randn, scope, type Tensor, tensor } from "../../index.js";
import { DistributedReducer, initProcessGroup, type ProcessGroup, RendezvousStore } from "../index.js";

const [name, place, rankText, worldText, timeoutText] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];
const rank = Number(rankText);
const worldSize = Number(worldText);
const timeoutMs = Number(timeoutText);
const tcp = /^([\d.]+):(\d+)$/.exec(place);

/** The values of `t` on every rank after `change`, freed. */
async function after(t: Tensor, change: (t: Tensor) => Promise<void>): Promise<unknown> {
  try {
    await change(t);
    return t.toList();
  } finally {
    t.dispose();
  }
}

async function collectives(group: ProcessGroup): Promise<object> {
  const mine = () =>
    tensor(
      [
        [rank + 1, 10 * (rank + 1)],
        [-rank, 0.5],
      ],
      { dtype: "float32" },
    );
  const result: Record<string, unknown> = {};
  for (const operation of ["sum", "avg", "max", "min"] as const) {
    result[operation] = await after(mine(), (t) => group.allReduce(t, operation));
  }
  result.queued = await after(mine(), async (t) => {
    group.queueAllReduce(t, "avg");
    group.check();
  });
  // A transposed view: its memory is not in row-major order.
  const whole = mine();
  result.transposed = await after(whole.t(), (t) => group.allReduce(t));
  whole.dispose();
  // Its memory holds the values before they are negated.
  const positive = mine();
  result.negated = await after(aten._neg_view(positive), (t) => group.allReduce(t, "max"));
  positive.dispose();
  result.counts = await after(tensor([rank, 1]), (t) => group.allReduce(t));
  result.broadcast = await after(mine(), (t) => group.broadcast(t, worldSize - 1));
  const own = mine();
  const gathered = await group.allGather(own);
  result.gathered = gathered.map((t) => t.toList());
  for (const t of [own, ...gathered]) t.dispose();
  // Several under way at once.
  const many = Array.from({ length: 20 }, (_, i) => tensor([i + rank]));
  await Promise.all(many.map((t) => group.allReduce(t)));
  result.many = many.map((t) => t.item());
  for (const t of many) t.dispose();

  // The event loop turns while the others are waited for: the last rank comes late.
  let turns = 0;
  const clock = setInterval(() => turns++, 5);
  if (rank === worldSize - 1) await delay(200);
  await group.barrier();
  clearInterval(clock);
  result.turned = turns >= 5 || worldSize === 1;
  return result;
}

/** Gradients of a small network over parts of a batch, by rank and micro-step, and over the whole batch at once. */
async function gradients(group: ProcessGroup): Promise<object> {
  manualSeed(100 + rank); // other weights on each rank until rank 0's arrive
  const model = new nn.Sequential(new nn.Linear(6, 32), new nn.Linear(32, 32), new nn.Linear(32, 3));
  // Buckets of a few kB, so that this network has several.
  const reducer = await DistributedReducer.create(group, model.namedParameters(), {
    bucketCapMb: 0.002,
    firstBucketCapMb: 0.001,
  });
  manualSeed(7);
  const batch = 18; // 1, 2 or 3 ranks with 1 or 3 parts each
  const x = randn([batch, 6]);
  const y = randn([batch, 3]);
  const lossOf = (from: number, rows: number) =>
    model
      .forward(x.narrow(0, from, rows))
      .gelu()
      .sub(y.narrow(0, from, rows))
      .square()
      .mean();
  const take = (): number[] =>
    scope(() => [...model.parameters()].flatMap((p) => p.grad!.flatten().toList() as number[]));

  const differences: Record<string, number> = {};
  const before = { live: 0, bytes: 0 };
  let rebuilt = 0;
  for (let step = 0; step < 12; step++) {
    const microSteps = step % 2 === 0 ? 1 : 3;
    const rows = batch / worldSize / microSteps;
    scope(() => {
      model.zeroGrad();
      const part = (i: number) => lossOf((rank * microSteps + i) * rows, rows).div(microSteps);
      reducer.noSync(() => {
        for (let i = 0; i < microSteps - 1; i++) reducer.backward(part(i));
      });
      reducer.prepareForForward();
      reducer.backward(part(microSteps - 1));
      const reduced = take();
      model.zeroGrad();
      // The whole batch on this rank alone.
      reducer.noSync(() => reducer.backward(lossOf(0, batch)));
      const expected = take();
      const largest = Math.max(...reduced.map((value, i) => Math.abs(value - expected[i]!)));
      const key = microSteps === 1 ? "whole" : "accumulated";
      differences[key] = Math.max(differences[key] ?? 0, largest);
      model.zeroGrad();
    });
    if (step === 1) rebuilt = reducer.statistics().bucketBytes.length;
    const stats = memory.stats();
    if (step === 5) Object.assign(before, { live: stats.liveTensors, bytes: stats.liveBytes });
  }
  const stats = memory.stats();
  const { bucketBytes } = reducer.statistics();
  const largestGradient = Math.max(
    ...scope(() => {
      lossOf(0, batch).backward();
      return take();
    }).map(Math.abs),
  );
  reducer.dispose();
  return {
    differences,
    largestGradient,
    buckets: [rebuilt, bucketBytes.length],
    bytes: bucketBytes.reduce((a, b) => a + b, 0),
    parameterBytes: 4 * [...model.parameters()].reduce((n, p) => n + p.numel, 0),
    leaked: [stats.liveTensors - before.live, stats.liveBytes - before.bytes],
  };
}

async function mismatch(group: ProcessGroup): Promise<object> {
  const model = new nn.Sequential(new nn.Linear(4, 4), new nn.Linear(4, 2 + rank));
  await DistributedReducer.create(group, model.namedParameters());
  return {};
}

/** With findUnusedParameters: the gradient of a parameter that is used, and of one that is not. */
async function toleratedUnused(group: ProcessGroup): Promise<unknown[]> {
  const parameters = ["a", "b"].map((n): [string, Tensor] => [
    n,
    tensor([1, 2], { dtype: "float32", requiresGrad: true }),
  ]);
  const reducer = await DistributedReducer.create(group, parameters, { findUnusedParameters: true });
  for (let step = 0; step < 2; step++) {
    for (const [, p] of parameters) p.grad = null;
    reducer.prepareForForward();
    reducer.backward(parameters[0]![1].mul(rank + 1).sum());
  }
  reducer.dispose();
  return parameters.map(([, p]) => p.grad?.toList() ?? null);
}

/** The second parameter gets no gradient. */
async function unused(group: ProcessGroup): Promise<object> {
  const parameters: [string, Tensor][] = ["a", "b"].map((n) => [
    n,
    tensor([1, 2], { dtype: "float32", requiresGrad: true }),
  ]);
  const reducer = await DistributedReducer.create(group, parameters);
  reducer.prepareForForward();
  reducer.backward(F.relu(parameters[0]![1]).sum());
  return {};
}

/** The last rank leaves without a word. */
async function exits(group: ProcessGroup): Promise<object> {
  await group.barrier();
  if (rank === worldSize - 1) process.exit(3);
  await group.allReduce(randn([64]));
  return {};
}

/**
 * The last rank hangs. The short timeout is a second group's, so that it does not hold for the start of the processes.
 */
async function hangs(group: ProcessGroup): Promise<object> {
  await group.barrier();
  const short = { timeoutMs: 1000, rank, worldSize };
  const second = await initProcessGroup({ initMethod: `file://${place}-second`, ...short });
  if (rank === worldSize - 1) await delay(2500);
  else await second.allReduce(randn([64]));
  return {};
}

/** A process may exit while it waits for another. */
async function exitsWhileWaiting(group: ProcessGroup): Promise<object> {
  await group.barrier();
  if (rank === worldSize - 1) {
    await delay(2000);
    process.exit(0);
  }
  void group.allReduce(randn([64]));
  setTimeout(() => {
    console.log(JSON.stringify({ left: true }));
    process.exit(4);
  }, 50);
  return new Promise(() => undefined);
}

/** As `exits`, while gradients are reduced. */
async function lostInBackward(group: ProcessGroup): Promise<object> {
  const w = tensor([1, 2], { dtype: "float32", requiresGrad: true });
  const reducer = await DistributedReducer.create(group, [["w", w]]);
  if (rank === worldSize - 1) process.exit(3);
  reducer.prepareForForward();
  reducer.backward(w.square().sum());
  return {};
}

const cases: Record<string, (group: ProcessGroup) => Promise<object>> = {
  works: async (group) => ({
    ...(await collectives(group)),
    ...(await gradients(group)),
    unused: await toleratedUnused(group),
  }),
  mismatch,
  unused,
  exits,
  hangs,
  exitsWhileWaiting,
  lostInBackward,
};

const start = Date.now();
try {
  const where =
    tcp === null
      ? { initMethod: `file://${place}` }
      : { store: await RendezvousStore.tcp({ host: tcp[1]!, port: Number(tcp[2]), serves: false, timeoutMs }) };
  const group = await initProcessGroup({ ...where, rank, worldSize, timeoutMs });
  const joined = Date.now();
  try {
    const result = await cases[name]!(group);
    console.log(JSON.stringify(result));
    await group.destroy();
  } catch (error) {
    console.log(JSON.stringify({ error: (error as Error).message, afterMs: Date.now() - joined }));
  }
  where.store?.close();
} catch (error) {
  console.log(JSON.stringify({ error: (error as Error).message, afterMs: Date.now() - start }));
}
