/**
 * PartiPrompts, from prompts to figures: pictures of every prompt are drawn into a folder of GenEval's form, scored as
 * `scoreFolder` does, and summarised over all prompts, by category and by challenge. Pictures and scores that are there
 * are not made again.
 *
 *   00000/metadata.jsonl          {"prompt", "category", "challenge", "note"} of a prompt
 *   00000/samples/0000.png        its pictures
 *   rewards.jsonl, rewards_summary.json, rewards_scores.jsonl   as of score-folder.ts
 *   parti.json                    the figures
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, InvalidInputError, invalid } from "../../errors.js";
import { sha256 } from "../../files/sha256.js";
import { readBytes, readText, writeFileAtomic } from "../../files/whole-files.js";
import { groupBy } from "../../group-by.js";
import { message, option } from "../../message.js";
import type { MiroPipeline } from "../../pipeline/pipeline.js";
import { DrawRequest } from "../../pipeline/requests/draw-request.js";
import { PictureFiles } from "../../pipeline/requests/picture-files.js";
import { checkOptions, type PlannedPicture } from "../../pipeline/requests/plan-pictures.js";
import type { PromptOptions } from "../../pipeline/requests/prompt-file.js";
import { checkScorerFor } from "../../rewards/registry.js";
import { folderName } from "../geneval/run/image-folder.js";
import { occurrences, pictureSeed } from "../picture-seed.js";
import { rewardColumns, weightsByKey } from "../rewards/names.js";
import { type FolderRewards, type ScoreFolderOptions, scoreFolder, tryScorers } from "../rewards/score-folder.js";
import { type RewardFigures, type RewardRow, rewardFigures } from "../rewards/summary.js";
import { SharedWork, scoreShared } from "../shared-work.js";
import { type PartiPrompt, readPartiPrompts } from "./prompts.js";

/** Options of {@link evaluateParti}. */
export interface PartiOptions {
  /** Table of the prompts. */
  prompts: string;
  /** Folder of everything that is made. */
  outdir: string;
  /** Pictures of each prompt. */
  samples: number;
  seed: number;
  /** The first and the last prompt, both included, from 0; default: all. */
  promptRange?: readonly [number, number] | undefined;
  /** Of the sampler, rewards and guidance. */
  options?: PromptOptions | undefined;
  /** Pictures that are computed together; absent: each by itself, so that they do not depend on one another. */
  batchSize?: number | undefined;
  /** Draw pictures of other settings again. */
  overwrite?: boolean | undefined;
  /** Which model draws, for the record. */
  model: Readonly<Record<string, unknown>>;
  /** Loads it; it is disposed of before the scorers are loaded. */
  load(): Promise<MiroPipeline>;
  scoring?: ScoreFolderOptions | undefined;
  signal?: AbortSignal | undefined;
  onMessage?: ((message: string) => void) | undefined;
  /** Called with the number of pictures drawn and in all. */
  onPicture?: ((done: number, total: number) => void) | undefined;
}

/** The contents of `parti.json`. */
export interface PartiSummary {
  schema: "miro-parti-1";
  /** Of the table of prompts. */
  prompts_sha256: string;
  prompt_range: [number, number];
  n_samples: number;
  seed: number;
  model: Readonly<Record<string, unknown>>;
  options: PromptOptions;
  scorers: FolderRewards["summary"]["scorers"];
  all: RewardFigures;
  categories: Record<string, RewardFigures>;
  challenges: Record<string, RewardFigures>;
}

/** What {@link evaluateParti} finds. */
export interface PartiResult {
  summary: PartiSummary;
  rewards: FolderRewards;
  /** Pictures that were drawn, and those that were there. */
  drawn: number;
  skipped: number;
}

/**
 * Draws, scores and summarises.
 * @throws InvalidInputError for a wrong table, range or option, and when the folder holds pictures of other prompts or
 *   settings
 */
export async function evaluateParti(given: PartiOptions): Promise<PartiResult> {
  const { prompts: table, outdir, samples, seed, options = {}, scoring, signal, onMessage, overwrite = false } = given;
  const prompts = readPartiPrompts(table);
  const [first, last] = given.promptRange ?? [0, prompts.length - 1];
  if (first > last || last >= prompts.length)
    throw invalid("promptRange", `FIRST-LAST with 0 <= FIRST <= LAST < ${prompts.length}`, `${first}-${last}`);
  const columns = rewardColumns(scoring?.scorers, weightsByKey(scoring?.weights ?? {}));
  const pictures = planPictures(prompts, [first, last], given);
  const metadata = new Map<string, string>();
  for (let p = first; p <= last; p++) addMetadata(metadata, join(outdir, folderName(p)), prompts[p]!, overwrite);
  const keys = columns.map(({ key }) => key);
  if (pictures.some(({ name }) => !existsSync(join(outdir, `${name}.png`)))) await tryScorers({ ...scoring, signal });
  const { drawn, skipped } = await draw(pictures, metadata, keys, { first, given });
  // Processes that share the pictures come here together; all but the first find the scores there.
  const score = (folder: string) => scoreFolder(folder, { ...scoring, signal });
  const [rewards] = (await scoreShared([outdir], score, { output: outdir, signal, onMessage })) as [FolderRewards];
  // The folder may hold more: other prompts, and more pictures of these.
  const asked = new Set(pictures.map(({ name }) => `${name}.png`));
  const rows = rewards.rows.filter(({ filename }) => asked.has(filename));
  const summary: PartiSummary = {
    schema: "miro-parti-1",
    prompts_sha256: sha256(readBytes(table)),
    prompt_range: [first, last],
    n_samples: samples,
    seed,
    model: given.model,
    options,
    scorers: rewards.summary.scorers,
    all: rewardFigures(rows, rewards.columns),
    categories: figuresBy("category", rows, prompts, rewards.columns),
    challenges: figuresBy("challenge", rows, prompts, rewards.columns),
  };
  writeFileAtomic(join(outdir, "parti.json"), `${JSON.stringify(summary, null, 2)}\n`, { overwrite: true });
  return { summary, rewards, drawn, skipped };
}

