/** The options of `miro evaluate geneval`. */
import { z } from "zod";
import { STAGES } from "../evaluation/geneval/run/evaluation-run.js";
import { suiteNames, suiteOf } from "../evaluation/geneval/run/suites.js";
import { scoreFolderSchema } from "../evaluation/rewards/score-folder.js";
import { commaSeparated, declarationOf, field, firstAndLast, flag } from "../options.js";
import { COMPUTE_DTYPES } from "../pipeline/loading/device.js";
import { promptOptionsSchema } from "../pipeline/requests/prompt-file.js";
import { loadScorerSchema } from "../rewards/registry.js";
import type { Given } from "./add-options.js";
import { json } from "./common-options.js";
import { modelSchema } from "./model-options.js";

const path = z.string().min(1).optional();
/** The options of `generate` that hold for all pictures. */
export const settingsSchema = promptOptionsSchema.omit({ imagesPerPrompt: true });

export const genevalSchema = z.strictObject({
  ...modelSchema.shape,
  checkpoint: field(path, {
    expected: "the folder of a training",
    help: "the model of a training, instead of --model: what it has exported, else its newest checkpoint",
    flag: "--checkpoint <run>",
  }),
  images: field(path, {
    expected: "a folder",
    help: "judge the pictures of a folder instead of drawing some",
    flag: "--images <dir>",
  }),
  prompts: field(z.string().default("geneval"), {
    expected: () => `one of ${suiteNames().join(", ")}`,
    help: () =>
      `what is asked for: ${suiteNames()
        .map((name) => `${name} (${suiteOf(name).summary})`)
        .join("; ")}`,
    flag: "--prompts <name>",
  }),
  metadataFile: field(path, {
    expected: "a file",
    help: "other prompts, in the form of GenEval's evaluation_metadata.jsonl",
    flag: "--metadata-file <file.jsonl>",
    otherwise: "those of --prompts",
  }),
  longPrompts: field(path, {
    expected: "a file",
    help: "longer texts for GenEval's prompts, such as upstream's evaluation_metadata_long.jsonl",
    flag: "--long-prompts <file.jsonl>",
  }),
  outdir: field(path, {
    expected: "a folder",
    help: "folder of the pictures and of everything that is found out",
    flag: "--outdir <dir>",
    writes: "folder",
    otherwise: "./geneval/MODEL, RUN/geneval_images, or the folder of --images",
  }),
  outfile: field(path, {
    expected: "a file",
    help: "verdicts, one picture a line",
    flag: "--outfile <file.jsonl>",
    writes: "file",
    otherwise: "results.jsonl in --outdir",
  }),
  samples: field(z.int().min(1).max(1000).optional(), {
    expected: "an integer from 1 to 1000",
    help: "pictures of each prompt",
    flag: "--n-samples <n>",
    otherwise: "4, of emoji 1",
  }),
  preset: field(z.enum(["published-68", "published-75"]).optional(), {
    expected: "published-68 or published-75",
    help: "settings of the published scores (below); other flags override them",
    flag: "--preset <name>",
  }),
  ...settingsSchema.shape,
  cfg: field(z.number().optional(), {
    expected: "a finite number",
    help: "the same as --guidance",
    flag: "--cfg <w>",
  }),
  batched: flag(
    "compute the pictures of a batch together: faster on a GPU, but the last bits then depend on the batch",
    "--batched",
  ),
  batchSize: field(z.int().min(1).max(4096).default(4), {
    expected: "an integer of at least 1",
    help: "with --batched: pictures computed together",
    flag: "--batch-size <n>",
  }),
  seed: field(z.int().min(0).default(42), {
    expected: "an integer of at least 0",
    help: "seed; the noise of a picture follows from it, the prompt and the picture's number alone",
    flag: "--seed <n>",
  }),
  tasks: field(z.array(z.string().min(1)).min(1).optional(), {
    expected: "tags of prompts, with commas between them",
    help: "prompts of these tasks only, such as counting,position",
    flag: "--tasks <list>",
    otherwise: "all",
    parse: commaSeparated,
  }),
  promptRange: field(z.tuple([z.int().min(0), z.int().min(0)]).optional(), {
    expected: "FIRST-LAST with 0 <= FIRST <= LAST",
    help: "prompts of these places only, counted from 0, the last included",
    flag: "--prompt-range <first-last>",
    otherwise: "all",
    parse: toRange,
  }),
  only: field(z.enum(STAGES).optional(), {
    expected: `one of ${STAGES.join(", ")}`,
    help: "one step alone",
    flag: "--only <step>",
    otherwise: "all",
  }),
  detector: field(path, {
    expected: "a file, a folder or a repository",
    help: "weights of Mask2Former with Swin-S (below)",
    flag: "--detector <file|dir>",
  }),
  detectorDtype: field(z.enum(COMPUTE_DTYPES).default("float32"), {
    expected: `one of ${COMPUTE_DTYPES.join(", ")}`,
    help: "what the detector's backbone computes in; verdicts turn on small differences of scores",
    flag: "--detector-dtype <dtype>",
  }),
  resizeU8: flag(
    "round pictures to whole grey levels before the detector sees them, as the first GenEval did",
    "--resize-u8",
  ),
  clip: field(path, {
    expected: "a folder or a repository",
    help: "OpenAI's CLIP ViT-L/14, which tells colours",
    flag: "--clip <dir>",
    otherwise: "openai/clip-vit-large-patch14",
  }),
  clipDtype: field(z.enum(COMPUTE_DTYPES).default("auto"), {
    expected: `one of ${COMPUTE_DTYPES.join(", ")}`,
    help: "what that CLIP computes in",
    flag: "--clip-dtype <dtype>",
  }),
  options: field(z.record(z.string(), z.union([z.number(), z.string()])).default({}), {
    expected: "key=value",
    help:
      "constant of the rules: threshold, counting_threshold, max_objects, max_overlap, position_threshold, " +
      "bgcolor, crop; repeatable",
    flag: "--options <key=value>",
    otherwise: "GenEval's",
  }),
  failures: field(z.int().min(0).max(500).default(36), {
    expected: "an integer from 0 to 500",
    help: "pictures on the sheet of failures",
    flag: "--failures <n>",
  }),
  sweep: field(z.string().min(1).optional(), {
    expected: "the key of a reward, or KEY=VALUES",
    help: "evaluate at several targets of a reward, each in a folder of its own: KEY (0 to 1 in steps of 0.125) or KEY=0,0.5,1",
    flag: "--sweep <reward>",
  }),
  scorers: field(scoreFolderSchema.shape.scorers, {
    ...declarationOf(scoreFolderSchema.shape.scorers),
    help: "with --sweep: score the pictures too, as miro evaluate rewards does; separated by commas",
    otherwise: "none",
  }),
  weights: loadScorerSchema.shape.weights,
  overwrite: flag("replace pictures of other settings", "--overwrite"),
  dryRun: flag("say what would be done, and how many hours that takes", "--dry-run"),
  judge: field(path, {
    expected: "a file",
    help: "judge the detections of a JSON file, without pictures",
    flag: "--judge <file.json>",
  }),
  json,
});

/** The checked options. */
export type GenevalOptions = z.output<typeof genevalSchema>;

/** Those that were given. */
export type GivenGeneval = Given<typeof genevalSchema>;

/** `3-17` */
function toRange(text: string): [number, number] | undefined {
  const range = firstAndLast(text);
  return range && range[0] <= range[1] ? range : undefined;
}
