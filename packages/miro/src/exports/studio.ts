/**
 * `miro-t2i/studio`: the server of `miro studio` in a program.
 */
import "../unbundled.js";
import "../emoji/register.js";

export type { StudioOptions } from "../studio/server/options.js";
export { type RunningStudio, startStudio } from "../studio/server/start.js";
