/**
 * Whether the shards of a recipe are there: folders, members, scores, index and bin edges; what is missing, and the
 * command that makes it. Shards are checked by the tables beside them, so it is quick; where those are missing, the
 * first shard of each root is read.
 */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { keptBins } from "../../data/dataset/bins-of.js";
import { syntheticName } from "../../data/dataset/caption-source.js";
import { openShards } from "../../data/dataset/open-shards.js";
import { filterWords, selectSamples, unfilteredWords } from "../../data/dataset/training-set.js";
import { ShardSet, tarsIn } from "../../data/shards/shard-set.js";
import { ShardTable } from "../../data/shards/shard-table.js";
import { FINISH, unfinishedShards } from "../../data/shards/unfinished.js";
import { type IndexedShard, readWidsIndex, WIDS_INDEX_NAME } from "../../data/shards/wids-index.js";
import { MiroError } from "../../errors.js";
import type { RinConfig } from "../../networks/config.js";
import { counted, plural } from "../../numbers.js";
import { storedEmptyPrompt } from "./empty-prompt.js";
import { type DataCheck, finding } from "./finding.js";
import { binsCommand, indexOptionsOf } from "./shard-bins.js";
import { pairedScores, rootsOf, type ShardData, scoresOf, validationData } from "./shard-data.js";
import { checkMembers } from "./shard-members.js";
import type { SourceRecipe, SourceReport } from "./sources.js";

/** Looks at the training shards. @param readAll those without a table too */
export async function checkShards(
  data: ShardData,
  { network: config, batchSize }: SourceRecipe,
  readAll = false,
): Promise<SourceReport> {
  const checks: DataCheck[] = [];
  const roots = rootsOf(data);
  const found = roots.map((root) => shardsIn(root, checks));
  const shards = found.flat();
  if (shards.length === 0) return { samples: null, checks };
  const tables = shards.map((path) => ShardTable.isStored(path));
  const without = readAll ? 0 : tables.filter((stored) => !stored).length;
  if (without > 0)
    checks.push({
      status: "note",
      subject: "tables",
      finding: `${without} of ${counted(shards.length, "shard")} ${plural(without, "has", "have")} none yet; the first start reads ${plural(without, "it", "those shards")} through`,
      remedy: `miro index ${roots.join(" ")}`,
    });
  const looked = found.flatMap((paths) => paths.filter((path, i) => readAll || i === 0 || ShardTable.isStored(path)));
  const samples = checkMembers(looked, data, config, checks);
  if (samples === 0) checks.push(noSamples(looked.length, shards.length));
  if (without > 0 || found.some((paths) => paths.length === 0)) return { samples: null, checks };
  if (checks.some(({ status }) => status === "missing")) return { samples, checks };
  const passing = await checkSelection(roots, data, { batchSize }, checks);
  if (passing !== null && data.binCoherence) await checkBins(roots, data, config, checks);
  return { samples: passing ?? samples, checks };
}

/** Looks at the file with the text states of the empty prompt, where one is named. */
export function checkUncond({ uncondEmbedding: path }: ShardData, { labelDim }: RinConfig): DataCheck[] {
  if (path === undefined) return [];
  const check = () => {
    storedEmptyPrompt(path, labelDim).dispose();
    return path;
  };
  return [finding("data.uncond_embedding", check, "name an .npy file with the text encoder's states of an empty text")];
}

/** Which of the samples pass the filters, as the start selects them; null where they cannot be selected. */
async function checkSelection(
  roots: string[],
  data: ShardData,
  { batchSize, key = "trainer.batch_size" }: { batchSize: number; key?: string },
  checks: DataCheck[],
  prefix = "",
): Promise<number | null> {
  const subject = `${prefix}samples`;
  try {
    const set = await openShards(roots, data, {});
    try {
      const { length } = selectSamples(set, data);
      const words = `${length} of ${set.length} have all members and pass the filters (${filterWords(data)})`;
      if (length < batchSize)
        checks.push({
          status: "missing",
          subject,
          finding: `${length < set.length ? words : length}, fewer than the ${batchSize} of ${key}`,
          remedy: `add shards, filter fewer out, or lower ${key}`,
        });
      else if (length < set.length) checks.push({ status: "ok", subject, finding: words });
      const unfiltered = unfilteredWords(set, data);
      if (unfiltered !== null)
        checks.push({
          status: "note",
          subject: `${prefix}filters`,
          finding: unfiltered,
          remedy: "add width and height to the JSON",
        });
      return length;
    } finally {
      set.close();
    }
  } catch (error) {
    if (!(error instanceof MiroError)) throw error;
    checks.push({
      status: "missing",
      subject,
      finding: error.message,
      remedy: "data.max_bad_rate says how many may be",
    });
    return null;
  }
}

