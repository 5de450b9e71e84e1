/** Signals that many calls share. */
import { setMaxListeners } from "node:events";

/** One signal may end all calls of a server: Node 20 warns of a leak where more than ten listen to it. */
export function letManyListen(signal: AbortSignal): void {
  setMaxListeners(0, signal);
}
