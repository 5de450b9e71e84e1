/** What shards hold of what a recipe reads: members, the shapes of their arrays, and scores. */
import { syntheticName } from "../../data/dataset/caption-source.js";
import { foundFields } from "../../data/dataset/numeric-fields.js";
import { textMember } from "../../data/dataset/training-set-options.js";
import { CUT_REMEDY, cutProblem } from "../../data/shards/shard-error.js";
import { ShardTable } from "../../data/shards/shard-table.js";
import { MiroError } from "../../errors.js";
import type { RinConfig } from "../../networks/config.js";
import { counted, plural } from "../../numbers.js";
import { scorerSpecs } from "../../rewards/registry.js";
import type { DataCheck } from "./finding.js";
import { pairedScores, type ShardData, scoresOf, withoutPairs } from "./shard-data.js";

/** A member that the recipe reads. */
interface WantedMember {
  member: string;
  /** Of its array; null: any size. */
  shape: readonly (number | null)[];
  optional: boolean;
}

/** What tables say of their samples. */
interface Holdings {
  samples: number;
  /** Samples that have a member, by its name. */
  members: Map<string, number>;
  /** Samples with a finite number, by the column. */
  scores: Map<string, number>;
  /** Columns that could be rewards. */
  fields: Set<string>;
  /** Arrays of other shapes than the network's, in words. */
  misshapen: Set<string>;
  /** Texts, those of synthetic captions too where they are read; how many have too many tokens, and the most tokens. */
  texts: { count: number; long: number; longest: number };
}

/**
 * Compares what the shards hold with what the recipe reads, where they hold anything.
 * @returns how many samples were looked at
 */
export function checkMembers(
  paths: readonly string[],
  data: ShardData,
  config: RinConfig,
  checks: DataCheck[],
  prefix = "",
): number {
  const wanted = wantedMembers(data, config);
  const scores = scoresOf(data, config.coherenceKeys);
  const paired = pairedScores(data, scores);
  const held = holdingsOf(usableTables(paths, data, checks), wanted, {
    columns: [...scores, ...paired.map(syntheticName)],
    maxTextLen: data.maxTextLen,
  });
  for (const finding of held.misshapen)
    checks.push({
      status: "missing",
      subject: "members",
      finding,
      remedy: "choose a recipe with the sizes of the shards, or prepare them anew with miro preprocess",
    });
  if (held.samples === 0) return 0;
  for (const { member, optional } of wanted)
    checks.push(
      presence(`${prefix}.${member}`, held.members.get(member), held.samples, {
        optional,
        remedy: "miro preprocess --stage vae",
      }),
    );
  const { count, long, longest } = held.texts;
  if (long > 0) {
    const [have, are] = [plural(long, "has", "have"), plural(long, "is", "are")];
    const found = `${long} of ${counted(count, "text")} looked at ${have} more than ${data.maxTextLen} tokens`;
    checks.push({
      status: "note",
      subject: `${prefix}texts`,
      finding: `${found} and ${are} cut; the longest has ${longest}`,
      remedy: "data.max_text_len says how many are kept",
    });
  }
  const others = `; ${foundFields([...held.fields])}${held.fields.size > 0 ? ", each of which can be a reward" : ""}`;
  for (const name of scores)
    checks.push(
      presence(`score ${name}`, held.scores.get(name), held.samples, {
        optional: !data.binCoherence,
        remedy: makerOf(name),
        without: others,
      }),
    );
  for (const name of paired)
    checks.push(
      presence(`score ${syntheticName(name)}`, held.scores.get(syntheticName(name)), held.samples, {
        optional: true,
        remedy: `${makerOf(name, " --synthetic-captions FILE")}, or data.score_mode=original`,
        without: (held.scores.get(name) ?? 0) > 0 ? `, ${withoutPairs([name])}` : "",
      }),
    );
  return held.samples;
}

function wantedMembers(data: ShardData, config: RinConfig): WantedMember[] {
  const { vaeEmbeddingNameMean: mean, vaeEmbeddingNameStd: std, syntheticEmbeddingProb: p } = data;
  const latents = [config.numInputChannels, config.dataSize, config.dataSize];
  const texts = [null, config.labelDim];
  return [
    { member: `${mean}.npy`, shape: latents, optional: false },
    ...(std === null ? [] : [{ member: `${std}.npy`, shape: latents, optional: false }]),
    { member: textMember(data, false), shape: texts, optional: false },
    ...(p > 0 ? [{ member: textMember(data, true), shape: texts, optional: true }] : []),
  ];
}

