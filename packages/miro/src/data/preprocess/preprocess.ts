/**
 * Data preparation from raw samples to enriched tars: chooses shards, runs the stages over them, skips what is
 * finished.
 *
 * Beside each output lies a manifest (`<stem>.manifest.json`; for scores `<stem>_scores.<stage>.manifest.json`) and,
 * when samples were left out, a report (`….skipped.jsonl`). A shard is worked on under a lock. What a killed process
 * leaves is a temporary file and a manifest that says `writing`; the next run removes the one and does the shard again.
 */
import { existsSync, readdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { InvalidInputError, invalid, MiroError } from "../../errors.js";
import { FileLock, type LockOwner, whenKnown } from "../../files/file-lock.js";
import { sha256 } from "../../files/sha256.js";
import { readBytes } from "../../files/whole-files.js";
import { proveWritable } from "../../files/writable.js";
import { about, type Message, message, option } from "../../message.js";
import { counted, plural } from "../../numbers.js";
import { parseOptions } from "../../options.js";
import { checkDevice } from "../../pipeline/loading/device.js";
import { listed } from "../../printable.js";
import type { LoadedScorer, ScorerSpec } from "../../rewards/scorer.js";
import { withThreads } from "../../with-threads.js";
import { compressedTars } from "../shards/compressed.js";
import { problemText, ShardError } from "../shards/shard-error.js";
import { DecodePool } from "./decode-pool.js";
import {
  type LatentFolders,
  LatentModels,
  latentDType,
  locateModels,
  modelFingerprint,
  sidesOf,
} from "./latent-models.js";
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
  readReport,
  standing,
  writeReport,
} from "./manifest.js";
import {
  type PreprocessOptions,
  type PreprocessProgress,
  preprocessSchema,
  type ResolvedOptions,
  type Stage,
  selectShards,
} from "./options.js";
import { gapName, judgedText, scoreShard } from "./score-stage.js";
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
import { loadStageScorers, scorerSettings, stageScorers } from "./stage-scorers.js";
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
  if (prepared.stages.includes("vae")) reportEarlier(prepared);
  return { shards: reports, counts, seconds: Math.round(performance.now() - started) / 1000 };
}

async function runStages(prepared: Prepared): Promise<ShardReport[]> {
  const { options, stages, shards } = prepared;
  const reports: ShardReport[] = [];
  const pool = new DecodePool(options.workers ?? Math.min(8, availableParallelism()));
  try {
    for (const [i, stage] of stages.entries()) {
      const meter = new Meter(stage, i, stages.length, shards.length, options.onProgress);
      const done = await (stage === "vae" ? latentStage : scoreStage)(prepared, stage, pool, meter);
      reports.push(...done);
      refuseNothing(options.src, done);
    }
  } finally {
    await pool.close();
  }
  return reports;
}

/** What to do about samples that are left out, for those reasons of which a whole data set may be. */
const REMEDIES: Partial<Record<string, string>> = {
  "missing-caption":
    "give each picture a caption: NAME.txt beside NAME.jpg, a field caption or text in NAME.json, KEY.txt in a tar, or a column of a table",
  "missing-json": "give each sample of a tar its KEY.json; {} will do",
  "missing-image": "give each sample its picture",
};

/** @throws MiroError when no sample of a whole source can be used: such a result is no data set */
function refuseNothing(src: string, reports: readonly ShardReport[]): void {
  const seen = reports.reduce((sum, report) => sum + report.seen, 0);
  const isDone = reports.every(({ status }) => status === "done" || status === "skipped");
  if (!isDone || seen === 0 || reports.some(({ written }) => written > 0)) return;
  const reasons = new Map<string, number>();
  for (const { skipped } of reports)
    for (const [reason, count] of Object.entries(skipped)) reasons.set(reason, (reasons.get(reason) ?? 0) + count);
  const byCount = [...reasons].sort((a, b) => b[1] - a[1]);
  const remedy =
    byCount.map(([reason]) => REMEDIES[reason]).find((text) => text !== undefined) ??
    "the files *.skipped.jsonl beside the output say why";
  const counts = byCount.map(([reason, count]) => `${count} ${reason}`).join(", ");
  const lists = reports.map(({ stage, output }) => skippedPath(output, stage));
  const first = lists.flatMap(readReport).find(({ reason }) => reason === byCount[0]?.[0]);
  const example = first === undefined ? "" : `, such as ${first.key || "(no key)"}: ${first.message}`;
  throw new MiroError(`${src}: none of ${counted(seen, "sample")} can be used (${counts}${example}); ${remedy}`);
}

