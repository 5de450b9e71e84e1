/** `miro score`: scores of picture files. Parses, calls {@link scoreFilesWithReport}, prints. */
import "./extensions.js";
import { existsSync } from "node:fs";
import { setNumThreads } from "@miro-t2i/torch";
import { z } from "zod";
import { MiroError } from "../errors.js";
import { formatSize } from "../files/sizes.js";
import { counted, plural } from "../numbers.js";
import { field } from "../options.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { listed } from "../printable.js";
import { scorerBytes } from "../rewards/memory.js";
import { scorerSpec, scorerSpecs } from "../rewards/registry.js";
import {
  type ScoreFilesOptions,
  type ScoreReport,
  scoreFilesSchema,
  scoreFilesWithReport,
} from "../rewards/score-files.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress, tellerOf } from "./progress.js";

/** Pictures that an error names. */
const NAMED = 10;

const EXAMPLES = `
Scorers:
${scorerSpecs()
  .map(({ key, description }) => `  ${key.padEnd(19)} ${description}`)
  .join("\n")}

Memory for the weights and a batch, in float32 and in bfloat16 or float16 (--dtype); \`miro models\` says where they come from:
${scorerSpecs()
  .filter(({ memory }) => memory)
  .map((spec) => {
    const [whole, half] = (["float32", "bfloat16"] as const).map((dtype) => formatSize(scorerBytes([spec], { dtype })));
    const license = spec.license?.nonCommercial ? `, not for commercial use (${spec.license.name})` : "";
    return `  ${spec.key.padEnd(19)} ${whole} or ${half}${spec.memory?.streams ? ", or less, read from the disk layer by layer" : ""}${license}`;
  })
  .join("\n")}

Examples:
  miro score pictures/*.png                             how well each picture shows the prompt that is stored in it
  miro score photo.jpg --prompt "a red apple"
  miro score book --by emoji_clip_score,sharpness --json
  miro score pictures/*.png --by pick_a_score_score --weights pick_a_score_score=models/PickScore_v1
  miro score --pairs pairs.jsonl --by clip_openai --output scores.csv
  miro score pictures/*.png --scorer-module brightness.mjs --by brightness     a scorer of your own (docs/rewards.md)
  miro score geneval --by image_reward_score,hpsv2_score --output geneval/scores.jsonl
  miro score photo.jpg --by aesthetic_score --weights aesthetic_score=models/aesthetic --weights clip_openai=models/clip

A folder stands for the pictures in it, or for those in NNNNN/samples with the prompt in NNNNN/metadata.jsonl beside it.
With --output the same command goes on where it ended, and adds what other scorers are asked for. Weights come from the
Hugging Face Hub where --weights names no folder. A picture that cannot be read is told, the others are scored; the exit
code is 1 then.
`;

const schema = z.strictObject({
  images: field(z.array(z.string().min(1)).default([]), {
    expected: "picture files or folders",
    help: "picture files (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF) and folders of them",
    flag: "[images...]",
  }),
  ...scoreFilesSchema.shape,
  scorerModules,
  threads: loadSchema.shape.threads,
  json,
});

export const register: Register = (command, context) => {
  declare(command, schema, (options) => score(options, context)).addHelpText("after", helpText(EXAMPLES));
};

