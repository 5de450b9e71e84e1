/** The studio as a program runs it. */
import type { MiroError } from "../../errors.js";
import type { StudioOptions } from "./options.js";

/** A studio that serves until it is closed. */
export interface RunningStudio extends AsyncDisposable {
  /** Where it listens, such as `http://127.0.0.1:7860`. */
  readonly url: string;
  /**
   * Resolves with the reason when it can draw nothing more before its process is started again: a GPU has failed. It
   * goes on serving what was drawn, and refuses requests for more with that reason.
   */
  readonly failed: Promise<MiroError>;
  /** Cancels what is drawn within a step, ends event streams with a last event, and frees port, folder and models. */
  close(): Promise<void>;
}

/**
 * Starts the server of `miro studio`: the page, and HTTP for programs. Models compute in threads of their own. Warnings
 * and errors of the server go to stderr.
 *
 * @throws InvalidInputError for a wrong option, and for an address that others reach without a key; MiroError where the
 *   port or the folder is taken
 * @example
 * import { startStudio } from "miro-t2i/studio";
 *
 * await using studio = await startStudio({ port: 0, output: "pictures" });
 * const [model] = await (await fetch(`${studio.url}/api/models`)).json();
 * console.log(model.id);
 */
export async function startStudio(options: StudioOptions = {}): Promise<RunningStudio> {
  // The server and its database cost nothing to who imports this and starts none.
  const { Studio } = await import("./studio.js");
  const studio = await Studio.start(options);
  let closed: Promise<void> | undefined;
  const close = () => {
    closed ??= studio.close();
    return closed;
  };
  return { url: studio.url, failed: studio.engine.failed, close, [Symbol.asyncDispose]: close };
}
