import { MiroPipeline, type WorkerPipeline } from "miro-t2i";

/** Modules are loaded again after each change in development, and once for each route; the model is loaded once. */
const shared = globalThis as { miro?: Promise<WorkerPipeline> | undefined };

/** The one pipeline of this server. */
export function pipeline(): Promise<WorkerPipeline> {
  shared.miro ??= MiroPipeline.fromPretrained(process.env.MODEL, { worker: true }).catch((error) => {
    shared.miro = undefined; // the next request tries again
    throw error;
  });
  return shared.miro;
}