async function score(
  { images: words, json, threads, scorerModules, ...options }: z.output<typeof schema>,
  context: CliContext,
) {
  await loadScorerModules(scorerModules);
  // With `--by one other` the second scorer comes among the pictures.
  const isScorer = (word: string) => scorerSpecs().some(({ key }) => key === word) && !existsSync(word);
  const images = words.filter((word) => !isScorer(word));
  const by = [...options.by.flatMap((list) => list.split(",")), ...words.filter(isScorer)];
  if (threads !== undefined) setNumThreads(threads);
  const progress = await Progress.for(context);
  let report: ScoreReport;
  let at = "";
  const left = () =>
    `${at}${options.output === undefined ? "--output FILE keeps scores, so that they are not computed again" : SAME_COMMAND}`;
  const work: ScoreFilesOptions = {
    ...options,
    by: [...new Set(by)],
    signal: context.signal,
    onProgress: (done, total) => {
      at = `${done} of ${counted(total, "picture")} scored; `;
      progress.update("scoring", done, total);
    },
    onDownload: (now) => progress.download(now),
    onMessage: tellerOf(context, progress),
  };
  try {
    report = await untilStopped(context, left, () => scoreFilesWithReport(images, work));
  } finally {
    progress.stop();
  }
  const means = meansOf(report);
  if (json) context.stdout(`${JSON.stringify(toJson(report, means))}\n`);
  else for (const line of lines(report, means, options.output)) context.stdout(`${line}\n`);
  for (const warning of warnings(report)) context.stderr(`warning: ${warning}\n`);
  if (report.unreadable > 0) throw unreadable(report);
}

/** Of the scores that are there; null where none is. */
function meansOf({ images }: ScoreReport): Record<string, number | null> {
  const keys = Object.keys(images[0]!.scores);
  return Object.fromEntries(
    keys.map((key) => {
      const values = images.map(({ scores }) => scores[key]!).filter((score) => score !== null);
      return [key, values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length];
    }),
  );
}

function toJson({ images, models, unreadable, notFinite, truncated, unturned }: ScoreReport, means: object) {
  const scorers = Object.entries(models).map(([key, { name, precision }]) => ({
    key,
    name,
    ...(precision && { precision }),
  }));
  const dtypes = Object.fromEntries(
    Object.entries(models).flatMap(([key, { dtype }]) => (dtype ? [[key, dtype]] : [])),
  );
  return { images, means, scorers, dtypes, unreadable, notFinite, truncated, unturned };
}

function lines({ images }: ScoreReport, means: Record<string, number | null>, output: string | undefined): string[] {
  const keys = Object.keys(means);
  const line = (scores: Record<string, number | null>, name: string) =>
    `${keys.map((key) => (scores[key]?.toFixed(4) ?? "-").padStart(Math.max(key.length, 7))).join("  ")}  ${name}`;
  return [
    keys.map((key) => key.padStart(7)).join("  "),
    ...(output === undefined ? images.map(({ path, scores }) => line(scores, path)) : []),
    ...(images.length > 1 || output !== undefined ? [line(means, "mean")] : []),
    ...(output === undefined ? [] : [`written: ${output} (${counted(images.length, "picture")})`]),
  ];
}

function warnings({ truncated, notFinite, unturned, images, sheets }: ScoreReport): string[] {
  const stored = Object.keys(images[0]!.scores).filter((key) => scorerSpec(key).pixels === "stored");
  return [
    ...(sheets.length > 0
      ? [`left out: ${counted(sheets.length, "sheet")} of several pictures: ${listed(sheets, 3)}`]
      : []),
    ...(unturned > 0
      ? [
          `${counted(unturned, "picture")} stored turned or mirrored (EXIF): ${stored.join(", ")} ${plural(stored.length, "sees", "see")} ${plural(unturned, "it", "them")} as stored, as in the published data sets`,
        ]
      : []),
    ...Object.entries(truncated).map(
      ([key, count]) => `${key}: reads only the beginning of ${counted(count, "prompt")}, longer than its model allows`,
    ),
    ...Object.entries(notFinite).map(
      ([key, count]) =>
        `${key}: ${count} of ${counted(images.length, "score")} ${plural(count, "is", "are")} not finite and left out of the mean`,
    ),
  ];
}

function unreadable({ images, unreadable }: ScoreReport): MiroError {
  const errors = images.flatMap(({ error }) => error ?? []);
  const more = errors.length > NAMED ? [`and ${errors.length - NAMED} more`] : [];
  return new MiroError(
    `${unreadable} of ${counted(images.length, "picture")} could not be scored: ${[...errors.slice(0, NAMED), ...more].join("; ")}`,
  );
}
