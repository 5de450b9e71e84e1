/** `miro plot`: draws what runs have logged. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { invalid } from "../errors.js";
import { writeFileAtomic } from "../files/files.js";
import { help } from "../options.js";
import { encodePng } from "../pictures/png.js";
import { runChart, runChartOptionsSchema } from "../training/logging/run-chart.js";
import { readRunLog } from "../training/logging/run-log.js";
import { toNumber } from "./arguments.js";
import type { Register } from "./context.js";
import { withFlagNames } from "./sampling-flags.js";

const EXAMPLES = `
Examples:
  miro plot runs/emoji
  miro plot runs/try-1 runs/try-2 --output compare.png
  miro plot runs/emoji --keys "train/*,lr-*" --log
  miro plot runs/emoji --keys speed/images_per_second --x seconds --smooth 0
  miro plot runs/emoji --json | jq '.curves[] | select(.key == "train/raw_loss")'

A run may still be at work. What it logged before it went back to an earlier checkpoint is left out. The pale lines are what was logged.
`;

interface Flags {
  output?: string;
  keys?: string[];
  x?: string;
  smooth?: number;
  log?: boolean;
  title?: string;
  json?: boolean;
}

export const register: Register = (command, context) => {
  const about = (name: string) => help(runChartOptionsSchema, name);
  command
    .argument("<run...>", "folders of runs, or their log.jsonl")
    .option("--output <file>", "SVG or PNG file (default: plot.svg in the folder of a single run, else here)")
    .option("--keys <names>", about("keys"), (names: string, earlier: string[] = []) => [...earlier, ...split(names)])
    .option("--x <name>", about("x"))
    .option("--smooth <weight>", about("smoothing"), toNumber("--smooth"))
    .option("--log", about("logScale"))
    .option("--title <text>", about("title"))
    .option("--json", "print what is shown as JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (runs: string[], flags: Flags) => {
      const output = flags.output ?? defaultOutput(runs);
      const svg = output.toLowerCase().endsWith(".svg");
      if (!svg && !output.toLowerCase().endsWith(".png"))
        throw invalid("--output", "a file that ends in .svg or .png", output);
      const logs = runs.map(readRunLog);
      const { drawing, curves } = await withFlagNames(
        { keys: "--keys", x: "--x", smoothing: "--smooth", title: "--title" },
        async () =>
          runChart(logs, {
            ...(flags.keys && { keys: flags.keys }),
            ...(flags.x !== undefined && { x: flags.x }),
            ...(flags.smooth !== undefined && { smoothing: flags.smooth }),
            ...(flags.log && { logScale: true }),
            ...(flags.title !== undefined && { title: flags.title }),
          }),
      );
      if (svg) writeFileAtomic(output, drawing.toSvg(), { overwrite: true });
      else {
        const { data, width, height } = await drawing.toImage();
        writeFileAtomic(output, encodePng(data, width, height), { overwrite: true });
      }
      for (const { path, badLines } of logs)
        if (badLines > 0)
          context.stderr(`warning: ${path}: ${badLines} line${badLines === 1 ? " is" : "s are"} no record\n`);
      const about = logs.map(({ name, path, badLines, restarts, warnings }) => ({
        name,
        path,
        badLines,
        restarts,
        warnings: warnings.length,
      }));
      context.stdout(flags.json ? `${JSON.stringify({ output, runs: about, curves })}\n` : `${output}\n`);
    });
};

function split(names: string): string[] {
  return names
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}

function defaultOutput(runs: readonly string[]): string {
  const [only, ...others] = runs;
  const folder = others.length === 0 && statSync(only!, { throwIfNoEntry: false })?.isDirectory();
  return folder ? join(only!, "plot.svg") : "plot.svg";
}
