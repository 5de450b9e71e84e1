/** `miro evaluate rewards`: scores of a folder of generated pictures. Parses, calls {@link scoreFolder}, prints. */
import { counted } from "../numbers.js";
import "./extensions.js";
import { z } from "zod";
import { type FolderRewards, scoreFolder, scoreFolderSchema } from "../evaluation/rewards/score-folder.js";
import type { RewardFigures } from "../evaluation/rewards/summary.js";
import { field } from "../options.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress, tellerOf } from "./progress.js";

const EXAMPLES = `
DIR has a folder for each prompt: 00000/metadata.jsonl with {"prompt": …}, and its pictures in 00000/samples. Written are
rewards.jsonl, a picture a line, and rewards_summary.json, the means over pictures and prompts. Names and units are those of
the published evaluation: pick_score, clip_jina, clip_openai and sciscore are divided by 100. What is there already is not
computed again. Weights come from the Hugging Face Hub where --weights names no folder.

Examples:
  miro evaluate rewards images --scorers aesthetic,hpsv2 --weights aesthetic=models/aesthetic
  miro evaluate rewards images --weights pick_score=models/PickScore_v1 --weights hpsv2=models/HPSv2 --json
  miro evaluate rewards images --scorers hpsv2 --hps-version v2.0
  miro evaluate rewards images --scorers sharpness,colorfulness
`;

const schema = z.strictObject({
  folder: field(z.string().min(1), { expected: "a folder", help: "folder of pictures (below)", flag: "<dir>" }),
  ...scoreFolderSchema.shape,
  scorerModules,
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => rewards(options, context)).addHelpText("after", helpText(EXAMPLES));
};

async function rewards(
  { folder, json, scorerModules, ...options }: z.output<typeof schema>,
  context: CliContext,
): Promise<void> {
  await loadScorerModules(scorerModules);
  const progress = await Progress.for(context);
  let found: FolderRewards;
  try {
    const work = { ...options, ...tellers(context, progress) };
    found = await untilStopped(
      context,
      () => `what is scored is kept; ${SAME_COMMAND}`,
      () => scoreFolder(folder, work),
    );
  } finally {
    progress.stop();
  }
  if (json) context.stdout(`${JSON.stringify({ ...found.summary.per_image_mean, ...found.summary })}\n`);
  else context.stdout(`${figureTable(found.summary, found.columns)}\n`);
  reportTroubles(found, context);
}

/** What scoring reports while it works. */
export function tellers(context: CliContext, progress: Progress, stage = "scoring") {
  return {
    signal: context.signal,
    onProgress: (done: number, total: number) => progress.update(stage, done, total),
    onDownload: progress.download.bind(progress),
    onMessage: tellerOf(context, progress),
  };
}

/** What a reader of the figures should know, on stderr. */
export function reportTroubles({ summary, truncated, sheets }: FolderRewards, { stderr }: CliContext): void {
  for (const path of sheets) stderr(`warning: ${path}: left out, since it is a sheet that shows several pictures\n`);
  for (const { filename, scorers, reason } of summary.errors)
    stderr(`warning: ${filename}: no ${scorers.join(", ")}: ${reason}\n`);
  for (const [name, count] of Object.entries(truncated))
    stderr(`warning: ${name} reads only the beginning of ${counted(count, "prompt")}\n`);
}

/** Means, deviations and intervals, a scorer a line. */
export function figureTable(figures: RewardFigures, columns: readonly string[]): string {
  const wide = Math.max(12, ...columns.map(({ length }) => length));
  const number = (value: number | null) => (value === null ? "none" : value.toFixed(4)).padStart(9);
  const lines = columns.map((name) => {
    const interval = figures.per_prompt_interval[name];
    const count = figures.per_image_count[name]!;
    return [
      name.padEnd(wide),
      number(figures.per_image_mean[name]!),
      number(figures.per_image_std[name]!),
      number(figures.per_prompt_mean[name]!),
      interval ? `  ${interval[0].toFixed(4)} to ${interval[1].toFixed(4)}` : "",
      count < figures.n_images ? `  (${count} of ${counted(figures.n_images, "picture")})` : "",
    ]
      .join(" ")
      .trimEnd();
  });
  const head = `${"".padEnd(wide)}      mean       std   prompts  95 % of the prompts' mean`;
  return [`${counted(figures.n_images, "picture")} of ${counted(figures.n_prompts, "prompt")}`, head, ...lines].join(
    "\n",
  );
}