/**
 * Draws what is not there, together with other processes on the same folder.
 * @param metadata texts of files by their paths, which are written once it is known that the checkpoint can draw
 */
async function draw(
  pictures: readonly PlannedPicture[],
  metadata: ReadonlyMap<string, string>,
  scorerKeys: readonly string[],
  { first, given }: { first: number; given: PartiOptions },
): Promise<{ drawn: number; skipped: number }> {
  const { outdir, overwrite = false, signal, onMessage } = given;
  const waiting = { signal, onWait: onMessage };
  const pipe = await given.load();
  try {
    for (const key of scorerKeys) checkScorerFor(pipe, key, "scorers");
    await pipe.plan(pictures[0]!.prompt, pictures[0]!.options);
    for (const [path, text] of metadata) writeFileAtomic(path, text, { overwrite: true });
    const warnings = new Set<string>();
    let [done, drawn] = [0, 0];
    const drawAll = async (some: readonly PlannedPicture[], onPicture?: () => void) => {
      const files = new PictureFiles({ output: outdir, resume: true, overwrite });
      const request = new DrawRequest({ pictures: some.map((one, index) => ({ ...one, index })), files });
      try {
        await request.claim(waiting);
        const report = await request.draw(pipe, { ...waiting, onPicture });
        for (const warning of report.warnings) warnings.add(warning);
        drawn += report.drawn;
      } finally {
        request.release();
      }
    };
    using work = new SharedWork(outdir, waiting);
    const parts = partsOf(pictures, first, given);
    for (;;) {
      signal?.throwIfAborted();
      const [next] = await work.take("draw", [...parts.keys()], () => false, 1);
      if (next === undefined) break;
      await drawAll(parts.get(next)!, () => given.onPicture?.(++done, pictures.length));
      parts.delete(next);
    }
    // Other processes draw these: they are waited for, and drawn here where they were stopped.
    if (parts.size > 0) await drawAll([...parts.values()].flat());
    for (const warning of warnings) onMessage?.(`warning: ${warning}`);
    return { drawn, skipped: pictures.length - drawn };
  } finally {
    await pipe.dispose();
  }
}

/**
 * Adds the text of a prompt's file where it is not there.
 * @throws InvalidInputError where the folder is of another prompt, unless that is overwritten
 */
function addMetadata(texts: Map<string, string>, folder: string, prompt: PartiPrompt, overwrite: boolean): void {
  const path = join(folder, "metadata.jsonl");
  const record = JSON.stringify(prompt);
  if (existsSync(path)) {
    const there = readText(path).trimEnd();
    if (there === record) return;
    if (!overwrite) {
      const remedy = message`choose another ${option("outdir")}, or ${option("overwrite", true)} to replace it`;
      throw new InvalidInputError(message`${path}: is of another prompt than ${describe(prompt.prompt)}; ${remedy}`);
    }
  }
  texts.set(path, record);
}

/** Means of the pictures of each category, or of each challenge, by its name. */
function figuresBy(
  field: "category" | "challenge",
  rows: readonly RewardRow[],
  prompts: readonly PartiPrompt[],
  columns: readonly string[],
): Record<string, RewardFigures> {
  const nameOf = ({ filename }: RewardRow) => prompts[Number.parseInt(filename, 10)]![field];
  const named = rows.filter((row) => nameOf(row) !== undefined);
  const groups = [...groupBy(named, (row) => nameOf(row)!)].sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(groups.map(([name, list]) => [name, rewardFigures(list, columns)]));
}

/** Pictures that a process takes at a time: a batch, and whole prompts. */
const PART_PICTURES = 32;

/** Parts by their first prompt. */
function partsOf(pictures: readonly PlannedPicture[], first: number, { samples, batchSize = 1 }: PartiOptions) {
  const prompts = Math.ceil(Math.max(PART_PICTURES, batchSize) / samples);
  const parts = new Map<number, PlannedPicture[]>();
  for (let at = 0; at * samples < pictures.length; at += prompts)
    parts.set(first + at, pictures.slice(at * samples, (at + prompts) * samples));
  return parts;
}

function planPictures(
  prompts: readonly PartiPrompt[],
  [first, last]: readonly [number, number],
  { samples, seed, options, batchSize }: PartiOptions,
): PlannedPicture[] {
  const before = occurrences(prompts.map(({ prompt }) => prompt));
  const pictures: PlannedPicture[] = [];
  for (let p = first; p <= last; p++) {
    const { prompt } = prompts[p]!;
    for (let sample = 0; sample < samples; sample++) {
      const own = pictureSeed(seed, prompt, before[p]!, sample);
      pictures.push({
        index: pictures.length,
        prompt,
        seed: own,
        options: checkOptions({
          ...options,
          seed: own,
          ...(batchSize === undefined ? { deterministic: true } : { batchSize }),
        }),
        name: `${folderName(p)}/samples/${String(sample).padStart(4, "0")}`,
      });
    }
  }
  return pictures;
}