/** The tables of the shards that can be read; says which cannot, and which of them hold samples that cannot. */
function* usableTables(
  paths: readonly string[],
  { onBadSample, skipBrokenShards }: ShardData,
  checks: DataCheck[],
): Generator<{ path: string; table: ShardTable }, void, void> {
  const ofBadSamples = onBadSample === "skip" ? "note" : "missing";
  for (const path of paths) {
    let table: ShardTable;
    try {
      table = ShardTable.load(path);
    } catch (error) {
      if (!(error instanceof MiroError)) throw error;
      checks.push({ status: ofBadSamples, subject: path, finding: error.message });
      continue;
    }
    const cut = cutProblem(table.problems);
    if (cut !== undefined) {
      const status = skipBrokenShards ? "note" : "missing";
      checks.push({ status, subject: path, finding: cut.message, remedy: CUT_REMEDY });
      continue;
    }
    const broken = table.problems.filter(({ extension }) => extension === undefined);
    if (broken.length > 0)
      checks.push({
        status: ofBadSamples,
        subject: path,
        finding: `${broken[0]!.message}${broken.length > 1 ? `, and ${broken.length - 1} more` : ""}`,
        remedy: "miro preprocess --overwrite makes it anew",
      });
    yield { path, table };
  }
}

function holdingsOf(
  tables: Iterable<{ path: string; table: ShardTable }>,
  wanted: readonly WantedMember[],
  { columns, maxTextLen }: { columns: readonly string[]; maxTextLen: number },
): Holdings {
  const held: Holdings = {
    samples: 0,
    members: new Map(),
    scores: new Map(),
    fields: new Set(),
    misshapen: new Set(),
    texts: { count: 0, long: 0, longest: 0 },
  };
  const texts = wanted.filter(({ shape: [length] }) => length === null).map(({ member }) => member);
  const add = (counts: Map<string, number>, name: string, n: number) => counts.set(name, (counts.get(name) ?? 0) + n);
  for (const { path, table } of tables) {
    held.samples += table.count;
    for (const name of table.header.columns) if (!name.startsWith(syntheticName(""))) held.fields.add(name);
    for (const member of texts)
      for (let sample = 0; sample < table.count; sample++) {
        const [tokens] = table.array(sample, member)?.shape ?? [];
        if (tokens === undefined) continue;
        held.texts.count++;
        if (tokens > maxTextLen) held.texts.long++;
        held.texts.longest = Math.max(held.texts.longest, tokens);
      }
    for (const { name, present } of table.header.extensions) add(held.members, name, present);
    for (const name of columns)
      add(held.scores, name, table.columns.get(name)?.reduce((n, value) => n + Number(Number.isFinite(value)), 0) ?? 0);
    for (const { member, shape } of wanted) {
      const array = table.count > 0 ? table.array(0, member) : null;
      if (array === null) continue;
      const fits = array.shape.length === shape.length && shape.every((n, i) => n === null || n === array.shape[i]);
      const wanted = shape.map((n) => n ?? "tokens").join(", ");
      if (!fits)
        held.misshapen.add(`${member}: shape (${array.shape.join(", ")}) in ${path}, the network takes (${wanted})`);
    }
  }
  return held;
}

/**
 * How many of the samples have something.
 * @param without what is said too where none has it
 */
function presence(
  subject: string,
  there: number | undefined,
  samples: number,
  { optional, remedy, without = "" }: { optional: boolean; remedy: string; without?: string },
): DataCheck {
  if (there === samples) return { status: "ok", subject, finding: `in all ${counted(samples, "sample")} looked at` };
  const of = `of ${counted(samples, "sample")} looked at`;
  return {
    status: !there && !optional ? "missing" : "note",
    subject,
    finding: !there ? `in none ${of}${without}` : `in ${there} ${of}`,
    remedy,
  };
}

/** What makes a score: the stage of its scorer; a number that no scorer is known for may come from anywhere. */
function makerOf(score: string, flags = ""): string {
  const scorer = scorerSpecs().find(({ key }) => key === score);
  const column = flags === "" ? score : syntheticName(score);
  return scorer === undefined
    ? `a number ${column} in the samples' JSON`
    : `miro preprocess --stage ${scorer.stage}${flags}`;
}