/** Says of how many pictures the EXIF orientation was not followed. */
function reportUnturned(options: ResolvedOptions, reports: readonly ShardReport[]): void {
  const byStage = new Map<Stage, number>();
  for (const { stage, unturned = 0 } of reports) byStage.set(stage, (byStage.get(stage) ?? 0) + unturned);
  const count = Math.max(0, ...byStage.values());
  if (count === 0) return;
  const stored = counted(count, "picture is", "pictures are");
  const were = plural(count, "was", "were");
  say(
    options,
    message`warning: ${options.src}: ${stored} stored turned or mirrored and ${were} taken as stored, as in the published data; phones store photographs so: ${option("exifOrientation", true)} turns them as viewers do`,
  );
}

/**
 * Says how many samples the table of synthetic captions has no row for, since its names may be others than theirs, and
 * for how many it has rows that differ.
 */
function reportWithoutSynthetic(
  { syntheticCaptions: table, onMessage }: ResolvedOptions,
  reports: readonly ShardReport[],
) {
  const ofStage = reports.filter(({ stage }) => stage === reports[0]!.stage);
  const without = ofStage.reduce((sum, { withoutSynthetic = 0 }) => sum + withoutSynthetic, 0);
  if (table === undefined || without === 0) return;
  const written = ofStage.reduce((sum, report) => sum + report.written, 0);
  const ambiguous = ofStage.reduce((sum, { ambiguousSynthetic = 0 }) => sum + ambiguousSynthetic, 0);
  const left = "left without a synthetic caption";
  if (ambiguous > 0)
    onMessage?.(
      `warning: ${table}: has rows that differ for ${counted(ambiguous, "sample")}, ${left}; keep one of them`,
    );
  const missing = without - ambiguous;
  if (missing <= 0) return;
  const found = `${table}: has no row for ${counted(missing, "sample")}, ${left}`;
  onMessage?.(missing < written ? found : `warning: ${found}; its first column names the files of samples`);
}

/** Tars that an error or a warning names. */
const LISTED = 3;

/** Warns of compressed tars among the others: published data sets are also given so. */
function reportCompressed({ src, onMessage }: ResolvedOptions): void {
  const names = statSync(src).isDirectory() ? compressedTars(readdirSync(src)) : [];
  if (names.length === 0) return;
  const found = counted(names.length, "compressed tar is", "compressed tars are");
  onMessage?.(
    `warning: ${src}: ${found} not read (${listed(names, LISTED)}); unpack ${plural(names.length, "it", "them")}`,
  );
}

