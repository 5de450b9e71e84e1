/** Worker thread of a replica (see thread-replicas.ts): receives rows, answers with gradients. */
import { parentPort, workerData } from "node:worker_threads";
import { nn, receive, scope, setNumThreads, share } from "@miro-t2i/torch";
import { planOf } from "../recipes/batch-plan.js";
import { accumulateGradients } from "./gradients.js";
import { createLoss, createNetworks } from "./model.js";
import { type ReplicaAnswer, type ReplicaSetup, type ReplicaTask, trainableParameters } from "./thread-replicas.js";

const { recipe, rows, tensors, uncondEmbedding } = workerData as ReplicaSetup;
setNumThreads(1);
const { network, preconditioning } = nn.init.skipped(() => createNetworks(recipe));
// The trainer's weights themselves: what its optimizer writes is seen here.
for (const [prefix, module] of [
  ["network", network],
  ["preconditioning", preconditioning],
] as const) {
  const own = Object.entries(tensors).filter(([name]) => name.startsWith(`${prefix}.`));
  module.loadStateDict(new Map(own.map(([name, message]) => [name.slice(prefix.length + 1), receive(message)])), {
    assign: true,
  });
}
const model = { network, preconditioning, loss: createLoss(recipe, receive(uncondEmbedding)) };
const parameters = trainableParameters(model);
const { seed } = recipe;
const { precision } = recipe.trainer;
const { accumulateGradBatches } = planOf(recipe.trainer);

parentPort!.on("message", (task: ReplicaTask) => {
  const answer = scope((): ReplicaAnswer => {
    const batch = {
      x0: receive(task.x0),
      textEmbeddings: receive(task.textEmbeddings),
      textMask: receive(task.textMask),
      rewards: Object.fromEntries(Object.entries(task.rewards).map(([key, message]) => [key, receive(message)])),
    };
    const means = accumulateGradients(model, batch, {
      seed,
      k: task.k,
      rows,
      precision,
      lossScale: task.lossScale,
      accumulateGradBatches,
    });
    const gradients = parameters.map((parameter) => {
      const { grad } = parameter;
      parameter.grad = null;
      return grad && share(grad);
    });
    return { terms: means.toList() as number[], gradients };
  });
  parentPort!.postMessage(answer);
});