/** What is said where the shards that were looked at hold no sample that can be read. */
function noSamples(looked: number, all: number, prefix = ""): DataCheck {
  return {
    status: looked === all ? "missing" : "note",
    subject: `${prefix}samples`,
    finding: `none can be read in ${counted(looked, "shard")} looked at`,
    remedy: "miro preprocess makes shards",
  };
}

/** Looks at the validation shards: their members, not their scores, which are not read. */
export async function checkValidationShards(
  training: ShardData,
  { root, batchSize }: { root: string | string[]; batchSize: number },
  { network }: Pick<SourceRecipe, "network">,
): Promise<DataCheck[]> {
  const checks: DataCheck[] = [];
  const data = validationData(training, root);
  const roots = rootsOf(data);
  const found = roots.map((root) =>
    shardsIn(root, checks, "validation.root says where they are, validation.every_n_steps=0 does without"),
  );
  const first = found.flatMap((paths) => paths.slice(0, 1));
  const config = { ...network, coherenceKeys: [] };
  const own = { ...data, coherenceScores: [], scoreColumns: undefined };
  if (first.length > 0 && checkMembers(first, own, config, checks, "validation ") === 0)
    checks.push(noSamples(first.length, found.flat().length, "validation "));
  const batch = { batchSize, key: "validation.batch_size" };
  const known = found.every((paths) => paths.length > 0 && paths.every((path) => ShardTable.isStored(path)));
  if (known && checks.every(({ status }) => status !== "missing"))
    await checkSelection(roots, data, batch, checks, "validation ");
  return checks;
}

/** The shards of a root; says what is wrong with it. */
function shardsIn(
  root: string,
  checks: DataCheck[],
  setting = "data.dir and data.root (MIRO_DATA_DIR) say where they are",
): string[] {
  const missing = (finding: string) => {
    const remedy = `miro preprocess makes shards; ${setting}`;
    checks.push({ status: "missing", subject: root, finding, remedy });
    return [];
  };
  if (!existsSync(root)) return missing(isAbsolute(root) ? "not there" : `not there (${resolve(root)})`);
  try {
    if (!statSync(root).isDirectory()) {
      const paths = root.endsWith(".json") ? readWidsIndex(root).shards.map(({ path }: IndexedShard) => path) : [root];
      checks.push({ status: "ok", subject: root, finding: counted(paths.length, "shard") });
      return paths;
    }
    const tars = tarsIn(root);
    checks.push({ status: "ok", subject: root, finding: counted(tars.length, "shard") });
    const begun = unfinishedShards(root);
    if (begun !== null) checks.push({ status: "note", subject: root, finding: begun, remedy: FINISH });
    const index = join(root, WIDS_INDEX_NAME);
    if (!existsSync(index))
      checks.push({
        status: "note",
        subject: index,
        finding: "no index; this program does not need it, upstream's does",
        remedy: `miro index ${root}`,
      });
    return tars;
  } catch (error) {
    if (error instanceof MiroError) return missing(error.message);
    throw error;
  }
}

async function checkBins(roots: string[], data: ShardData, config: RinConfig, checks: DataCheck[]): Promise<void> {
  const scores = scoresOf(data, config.coherenceKeys);
  const set = await ShardSet.open({ sources: roots, onBadSample: "skip", maxBadRate: 1, brokenShards: "read" });
  try {
    const kept = keptBins(set, { ...data, scores });
    if (kept !== null) {
      checks.push({ status: "ok", subject: "bin edges", finding: kept.file });
      return;
    }
    // The published edges always are 0 and 1 outside, so that one value has bins too.
    if (!data.distinct) for (const name of scores) checkSpread(set, name, data, checks);
    checks.push({
      status: "note",
      subject: "bin edges",
      finding: "none for these shards and scores yet; the first start computes them",
      remedy: binsCommand(indexOptionsOf(data, config.coherenceKeys)),
    });
  } finally {
    set.close();
  }
}

/** Bins need two different values. */
function checkSpread(set: ShardSet, name: string, data: ShardData, checks: DataCheck[]): void {
  const columns = [name, ...pairedScores(data, [name]).map(syntheticName)];
  let first: number | undefined;
  for (let shard = 0; shard < set.shards.length; shard++)
    for (const column of columns)
      for (const value of set.table(shard).columns.get(column) ?? [])
        if (Number.isFinite(value)) {
          first ??= value;
          if (value !== first) return;
        }
  if (first === undefined) return;
  checks.push({
    status: "missing",
    subject: `score ${name}`,
    finding: `is ${first} in every sample, so that no bins can be made`,
    remedy: "leave it out of network.coherence_keys, or data.bin_coherence=false takes the rewards as they are",
  });
}
