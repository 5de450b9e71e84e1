/** `miro evaluate geneval`. Parses, calls, prints. */
import { z } from "zod";
import { invalid } from "../errors.js";
import { judgeFile } from "../evaluation/geneval/judge-file.js";
import { rulesSchema } from "../evaluation/geneval/rules.js";
import { field, parseOptions } from "../options.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";

const EXAMPLES = `
Examples:
  miro evaluate geneval --judge detections.json --json
  miro evaluate geneval --judge detections.json --options threshold=0.5

A file of detections: {"cases": [{"name": "a bench", "metadata": {"tag": "single_object", "include": [{"class": "bench",
"count": 1}], "prompt": "a photo of a bench"}, "detections": {"bench": [[40, 45, 80, 75, 0.8]]}, "colours": {}}]}. Boxes
are x1, y1, x2, y2 and a score; colours are those of the kept objects of a class, best first.
`;

const schema = z.strictObject({
  judge: field(z.string().min(1).optional(), {
    expected: "a file",
    help: "judge the detections of a JSON file, without pictures",
    flag: "--judge <file.json>",
  }),
  options: field(z.record(z.string(), z.union([z.number(), z.string()])).default({}), {
    expected: "key=value",
    help:
      "constant of the rules: threshold, counting_threshold, max_objects, max_overlap, position_threshold; " +
      "repeatable",
    flag: "--options <key=value>",
  }),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => geneval(options, context)).addHelpText("after", EXAMPLES);
};

function geneval({ judge, options, json }: z.output<typeof schema>, context: CliContext): void {
  parseOptions(rulesSchema, options, "options");
  if (judge === undefined) throw invalid("judge", "a file", "none");
  const verdicts = judgeFile(judge, options);
  if (json) {
    context.stdout(`${JSON.stringify({ verdicts })}\n`);
    return;
  }
  for (const { name, correct, reason } of verdicts)
    context.stdout(
      `${correct ? "correct" : "wrong  "}  ${name}${correct ? "" : `: ${reason.replaceAll("\n", "; ")}`}\n`,
    );
  context.stdout(`${verdicts.filter(({ correct }) => correct).length} of ${verdicts.length} correct\n`);
}