/** Warns of tars that this program has cut out of another source, or out of more pictures: training reads them too. */
function reportEarlier({ options, all }: Prepared): void {
  const dest = options.dest!;
  if (!all[0]!.isNumbered || !existsSync(dest)) return;
  const present = new Set(all.map((shard) => basename(tarPath(dest, shard))));
  const others = readdirSync(dest).filter((name) => /^\d{5,}\.tar$/.test(name) && !present.has(name));
  const made = others.filter((name) => readManifest(join(dest, name.replace(/tar$/, "manifest.json"))) !== null);
  if (made.length === 0) return;
  const shards = counted(made.length, "shard is", "shards are");
  const found = message`${shards} of an earlier preparation (${listed(made.sort(), LISTED)})`;
  const why = message`of other pictures or another ${option("shardSize")}`;
  const [them, their] = [plural(made.length, "it", "them"), plural(made.length, "its", "their")];
  const remedy = `remove ${them}, or training reads ${their} samples too`;
  say(options, message`warning: ${dest}: ${found}, ${why}; ${remedy}`);
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

async function latentStage(prepared: Prepared, stage: Stage, pool: DecodePool, meter: Meter): Promise<ShardReport[]> {
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
function contextOf({ options, csvDir, table }: Prepared, pool: DecodePool, meter: Meter): StageContext {
  return { options, csvDir, pool, table, onSample: (done, total) => meter.sample(done, total) };
}

async function scoreStage(prepared: Prepared, stage: Stage, pool: DecodePool, meter: Meter): Promise<ShardReport[]> {
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
  meter: Meter,
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

function say({ onMessage }: ResolvedOptions, wording: Message): void {
  onMessage?.(wording.text(), wording);
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

function latentSettings(options: ResolvedOptions, folders: LatentFolders, table: SyntheticTable | null) {
  const { textMaxLength, embeddingsName, missingScores, device, dtype, batchSize } = options;
  return {
    sides: sidesOf(options),
    vae: folders.vae === null ? null : modelFingerprint(folders.vae),
    textEncoder: folders.textEncoder === null ? null : modelFingerprint(folders.textEncoder),
    ...(folders.textEncoder === null ? {} : { textMaxLength, embeddingsName }),
    ...captionSettings(options, table),
    missingScores,
    // The last bits of what is computed depend on these.
    device: device.replace(/:\d+$/, ""),
    dtype,
    ...(device === "cpu" ? {} : { batchSize }),
  };
}

function scoreSettings(options: ResolvedOptions, specs: readonly ScorerSpec[], table: SyntheticTable | null) {
  return {
    scorers: Object.fromEntries(
      specs.map((spec) => {
        const { key, usesText } = spec;
        const synthetic = usesText && options.synthetic ? { synthetic: judgedText(spec, options.syntheticText) } : {};
        return [key, { ...scorerSettings(spec, options), ...synthetic }];
      }),
    ),
    ...captionSettings(options, table),
    device: options.device.replace(/:\d+$/, ""),
  };
}

function captionSettings({ synthetic, maxPixels, exifOrientation }: ResolvedOptions, table: SyntheticTable | null) {
  return { synthetic: synthetic ? (table?.fingerprint() ?? "json") : "none", maxPixels, exifOrientation };
}

/** Turns counts into rates and remaining times. */
class Meter {
  #shard = "";
  #index = 0;
  #begun = performance.now();
  /** When the first shard began of which samples were computed; those that are there already take no time. */
  #started = 0;
  /** Shards before this one of which samples were computed. */
  #worked = 0;
  #hasSamples = false;
  readonly #stage: Stage;
  readonly #stageIndex: number;
  readonly #stageCount: number;
  readonly #shardCount: number;
  readonly #report: ((progress: PreprocessProgress) => void) | undefined;

  constructor(
    stage: Stage,
    stageIndex: number,
    stageCount: number,
    shardCount: number,
    report: ((progress: PreprocessProgress) => void) | undefined,
  ) {
    this.#stage = stage;
    this.#stageIndex = stageIndex;
    this.#stageCount = stageCount;
    this.#shardCount = shardCount;
    this.#report = report;
  }

  begin(shard: string, index: number): void {
    this.#shard = shard;
    this.#index = index;
    this.#begun = performance.now();
    if (this.#hasSamples) this.#worked++;
    this.#hasSamples = false;
    if (this.#worked === 0) this.#started = this.#begun;
  }

  sample(done: number, total: number): void {
    this.#hasSamples = true;
    if (!this.#report) return;
    const seconds = (performance.now() - this.#begun) / 1000;
    const all = (performance.now() - this.#started) / 1000;
    const secondsAShard = all / (this.#worked + done / total);
    const stagesLeft = this.#stageCount - this.#stageIndex - 1;
    this.#report({
      stage: this.#stage,
      shard: this.#shard,
      shardIndex: this.#index,
      shardCount: this.#shardCount,
      done,
      total,
      rate: done / Math.max(seconds, 1e-3),
      shardSeconds: (seconds / done) * (total - done),
      // Stages that are still to come are not known; they are taken to be as long as this one.
      totalSeconds: secondsAShard * (this.#shardCount * (1 + stagesLeft) - this.#index - done / total),
    });
  }
}
