/** `miro score`: scores of picture files. Parses, calls {@link scoreFiles}, prints. */
import "./extensions.js";
import { z } from "zod";
import { invalid } from "../errors.js";
import { field } from "../options.js";
import { type ScoredFile, scorerSpecs } from "../rewards/index.js";
import { scoreFiles, scoreFilesSchema } from "../rewards/score-files.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { Progress } from "./progress.js";

const EXAMPLES = `
Scorers:
${scorerSpecs()
  .map(({ key, description }) => `  ${key.padEnd(19)} ${description}`)
  .join("\n")}

Examples:
  miro score pictures/*.png                             how well each picture shows the prompt that is stored in it
  miro score photo.jpg --prompt "a red apple"
  miro score pictures/*.png --by emoji_clip_score --by sharpness --json
  miro score pictures/*.png --by pick_a_score_score --weights pick_a_score_score=models/PickScore_v1
  miro score --pairs pairs.jsonl --by clip_openai --json
  miro score photo.jpg --by aesthetic_score --weights aesthetic_score=models/aesthetic --weights clip_openai=models/clip

Weights come from the Hugging Face Hub where --weights names no folder; the aesthetic predictor's head is always given.
`;

const schema = z.strictObject({
  images: field(z.array(z.string()).default([]), {
    expected: "picture files",
    help: "picture files: PNG, JPEG, WebP",
    flag: "[images...]",
  }),
  ...scoreFilesSchema.shape,
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => score(options, context)).addHelpText("after", EXAMPLES);
};

async function score({ images, json, ...options }: z.output<typeof schema>, context: CliContext): Promise<void> {
  if (options.model !== undefined && new Set(options.by).size > 1)
    throw invalid("model", "one scorer, since it is the folder of that scorer's model", options.by);
  const progress = await Progress.for(context);
  let rows: ScoredFile[];
  const names = new Map<string, string>();
  try {
    rows = await scoreFiles(images, {
      ...options,
      signal: context.signal,
      onScorer: (key, name) => names.set(key, name),
      onProgress: (done, total) => progress.update("scoring", done, total),
    });
  } finally {
    progress.stop();
  }
  const keys = Object.keys(rows[0]!.scores);
  const means = Object.fromEntries(
    keys.map((key) => [key, rows.reduce((sum, { scores }) => sum + scores[key]!, 0) / rows.length]),
  );
  if (json) {
    const scorers = keys.map((key) => ({ key, name: names.get(key) }));
    context.stdout(`${JSON.stringify({ images: rows, means, scorers })}\n`);
    return;
  }
  const line = (scores: Record<string, number>, name: string) =>
    `${keys.map((key) => scores[key]!.toFixed(4).padStart(Math.max(key.length, 7))).join("  ")}  ${name}\n`;
  context.stdout(`${keys.map((key) => key.padStart(7)).join("  ")}\n`);
  for (const { path, scores } of rows) context.stdout(line(scores, path));
  if (rows.length > 1) context.stdout(line(means, "mean"));
}
