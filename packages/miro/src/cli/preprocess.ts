/** `miro preprocess`: prepares training data. Parses, calls {@link preprocess}, prints. */
import "./extensions.js";
import { type PreprocessProgress, type PreprocessResult, preprocess } from "../data/preprocess/index.js";
import { OPTION_NAMES, type PreprocessOptions, preprocessSchema } from "../data/preprocess/options.js";
import { invalid, MiroError } from "../errors.js";
import { help, parseOptions } from "../options.js";
import { scorerSpecs } from "../rewards/index.js";
import { toNumber } from "./arguments.js";
import type { CliContext, Register } from "./context.js";
import { nameFlags, withFlags } from "./flag-names.js";
import { Progress } from "./progress.js";

const EXAMPLES = `
Scorers that exist:
${scorerSpecs()
  .map(({ key, stage, description }) => `  ${key.padEnd(14)} (${stage}) ${description}`)
  .join("\n")}
${scorerSpecs().some(({ stage }) => stage === "vqa") ? "" : "  None is of stage vqa: that stage ends with an error, and --stage all leaves it out.\n"}
Examples:
  miro preprocess --stage all --src raw --dest shards --model models/miro-emoji --no-vae-512
  miro preprocess --stage rewards --src raw --synthetic-captions captions.tsv
  miro preprocess --stage vae --src raw --dest shards --device cuda --shard-range 0-99
  miro preprocess --stage vae --src captions.parquet --dest shards --missing-scores allow
  miro preprocess --stage all --src raw --dest shards --shard-id $SLURM_ARRAY_TASK_ID
  miro preprocess --stage all --src raw --dest shards --shard-range $((SLURM_ARRAY_TASK_ID * 10))-$((SLURM_ARRAY_TASK_ID * 10 + 9))

The last two are what a task of a SLURM array runs: one shard each (sbatch --array=0-99), or ten.
Finished shards are skipped, interrupted ones made again; Ctrl-C stops between two samples. What is left out is listed in
*.skipped.jsonl beside the output. Exit code 1 when a shard failed; the others are complete.
`;

interface Flags extends Record<string, unknown> {
  json?: boolean;
}

export const register: Register = (command, context) => {
  nameFlags(command, OPTION_NAMES);
  const h = (name: string) => help(preprocessSchema, name);
  const many = (value: string, earlier: string[] = []) => [...earlier, value];
  command
    .requiredOption("--stage <stage>", h("stage"))
    .requiredOption("--src <path>", h("src"))
    .option("--csv-dir <dir>", h("csvDir"))
    .option("--dest <dir>", h("dest"))
    .option("--shard-id <n>", h("shardId"), toPosition("--shard-id"))
    .option("--shard-ids <list>", h("shardIds"), toPositions)
    .option("--shard-range <first-last>", h("shardRange"), toRange)
    .option("--shard <name>", h("shards"), many)
    .option("--shard-size <n>", h("shardSize"), toNumber("--shard-size"))
    .option("--image-column <name>", h("imageColumn"))
    .option("--caption-column <name>", h("captionColumn"))
    .option("--synthetic-captions <file>", h("syntheticCaptions"))
    .option("--no-synthetic", h("synthetic"))
    .option("--synthetic-text <which>", h("syntheticText"))
    .option("--scorers <list>", h("scorers"), toList)
    .option("--no-vae-256", h("vae256"))
    .option("--no-vae-512", h("vae512"))
    .option("--no-text-embeddings", h("textEmbeddings"))
    .option("--model <path>", h("model"))
    .option("--text-encoder <path>", h("textEncoder"))
    .option("--vae <path>", h("vae"))
    .option("--text-max-length <n>", h("textMaxLength"), toNumber("--text-max-length"))
    .option("--embeddings-npy-name <name>", h("embeddingsName"))
    .option("--missing-scores <what>", h("missingScores"))
    .option("--batch-size <n>", h("batchSize"), toNumber("--batch-size"))
    .option("--device <name>", h("device"))
    .option("--dtype <type>", h("dtype"))
    .option("--threads <n>", h("threads"), toNumber("--threads"))
    .option("--workers <n>", h("workers"), toNumber("--workers"))
    .option("--max-pixels <n>", h("maxPixels"), toNumber("--max-pixels"))
    .option("--exif-orientation", h("exifOrientation"))
    .option("--strict", h("strict"))
    .option("--skip-broken-shards", h("skipBrokenShards"))
    .option("--overwrite", h("overwrite"))
    .option("--cache-dir <dir>", h("cacheDir"))
    .option("--json", "print one JSON object on stdout")
    .addHelpText("after", EXAMPLES)
    .action(async (flags: Flags) => {
      await run(flags, context);
    });
};

