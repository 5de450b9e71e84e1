/** `miro bench`: how fast a checkpoint draws on this machine. */
import { getNumThreads } from "@miro-t2i/torch";
import { z } from "zod";
import { measureSpeed, type Seconds, type Speed, speedSchema } from "../evaluation/speed.js";
import { counted } from "../numbers.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { loadPipeline, modelSchema, optionsOf } from "./model-options.js";
import { Progress } from "./progress.js";
import { textTable } from "./text-table.js";

const EXAMPLES = `
Examples:
  miro bench
  miro bench --batches 1,4 --steps 20
  miro bench --model nicolas-dufour/miro --device cuda --batches 1,8,32 --json

Each number of pictures is drawn once uncounted, then --rounds times. Nothing is written. Other programs that compute
meanwhile make the figures worse: those of a quiet machine count.
`;

const schema = z.strictObject({ ...speedSchema.shape, ...modelSchema.shape, json });

export const register: Register = (command, context) => {
  declare(command, schema, async ({ json, ...options }, given) => {
    const progress = await Progress.for(context);
    const model = modelOrBundled(options.model);
    const start = performance.now();
    const pipe = await loadPipeline(model, optionsOf(loadSchema, given), context, progress);
    try {
      const loaded = (performance.now() - start) / 1000;
      const speeds = await measureSpeed(pipe, {
        ...optionsOf(speedSchema, options),
        signal: context.signal,
        onProgress: (done, total) => progress.update("measuring", done, total),
      });
      progress.stop();
      const { device, dtype } = pipe;
      const run = { model, device, dtype, threads: getNumThreads(), loadSeconds: loaded };
      if (json) context.stdout(`${JSON.stringify({ ...run, speeds })}\n`);
      else {
        const where = device === "cpu" ? `${device}, ${counted(run.threads, "thread")}` : device;
        context.stdout(
          `${options.model ?? "the bundled model"} (${where}, ${dtype}), loaded in ${loaded.toFixed(2)} s\n\n${table(speeds)}\n`,
        );
      }
    } finally {
      progress.stop();
      await pipe.dispose();
    }
  }).addHelpText("after", helpText(EXAMPLES));
};

/** A line for each number of pictures. */
function table(speeds: readonly Speed[]): string {
  const rows = [
    ["pictures together", "seconds (min to max)", "a picture", "a step", "steps", "text and decoder", "pictures/s"],
    ...speeds.map(({ batch, steps, call, step, rest, picturesPerSecond }) => [
      String(batch),
      spread(call),
      (call.median / batch).toFixed(3),
      step.median.toFixed(4),
      String(steps),
      rest.median.toFixed(3),
      picturesPerSecond.toFixed(2),
    ]),
  ];
  return textTable(rows, { numbers: true }).join("\n");
}

const spread = ({ median, min, max }: Seconds) => `${median.toFixed(2)} (${min.toFixed(2)} to ${max.toFixed(2)})`;
