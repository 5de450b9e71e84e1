/**
 * Worker thread of the checkpoint writer (see checkpoint-writer.ts): receives copies, writes them, answers with the
 * path.
 */

import { parentPort } from "node:worker_threads";
import { receive, scope, setNumThreads } from "@miro-t2i/torch";
import { message } from "../../message.js";
import { saveTrainingCheckpoint, type TrainingCheckpoint } from "./checkpoint.js";
import type { WriteAnswer, WriteJob } from "./checkpoint-writer.js";

setNumThreads(1);

parentPort!.on("message", ({ folder, state, tensors, texts, retention }: WriteJob) => {
  parentPort!.postMessage(
    scope((): WriteAnswer => {
      const named = Object.fromEntries(
        Object.entries(tensors).map(([part, messages]) => [
          part,
          Object.fromEntries(Object.entries(messages).map(([name, message]) => [name, receive(message)])),
        ]),
      );
      const { network, optimizer, ...emas } = named;
      const checkpoint = { state, network, optimizer, emas, texts } as TrainingCheckpoint;
      try {
        return { path: saveTrainingCheckpoint(folder, checkpoint, retention) };
      } catch (error) {
        return { error: message`${error}`.parts };
      }
    }),
  );
});
