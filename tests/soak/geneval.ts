/** Kills of an evaluation (`miro evaluate geneval --prompts emoji`). */
import { join } from "node:path";
import { contents, type Kills, killAndCompare } from "./kill-and-restart.js";

/** @returns the exit code */
export function soakGeneval(kills: Kills): Promise<number> {
  return killAndCompare(kills, {
    command: (folder, name) => [
      ...["evaluate", "geneval", "--prompts", "emoji", "--prompt-range", "18-33", "--n-samples", "2", "--steps", "2"],
      ...["--outdir", join(folder, name), "--json"],
    ],
    files: (folder, name) => contents(join(folder, name)),
    told: ({ drawn, detected }) => `${drawn ?? "?"} pictures drawn, ${detected ?? "?"} looked at`,
  });
}
