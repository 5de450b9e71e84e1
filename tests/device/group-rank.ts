/**
 * One rank of a process group, which groups.ts starts: `group-rank.js BACKEND DEVICE RANK WORLD_SIZE STORE [CODE]`. It
 * checks the collectives, trains a small network on its part of a batch and sends the loss on the whole batch. With a
 * CODE it exits with that after the collectives, in the group still.
 */
import { captureGraph, hasCudaGraphs, tensor } from "@miro-t2i/torch";
import { DistributedReducer, initProcessGroup, type ProcessGroupBackend } from "@miro-t2i/torch/distributed";
import { must } from "./checks.js";
import { trainTogether } from "./group-training.js";

const [backend, device, rankText, worldText, store, code] = process.argv.slice(2) as [
  ProcessGroupBackend,
  ...[string, string, string, string],
  string?,
];
const [rank, worldSize] = [Number(rankText), Number(worldText)];
const group = await initProcessGroup({ backend, initMethod: `file://${store}`, rank, worldSize, timeoutMs: 30_000 });

using x = tensor([rank + 1, 2], { device }).keep();
await group.allReduce(x);
const sum = (worldSize * (worldSize + 1)) / 2;
must(String(x.toList()) === `${sum},${2 * worldSize}`, `all-reduce: ${x.toList()}, not ${sum},${2 * worldSize}`);

// In the order of what the device is given, without a wait in between.
using queued = tensor([rank + 1, 2], { device }).keep();
group.queueAllReduce(queued);
queued.add_(1);
must(String(queued.toList()) === `${sum + 1},${2 * worldSize + 1}`, `queued all-reduce: ${queued.toList()}`);
group.check();

// A graph is captured beside the group's connection, which looks at the device from a thread of its own.
if (device !== "cpu" && hasCudaGraphs()) {
  using values = tensor([rank + 1, 2], { device }).keep();
  const { outputs, replay, dispose } = captureGraph(() => ({ doubled: values.mul(2) }));
  replay();
  group.queueAllReduce(outputs.doubled);
  const doubled = outputs.doubled.toList();
  must(String(doubled) === `${2 * sum},${4 * worldSize}`, `all-reduce of what a graph computed: ${doubled}`);
  dispose();
}

using own = tensor([10 * rank], { device }).keep();
const gathered = (await group.allGather(own)).map((one) => one.item());
must(String(gathered) === String(gathered.map((_, i) => 10 * i)), `all-gather: ${gathered}`);
must(gathered.length === worldSize, `all-gather: ${gathered.length} tensors`);

await group.broadcast(own, worldSize - 1);
must(own.item() === 10 * (worldSize - 1), `broadcast: ${own.item()}`);
await group.barrier();
if (code !== undefined) process.exit(Number(code));

const loss = await trainTogether(device, { rank, worldSize, group, reducer: DistributedReducer });
process.send!({ loss });
await group.destroy();
process.disconnect();
