/**
 * Worker thread of the checkpoint writer (see checkpoint-writer.ts): receives the training's tensors, copies them,
 * answers that it has, writes the copies, answers with the path.
 */
import { parentPort } from "node:worker_threads";
import { empty, noGrad, receive, scope, setNumThreads, type Tensor } from "@miro-t2i/torch";
import { message } from "../../message.js";
import { type NamedTensors, saveTrainingCheckpoint, type TrainingCheckpoint } from "./checkpoint.js";
import type { WriteAnswer, WriteJob } from "./checkpoint-writer.js";

setNumThreads(1);

/** Memory of the copies, kept from one checkpoint to the next: new memory costs many times what the copy does. */
const copies = new Map<string, Tensor>();

function copyOf(key: string, tensor: Tensor): Tensor {
  let copy = copies.get(key);
  if (copy === undefined || copy.dtype !== tensor.dtype || String(copy.shape) !== String(tensor.shape)) {
    copy?.dispose();
    copy = scope(() => empty(tensor.shape, { dtype: tensor.dtype }).keep());
    copies.set(key, copy);
  }
  return copy.copy_(tensor);
}

/** What a job holds; the training's own tensors as copies, and nothing of them is held any longer. */
function taken({ tensors, live }: WriteJob): Record<string, NamedTensors> {
  return noGrad(() =>
    Object.fromEntries(
      Object.entries(tensors).map(([part, messages]) => {
        const named = Object.entries(messages).map(([name, message]) => {
          const tensor = receive(message);
          if (!live) return [name, tensor] as const;
          const copy = copyOf(`${part} ${name}`, tensor);
          tensor.dispose();
          return [name, copy] as const;
        });
        return [part, Object.fromEntries(named)];
      }),
    ),
  );
}

parentPort!.on("message", (job: WriteJob) => {
  const answer = (given: WriteAnswer) => parentPort!.postMessage(given);
  scope(() => {
    try {
      const { network, optimizer, ...emas } = taken(job);
      if (job.live) answer({ copied: true });
      const checkpoint = { state: job.state, network, optimizer, emas, texts: job.texts } as TrainingCheckpoint;
      answer({ path: saveTrainingCheckpoint(job.folder, checkpoint, job.retention) });
    } catch (error) {
      answer({ error: message`${error}`.parts });
    }
  });
});
