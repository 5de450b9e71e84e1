/** `miro evaluate parti`: rewards of a model on PartiPrompts. Parses, calls {@link evaluateParti}, prints. */
import { counted } from "../numbers.js";
import "./extensions.js";
import { z } from "zod";
import { evaluateParti, type PartiOptions, type PartiResult } from "../evaluation/parti/evaluate.js";
import { scoreFolderSchema } from "../evaluation/rewards/score-folder.js";
import { field, firstAndLast, flag } from "../options.js";
import { generateSchema } from "../pipeline/generate-options.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { pinnedModel } from "../pipeline/loading/run-model.js";
import { promptOptionsSchema } from "../pipeline/requests/prompt-file.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { declare, type Given } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { figureTable, reportTroubles, tellers } from "./evaluate-rewards.js";
import { nameFlags } from "./flag-names.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { loadPipeline, modelSchema, optionsOf } from "./model-options.js";
import { Progress } from "./progress.js";

const EXAMPLES = `
The table is Google's PartiPrompts.tsv (https://github.com/google-research/parti): tab-separated, with the columns Prompt,
Category, Challenge and Note. --outdir gets a folder of pictures for each prompt, their scores (see: miro evaluate rewards
--help) and parti.json with the figures of all prompts, of each category and of each challenge; intervals are 95 %, over
prompts. The noise of a picture follows from the seed, the prompt and its number, so that a range of prompts gives the same
pictures as the whole. The same command goes on where it was interrupted; several of them share the work.

Examples:
  miro evaluate parti PartiPrompts.tsv --outdir parti --scorers sharpness,colorfulness
  miro evaluate parti PartiPrompts.tsv --outdir parti --model nicolas-dufour/miro --device cuda --prompt-range 0-199
  miro evaluate parti PartiPrompts.tsv --outdir parti --reward aesthetic_score=0.625 --weights aesthetic=models/aesthetic
`;

const settingsSchema = promptOptionsSchema.omit({ imagesPerPrompt: true });
const { outfile: _, summary: __, absolute: ___, ...scoring } = scoreFolderSchema.shape;
const scoringSchema = z.strictObject(scoring);

const schema = z.strictObject({
  prompts: field(z.string().min(1), {
    expected: "a file",
    help: "table of the prompts (below)",
    flag: "<prompts.tsv>",
  }),
  outdir: field(z.string().min(1).default("parti"), {
    expected: "a folder",
    help: "folder of pictures, scores and figures",
    flag: "--outdir <dir>",
    writes: "folder",
  }),
  samples: field(z.int().min(1).max(1000).default(4), {
    expected: "an integer from 1 to 1000",
    help: "pictures of each prompt",
    flag: "--n-samples <n>",
  }),
  promptRange: field(z.tuple([z.int().min(0), z.int().min(0)]).optional(), {
    expected: "FIRST-LAST with 0 <= FIRST <= LAST",
    help: "prompts by their place from 0, both included",
    flag: "--prompt-range <first-last>",
    parse: firstAndLast,
    otherwise: "all",
  }),
  ...modelSchema.shape,
  ...settingsSchema.shape,
  seed: field(z.int().min(0).default(42), {
    expected: "an integer of at least 0",
    help: "seed of all noise",
    flag: "--seed <n>",
  }),
  batchSize: generateSchema.shape.batchSize,
  ...scoringSchema.shape,
  scorerModules,
  overwrite: flag("draw pictures of other settings again", "--overwrite"),
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options, given) => parti(options, given, context)).addHelpText("after", helpText(EXAMPLES));
  // What draws calls the folder of its pictures so.
  nameFlags(command, { output: "--outdir" });
};

async function parti(
  options: z.output<typeof schema>,
  given: Given<typeof schema>,
  context: CliContext,
): Promise<void> {
  await loadScorerModules(options.scorerModules);
  const { prompts, outdir, samples, seed, promptRange, overwrite, variant } = options;
  const progress = await Progress.for(context);
  const { onMessage, ...tell } = tellers(context, progress, "2 of 2: scoring");
  const model = pinnedModel(modelOrBundled(options.model), onMessage);
  let result: PartiResult;
  let drawn = "";
  const work: PartiOptions = {
    prompts,
    outdir,
    samples,
    seed,
    promptRange,
    options: optionsOf(settingsSchema, given),
    batchSize: given.batchSize,
    overwrite,
    model: { model, ...(variant !== undefined && { variant }) },
    load: () => loadPipeline(model, optionsOf(loadSchema, given), context, progress),
    scoring: { ...optionsOf(scoringSchema, options), ...tell, onMessage },
    signal: context.signal,
    onMessage,
    onPicture: (done, total) => {
      drawn = `${done} of ${counted(total, "picture")} drawn; `;
      progress.update("1 of 2: drawing", done, total);
    },
  };
  try {
    result = await untilStopped(
      context,
      () => `${drawn}what is scored is kept; ${SAME_COMMAND}`,
      () => evaluateParti(work),
    );
  } finally {
    progress.stop();
  }
  const { summary, rewards, skipped } = result;
  if (options.json) context.stdout(`${JSON.stringify(summary)}\n`);
  else {
    const parts = [["all", summary.all] as const, ...Object.entries(summary.categories)];
    const tables = parts.map(([name, figures]) => `${name}: ${figureTable(figures, rewards.columns)}`);
    context.stdout(`${tables.join("\n\n")}\n`);
  }
  context.note(`${counted(result.drawn, "picture")} drawn, ${skipped} were there\n`);
  reportTroubles(rewards, context);
}
