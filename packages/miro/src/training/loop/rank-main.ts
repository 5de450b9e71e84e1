/**
 * A rank that spawn-ranks.ts has started: trains as its parent says, and reports its progress. Without its parent it
 * ends.
 */
import { MiroError } from "../../errors.js";
import { loadModules } from "../../extension-modules.js";
import { surviveLostOutput } from "../../lost-output.js";
import { message } from "../../message.js";
import { loadScorerModules } from "../../rewards/scorer-modules.js";
import { DataParallelGroup, isLostRank } from "../process-group/process-group.js";
import { parseRecipe } from "../recipes/recipe.js";
import type { FromRank, ToRank } from "./rank-messages.js";
import { trainProcess } from "./train-process.js";

surviveLostOutput();
const stop = new AbortController();
// A signal to a whole session or job reaches every process; one is enough for all of them to stop after the same step.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
  process.on(signal, () => stop.abort(new MiroError(`was asked to stop before it trained (${signal})`)));
const orphaned = () => process.exit(1);
process.on("disconnect", orphaned);
process.on("message", (message: ToRank) => {
  if (message.type === "stop") stop.abort();
  else void train(message).then((code) => process.exit(code));
});

async function train(start: Extract<ToRank, { type: "start" }>): Promise<number> {
  const { place, recipe: json, modules, scorerModules, ...options } = start;
  let group: DataParallelGroup | null = null;
  try {
    await loadModules(modules);
    await loadScorerModules(scorerModules);
    const recipe = parseRecipe(json);
    group = await DataParallelGroup.join(place, recipe.trainer, { signal: stop.signal });
    const result = await trainProcess(
      {
        recipe,
        ...options,
        signal: stop.signal,
        onMessage: (text) => void tell({ type: "message", text }),
        onWarning: (text) => void tell({ type: "warning", text }),
        ...(place.rank === 0 && { onProgress: (progress) => void tell({ type: "progress", progress }) }),
      },
      group,
    );
    await tell({ type: "result", result });
    await group.leave();
    return 0;
  } catch (error) {
    const exitCode = error instanceof MiroError ? error.exitCode : 1;
    await tell({ type: "error", error: { message: message`${error}`.parts, exitCode, lostRank: isLostRank(error) } });
    return 1;
  }
}

function tell(message: FromRank): Promise<void> {
  return new Promise((resolve) => {
    process.send!(message, undefined, undefined, () => resolve());
  });
}
