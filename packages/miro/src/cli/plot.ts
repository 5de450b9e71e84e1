/** `miro plot`: draws what runs have logged. */
import { join } from "node:path";
import { z } from "zod";
import { invalid } from "../errors.js";
import { isFolder } from "../files/make-folder.js";
import { counted } from "../numbers.js";
import { field, flag } from "../options.js";
import { runChart, runChartOptionsSchema } from "../training/logging/run-chart.js";
import { readRunLog } from "../training/logging/run-log.js";
import { declare } from "./add-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { viewOf, viewOptions } from "./view.js";
import { writeChart } from "./write-chart.js";

const EXAMPLES = `
Examples:
  miro plot runs/emoji
  miro plot runs/try-1 runs/try-2 --output compare.png
  miro plot runs/emoji --keys "train/*,lr-*" --log
  miro plot runs/emoji --keys speed/images_per_second --x seconds --smooth 0
  miro plot runs/emoji --json | jq '.curves[] | select(.key == "train/raw_loss")'

A run may still be at work. What it logged before it went back to an earlier checkpoint is left out. The pale lines are what was logged.
`;

const schema = z.strictObject({
  runs: field(z.array(z.string().min(1)), {
    expected: "folders of runs",
    help: "folders of runs, or their log.jsonl",
    flag: "<run...>",
  }),
  output: field(z.string().optional(), {
    expected: "a file that ends in .svg or .png",
    help: "SVG or PNG file",
    flag: "--output <file>",
    writes: "file",
    otherwise: "plot.svg in the folder of a single run, else here",
  }),
  ...runChartOptionsSchema.shape,
  ...viewOptions,
  json: flag("print what is shown as JSON", "--json"),
});

export const register: Register = (command, context) => {
  declare(command, schema, async ({ runs, json, output = defaultOutput(runs), open, show, ...chart }) => {
    const view = viewOf({ open, show, json }, context);
    if (!/\.(?:svg|png)$/i.test(output)) throw invalid("output", "a file that ends in .svg or .png", output);
    const logs = runs.map(readRunLog);
    const { drawing, curves } = runChart(logs, chart);
    await writeChart(output, drawing, "curves of runs");
    for (const { path, badLines } of logs)
      if (badLines > 0) context.stderr(`warning: ${path}: ${counted(badLines, "line is", "lines are")} no record\n`);
    const about = logs.map(({ name, path, badLines, restarts, warnings }) => ({
      name,
      path,
      badLines,
      restarts,
      warnings: warnings.length,
    }));
    context.stdout(json ? `${JSON.stringify({ output, runs: about, curves })}\n` : `${output}\n`);
    await view([output], () => drawing.toImage());
  }).addHelpText("after", helpText(EXAMPLES));
};

function defaultOutput(runs: readonly string[]): string {
  const [only, ...others] = runs;
  const folder = others.length === 0 && isFolder(only!);
  return folder ? join(only!, "plot.svg") : "plot.svg";
}