/** What commander calls the flags whose names differ from the options'. */
const FIELDS: Record<string, string> = { shard: "shards", embeddingsNpyName: "embeddingsName" };

async function run({ json, ...flags }: Flags, context: CliContext): Promise<void> {
  const given = Object.fromEntries(
    Object.entries(flags).map(([name, value]) => [FIELDS[name] ?? name, value]),
  ) as PreprocessOptions;
  parseOptions(preprocessSchema, given, OPTION_NAMES);
  const progress = await Progress.for(context);
  let result: PreprocessResult;
  try {
    result = await preprocess({
      ...given,
      signal: context.signal,
      onProgress: (now) => progress.update(label(now), now.done, now.total),
      onMessage: (text, wording) => {
        progress.stop();
        context.stderr(`${wording ? withFlags(wording, {}) : text}\n`);
      },
    });
  } finally {
    progress.stop();
  }
  const shards = result.shards.map(({ wording, ...report }) =>
    wording === undefined ? report : { ...report, message: withFlags(wording, {}) },
  );
  if (json) context.stdout(`${JSON.stringify({ ...result, shards })}\n`);
  else for (const line of summary({ ...result, shards })) context.stdout(`${line}\n`);
  const { failed, ...others } = result.counts;
  if (failed > 0) {
    const all = failed + Object.values(others).reduce((sum, count) => sum + count, 0);
    throw new MiroError(`${failed} of ${all} shards failed; the same command tries them again`);
  }
}

function label({ stage, shard, shardIndex, shardCount, rate, totalSeconds }: PreprocessProgress): string {
  return `${stage} ${shard} (${shardIndex + 1}/${shardCount}) ${rate.toFixed(1)}/s, ${duration(totalSeconds)} in all`;
}

function duration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`
    : `${(minutes / 60).toFixed(1)} h`;
}

function summary({ shards, counts, seconds }: PreprocessResult): string[] {
  const lines = shards.map(({ stage, shard, status, seen, written, skipped, message }) => {
    const reasons = Object.entries(skipped).map(([reason, count]) => `${count} ${reason}`);
    const left = reasons.length > 0 ? `, left out: ${reasons.join(", ")}` : "";
    return `${stage.padEnd(7)} ${shard}: ${message ?? status}; ${written} of ${seen} samples${left}`;
  });
  const total = Object.entries(counts).filter(([, count]) => count > 0);
  return [...lines, `${total.map(([status, count]) => `${count} ${status}`).join(", ")} in ${seconds.toFixed(1)} s`];
}

/** Positions may have leading zeros, as file names have. */
function toPosition(option: string): (text: string) => number {
  return (text) => {
    if (!/^\s*\d+\s*$/.test(text)) throw invalid(option, "a position from 0 on", text);
    return Number(text);
  };
}

function toPositions(text: string): number[] {
  return text.split(",").map(toPosition("--shard-ids"));
}

function toRange(text: string): [number, number] {
  const match = /^\s*(\d+)\s*-\s*(\d+)\s*$/.exec(text);
  if (!match) throw invalid("--shard-range", "FIRST-LAST with 0 <= FIRST <= LAST", text);
  return [Number(match[1]), Number(match[2])];
}

function toList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}
