/** `miro preprocess`: prepares training data. Parses, calls {@link preprocess}, prints. */
import { counted } from "../numbers.js";
import "./extensions.js";
import { z } from "zod";
import type { PreprocessOptions, PreprocessProgress } from "../data/preprocess/options.js";
import { preprocessSchema } from "../data/preprocess/options.js";
import { type PreprocessResult, preprocess } from "../data/preprocess/preprocess.js";
import { MiroError } from "../errors.js";
import { scorerSpecs } from "../rewards/registry.js";
import { loadScorerModules, scorerModules } from "../rewards/scorer-modules.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { withFlags } from "./flag-names.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress, type ProgressDetail, tellerOf } from "./progress.js";

const EXAMPLES = `
Scorers that exist (those of published data sets run with --weights or --scorers published; see docs/data.md):
${scorerSpecs()
  .map(({ key, stage, description }) => `  ${key.padEnd(19)} (${stage}) ${description}`)
  .join("\n")}
${scorerSpecs().some(({ stage }) => stage === "vqa") ? "" : "  None is of stage vqa: that stage ends with an error, and --stage all leaves it out.\n"}
Examples:
  miro preprocess --stage all --src raw --dest shards --model miro-emoji --no-vae-512
  miro preprocess --stage rewards --src raw --synthetic-captions captions.tsv
  miro preprocess --stage rewards --src raw --scorers published --device cuda
  miro preprocess --stage rewards --src raw --weights hpsv2_score=models/HPSv2 --weights pick_a_score_score=models/PickScore_v1
  miro preprocess --stage rewards --src raw --weights aesthetic_score=models/aesthetic --weights clip_openai=models/clip
  miro preprocess --stage vae --src raw --dest shards --device cuda --shard-range 0-99
  miro preprocess --stage vae --src captions.parquet --dest shards --missing-scores allow
  miro preprocess --stage all --src raw --dest shards --shard-id $SLURM_ARRAY_TASK_ID
  miro preprocess --stage all --src raw --dest shards --shard-range $((SLURM_ARRAY_TASK_ID * 10))-$((SLURM_ARRAY_TASK_ID * 10 + 9))

The last two are what a task of a SLURM array runs: one shard each (sbatch --array=0-99), or ten.
Finished shards are skipped, interrupted ones made again; Ctrl-C stops between two samples. What is left out is listed in
*.skipped.jsonl beside the output. Exit code 1 when a shard failed; the others are complete.
`;

const schema = z.strictObject({ ...preprocessSchema.shape, scorerModules, json });

export const register: Register = (command, context) => {
  declare(command, schema, (options) => run(options, context)).addHelpText("after", helpText(EXAMPLES));
};

async function run({ json, scorerModules, ...options }: z.output<typeof schema>, context: CliContext): Promise<void> {
  await loadScorerModules(scorerModules);
  const progress = await Progress.for(context);
  let result: PreprocessResult;
  const tell = tellerOf(context, progress);
  let at: PreprocessProgress | null = null;
  const left = () =>
    at === null
      ? SAME_COMMAND
      : `stage ${at.stage}, in shard ${at.shard} (${at.shardIndex + 1} of ${at.shardCount}); ${SAME_COMMAND}, with this shard from its beginning`;
  try {
    const work: PreprocessOptions = {
      ...options,
      signal: context.signal,
      onProgress: (now) => {
        at = now;
        const { stage, shardIndex, shardCount, done, total } = now;
        progress.update(stage, shardIndex + done / total, shardCount, detailOf(now));
      },
      onMessage: (text, wording) => {
        tell(wording ? withFlags(wording, {}) : text);
      },
    };
    result = await untilStopped(context, left, () => preprocess(work));
  } finally {
    progress.stop();
  }
  const shards = result.shards.map(({ wording, ...report }) =>
    wording === undefined ? report : { ...report, message: withFlags(wording, {}) },
  );
  if (json) context.stdout(`${JSON.stringify({ ...result, shards })}\n`);
  else for (const line of summary({ ...result, shards })) context.stdout(`${line}\n`);
  // A shard may fail in several stages.
  const [all, failed] = [shards, shards.filter(({ status }) => status === "failed")].map(
    (reports) => new Set(reports.map(({ shard }) => shard)).size,
  );
  if (failed! > 0)
    throw new MiroError(`${failed} of ${counted(all!, "shard")} failed; the same command tries them again`);
}

function detailOf({
  shard,
  shardIndex,
  shardCount,
  done,
  total,
  rate,
  totalSeconds,
}: PreprocessProgress): ProgressDetail {
  return {
    count: `shard ${shardIndex + 1}/${shardCount} (${shard})`,
    detail: `${done}/${counted(total, "sample")}, ${rate.toFixed(1)}/s`,
    secondsLeft: totalSeconds,
  };
}

function summary({ shards, counts, seconds }: PreprocessResult): string[] {
  const lines = shards.map(({ stage, shard, status, seen, written, skipped, message }) => {
    const reasons = Object.entries(skipped).map(([reason, count]) => `${count} ${reason}`);
    const left = reasons.length > 0 ? `, left out: ${reasons.join(", ")}` : "";
    return `${stage.padEnd(7)} ${shard}: ${message ?? status}; ${written} of ${counted(seen, "sample")}${left}`;
  });
  const total = Object.entries(counts).filter(([, count]) => count > 0);
  return [...lines, `${total.map(([status, count]) => `${count} ${status}`).join(", ")} in ${seconds.toFixed(1)} s`];
}
