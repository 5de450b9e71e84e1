/**
 * Data preparation from raw samples to enriched tars: chooses shards, runs the stages over them, skips what is
 * finished.
 *
 * Beside each output lies a manifest (`<stem>.manifest.json`; for scores `<stem>_scores.<stage>.manifest.json`) and,
 * when samples were left out, a report (`….skipped.jsonl`). A shard is worked on under a lock. What a killed process
 * leaves is a temporary file and a manifest that says `writing`; the next run removes the one and does the shard again.
 */
import { existsSync, realpathSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { processors } from "@miro-t2i/torch/limits";
import { InvalidInputError, invalid, MiroError } from "../../errors.js";
import { FileLock, type LockOwner, whenKnown } from "../../files/file-lock.js";
import { sha256 } from "../../files/sha256.js";
import { readBytes } from "../../files/whole-files.js";
import { proveWritable } from "../../files/writable.js";
import { about, message, option } from "../../message.js";
import { parseOptions } from "../../options.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import type { LoadedScorer, ScorerSpec } from "../../rewards/scorer.js";
import { withThreads } from "../../with-threads.js";
import { problemText, ShardError } from "../shards/shard-error.js";
import { DecodePool } from "./decode-pool.js";
import { type LatentFolders, LatentModels, latentDType, locateModels, sidesOf } from "./latent-models.js";
import { latentShard, tarPath } from "./latent-stage.js";
import {
  beginManifest,
  completeManifest,
  differences,
  type Manifest,
  type Outcome,
  otherSource,
  type Plan,
  readManifest,
  standing,
  writeReport,
} from "./manifest.js";
import { type PreprocessOptions, preprocessSchema, type ResolvedOptions, type Stage, selectShards } from "./options.js";
import {
  refuseNothing,
  reportCompressed,
  reportEarlier,
  reportUnturned,
  reportWithoutSynthetic,
  say,
} from "./remarks.js";
import { gapName, scoreShard } from "./score-stage.js";
import { readScores, type ScoreTable } from "./scores-csv.js";
import {
  AMBIGUOUS_SYNTHETIC,
  type ShardReport,
  type StageContext,
  scoresPath,
  skippedPath,
  UNTURNED,
  WITHOUT_SYNTHETIC,
} from "./shard-work.js";
import { listShards } from "./sources/list-shards.js";
import type { Skipped, SourceShard } from "./sources/raw-sample.js";
import { StageMeter } from "./stage-meter.js";
import { loadStageScorers, stageScorers } from "./stage-scorers.js";
import { latentSettings, scoreSettings } from "./stage-settings.js";
import { SyntheticTable } from "./synthetic-captions.js";

/** What {@link preprocess} did. */
export interface PreprocessResult {
  /** Stage by stage, shard by shard. */
  shards: ShardReport[];
  /** Number of shards by status. */
  counts: Record<ShardReport["status"], number>;
  seconds: number;
}

/** What is decided before anything is computed. */
interface Prepared {
  options: ResolvedOptions;
  stages: Stage[];
  shards: SourceShard[];
  /** All shards of the source, those that were not chosen too. */
  all: readonly SourceShard[];
  csvDir: string;
  /** Whole path of the source. */
  from: string;
  table: SyntheticTable | null;
  scorers: Record<"rewards" | "vqa", readonly ScorerSpec[]>;
  folders: LatentFolders | null;
}

/**
 * Prepares data. Shards that fail do not stop the others (except with `strict`): they are in the result with their
 * message.
 *
 * @throws InvalidInputError for wrong options, before any model is loaded; the signal's reason when it is aborted
 */
export async function preprocess(given: PreprocessOptions): Promise<PreprocessResult> {
  const started = performance.now();
  const prepared = await prepare(parseOptions(preprocessSchema, given));
  const { options } = prepared;
  reportCompressed(options);
  const reports = await withThreads(options.threads, () => runStages(prepared));
  const counts = { done: 0, skipped: 0, locked: 0, failed: 0 };
  for (const { status } of reports) counts[status]++;
  reportUnturned(options, reports);
  reportWithoutSynthetic(options, reports);
  if (prepared.stages.includes("vae")) reportEarlier(options.dest!, prepared.all, options);
  return { shards: reports, counts, seconds: Math.round(performance.now() - started) / 1000 };
}

async function runStages(prepared: Prepared): Promise<ShardReport[]> {
  const { options, stages, shards } = prepared;
  const reports: ShardReport[] = [];
  const pool = new DecodePool(options.workers ?? Math.min(8, processors()));
  try {
    for (const [i, stage] of stages.entries()) {
      const meter = new StageMeter(stage, i, stages.length, shards.length, options.onProgress);
      const done = await (stage === "vae" ? latentStage : scoreStage)(prepared, stage, pool, meter);
      reports.push(...done);
      refuseNothing(options.src, done);
    }
  } finally {
    await pool.close();
  }
  return reports;
}

async function prepare(options: ResolvedOptions): Promise<Prepared> {
  const { stage, src, dest, signal } = options;
  const stages: Stage[] = stage === "all" ? ["rewards", "vqa", "vae"] : [stage];
  if (stages.includes("vae")) {
    if (dest === undefined)
      throw invalid("dest", message`a folder for the enriched tars of ${option("stage", stage)}`, message`none`);
    latentDType(options);
    if (sidesOf(options).length === 0 && !options.textEmbeddings)
      throw new InvalidInputError(
        message`${option("vae256", false)}, ${option("vae512", false)} and ${option("textEmbeddings", false)} together leave nothing to compute`,
      );
  }
  checkDevice(options.device);
  const all = await listShards(src, options);
  const shards = selectShards(
    all.map(({ stem }) => stem),
    options,
  ).map((i) => all[i]!);
  const csvDir = options.csvDir ?? scoresFolder(src);
  if (dest !== undefined && stages.includes("vae")) {
    proveWritable(dest, "folder", "dest");
    if (existsSync(dest) && realpathSync(dest) === realpathSync(src))
      throw new InvalidInputError(
        message`${about("dest")}: is the folder of ${option("src")}; the enriched tars would replace the raw ones`,
      );
  }
  const table = options.syntheticCaptions === undefined ? null : SyntheticTable.open(options.syntheticCaptions);
  if (table !== null && !options.synthetic)
    throw new InvalidInputError(
      message`${option("syntheticCaptions")} and ${option("synthetic", false)} exclude one another`,
    );
  const scorers = { rewards: stageScorers("rewards", options), vqa: stageScorers("vqa", options) };
  if (stage === "all") {
    if (scorers.vqa.length === 0) stages.splice(stages.indexOf("vqa"), 1);
    if (scorers.rewards.length === 0) stages.splice(stages.indexOf("rewards"), 1);
  }
  // The stage `vae` only reads scores, which there need not be.
  const writesScores = stages.some((one) => one !== "vae");
  if (writesScores) proveWritable(csvDir, "folder", "csvDir");
  const folders = stages.includes("vae") ? await locateModels(options) : null;
  signal?.throwIfAborted();
  return { options, stages, shards, all, csvDir, from: realpathSync(src), table, scorers, folders };
}

/** Where the scores of a source go by default: two tables of a folder have shards of the same names. */
function scoresFolder(src: string): string {
  return statSync(src).isDirectory() ? join(src, "scores") : join(dirname(src), "scores", basename(src));
}

async function latentStage(
  prepared: Prepared,
  stage: Stage,
  pool: DecodePool,
  meter: StageMeter,
): Promise<ShardReport[]> {
  const { options, csvDir, from, folders, table } = prepared;
  const settings = latentSettings(options, folders!, table);
  const loaded: LatentModels[] = [];
  try {
    return await eachShard(prepared, stage, meter, options.dest!, async (shard, report, holds) => {
      const output = tarPath(options.dest!, shard);
      const manifest = join(options.dest!, `${shard.stem}.manifest.json`);
      report.output = output;
      const csv = scoresPath(csvDir, shard);
      const scores: ScoreTable = readScores(csv);
      const plan: Plan = {
        stage,
        settings,
        from,
        input: { source: shard.fingerprint(), scores: existsSync(csv) ? sha256(readBytes(csv)) : "none" },
      };
      const state = standing(manifest, output, plan);
      if (!options.overwrite) {
        if (state.kind === "complete") return finished(report, state.manifest);
        if (state.kind === "elsewhere") throw madeElsewhere(output, state.from, "dest");
        if (state.kind === "different") {
          throw new InvalidInputError(
            message`${output}: was made with other settings (${state.settings.join(", ")}); choose another ${option("dest")}, or ${option("overwrite", true)}`,
          );
        }
        if (state.kind === "foreign") {
          throw new InvalidInputError(
            message`${output}: is there, but not made by this program; choose another ${option("dest")}, or ${option("overwrite", true)}`,
          );
        }
      }
      if (state.kind === "outdated") options.onMessage?.(`${output}: is made again: ${state.reason}`);
      if (loaded.length === 0) loaded.push(await forAll(LatentModels.load(folders!, options)));
      beginManifest(manifest, plan);
      const { outcome, skipped } = await latentShard(shard, output, {
        context: contextOf(prepared, pool, meter),
        models: loaded[0]!,
        scores,
        mayPublish: holds,
      }).catch((error: unknown) => {
        // What is left out for good is not begun.
        if (isLeftOut(error, options) && !existsSync(output)) rmSync(manifest, { force: true });
        throw error;
      });
      close(manifest, { plan, outcome, skipped, report });
    });
  } finally {
    for (const models of loaded) models.dispose();
  }
}

/** What both stages work with. */
function contextOf({ options, csvDir, table }: Prepared, pool: DecodePool, meter: StageMeter): StageContext {
  return { options, csvDir, pool, table, onSample: (done, total) => meter.sample(done, total) };
}

async function scoreStage(
  prepared: Prepared,
  stage: Stage,
  pool: DecodePool,
  meter: StageMeter,
): Promise<ShardReport[]> {
  const { options, csvDir, from, table } = prepared;
  const specs = prepared.scorers[stage as "rewards" | "vqa"];
  const settings = scoreSettings(options, specs, table);
  const scorers: LoadedScorer[] = [];
  try {
    return await eachShard(prepared, stage, meter, csvDir, async (shard, report, holds) => {
      const output = scoresPath(csvDir, shard);
      const manifestPath = join(csvDir, `${shard.stem}_scores.${stage}.manifest.json`);
      report.output = output;
      const plan: Plan = { stage, settings, from, input: { source: shard.fingerprint() } };
      const manifest = readManifest(manifestPath);
      if (!options.overwrite && manifest !== null && isScored(manifest, plan, output, specs))
        return finished(report, manifest);
      const other = manifest !== null && existsSync(output) ? otherSource(manifest, plan) : null;
      if (!options.overwrite && other !== null) throw madeElsewhere(output, other, "csvDir");
      if (scorers.length === 0) await forAll(loadStageScorers(specs, options, scorers));
      beginManifest(manifestPath, plan);
      const { outcome, skipped } = await scoreShard(shard, {
        context: contextOf(prepared, pool, meter),
        stage,
        scorers,
        mayPublish: holds,
      });
      close(manifestPath, { plan, outcome, skipped, report });
    });
  } finally {
    for (const scorer of scorers) scorer.dispose();
  }
}

/** Two sources may have shards of the same names: the second must not replace what was made of the first. */
function madeElsewhere(output: string, from: string, place: "dest" | "csvDir"): InvalidInputError {
  return new InvalidInputError(
    message`${output}: was made from ${from}; choose another ${option(place)}, or ${option("overwrite", true)}`,
  );
}

/** Whether a score file still has what a finished stage wrote. Later stages may have added columns. */
function isScored(manifest: Manifest, plan: Plan, path: string, specs: readonly ScorerSpec[]): boolean {
  if (manifest.state !== "complete") return false;
  if (differences(manifest.settings, plan.settings).length > 0) return false;
  if (differences(manifest.input, plan.input).length > 0) return false;
  if (manifest.samples!.written === 0) return true;
  const table = readScores(path);
  return specs.every(({ key }) => {
    let scored = 0;
    for (const row of table.values()) if (row.has(key)) scored++;
    return scored >= manifest.samples!.written - (manifest.details[gapName(key)] ?? 0);
  });
}

function finished(report: ShardReport, { samples, details, seconds }: Manifest): void {
  report.status = "skipped";
  report.message = "finished already";
  Object.assign(report, { ...samples!, ...reportedDetails(details), seconds });
}

/** What of a manifest's details a report has. */
function reportedDetails(
  details: Readonly<Record<string, number>>,
): Pick<ShardReport, "unturned" | "withoutSynthetic" | "ambiguousSynthetic"> {
  const { [UNTURNED]: unturned, [WITHOUT_SYNTHETIC]: withoutSynthetic } = details;
  const { [AMBIGUOUS_SYNTHETIC]: ambiguousSynthetic = 0 } = details;
  return {
    ...(unturned !== undefined && { unturned }),
    ...(withoutSynthetic !== undefined && { withoutSynthetic }),
    ...(ambiguousSynthetic > 0 && { ambiguousSynthetic }),
  };
}

/** Ends a shard: the report of what was left out first, the manifest last. */
function close(
  manifest: string,
  { plan, outcome, skipped, report }: { plan: Plan; outcome: Outcome; skipped: Skipped[]; report: ShardReport },
): void {
  writeReport(skippedPath(report.output, report.stage), skipped);
  completeManifest(manifest, plan, {
    ...outcome,
    output: { ...outcome.output!, file: basename(outcome.output!.file) },
  });
  Object.assign(report, { ...outcome.samples!, ...reportedDetails(outcome.details), seconds: outcome.seconds });
}

/**
 * Works on one shard after another, each under its lock. Those of a process of which nothing is known come last: it may
 * have been killed on a machine that was lost.
 */
async function eachShard(
  { options, shards, csvDir }: Prepared,
  stage: Stage,
  meter: StageMeter,
  folder: string,
  work: (shard: SourceShard, report: ShardReport, holds: () => void) => Promise<void>,
): Promise<ShardReport[]> {
  const reports = shards.map(
    ({ stem }): ShardReport => ({
      stage,
      shard: stem,
      status: "done",
      output: "",
      seen: 0,
      written: 0,
      skipped: {},
      seconds: {},
    }),
  );
  const acquire = ({ stem }: SourceShard) => {
    const scores = `${stem}_scores`;
    // What another process scores has no scores yet.
    const scorer = stage === "vae" && existsSync(csvDir) ? FileLock.holder(csvDir, scores) : null;
    return scorer ?? FileLock.acquire(folder, stage === "vae" ? stem : scores);
  };
  const under = async (lock: FileLock, shard: SourceShard, report: ShardReport) => {
    try {
      await work(shard, report, () => {
        options.signal?.throwIfAborted();
        if (!lock.isHeld()) throw new MiroError(`${shard.label}: another process has taken over the lock ${lock.path}`);
      });
    } catch (error) {
      if (error instanceof ForAll) throw error.cause;
      if (options.signal?.aborted) throw error;
      if (isLeftOut(error, options)) {
        report.status = "skipped";
        report.message = problemText(error.problem);
        options.onMessage?.(`warning: ${shard.label}: left out: ${report.message}`);
        return;
      }
      if (options.strict || !isExpected(error)) throw error;
      report.status = "failed";
      tell(report, error);
      say(options, message`warning: ${shard.label}: failed: ${error}`);
    } finally {
      lock.release();
    }
  };
  let turns = 0;
  const turn = async (index: number, lock: FileLock | LockOwner) => {
    const [shard, report] = [shards[index]!, reports[index]!];
    meter.begin(shard.stem, turns++);
    if (lock instanceof FileLock) return under(lock, shard, report);
    report.status = "locked";
    report.message = `${lock.text} works on it`;
    options.onMessage?.(`${shard.label}: left to ${lock.text}, which works on it`);
  };
  const unsure: number[] = [];
  for (const [index, shard] of shards.entries()) {
    options.signal?.throwIfAborted();
    const lock = acquire(shard);
    if (lock instanceof FileLock || lock.isKnown) await turn(index, lock);
    else unsure.push(index);
  }
  for (const index of unsure) {
    const { label } = shards[index]!;
    const onWait = ({ text }: LockOwner) =>
      options.onMessage?.(`${label}: waiting for a sign of life of ${text}, which worked on it`);
    await turn(index, await whenKnown(() => acquire(shards[index]!), { signal: options.signal, onWait }));
  }
  return reports;
}

function isLeftOut(error: unknown, { skipBrokenShards }: ResolvedOptions): error is ShardError {
  return skipBrokenShards && error instanceof ShardError;
}

function tell(report: ShardReport, error: unknown): void {
  report.wording = message`${error}`;
  report.message = report.wording.text();
}

/** A failure that no shard can do without: a model that cannot be loaded. */
class ForAll extends Error {}

function forAll<T>(work: Promise<T>): Promise<T> {
  return work.catch((cause: unknown) => {
    throw new ForAll("", { cause });
  });
}

/** Failures that concern one shard; anything else is a fault of the program. */
function isExpected(error: unknown): boolean {
  return error instanceof MiroError || (error as Error).name === "TorchError";
}
