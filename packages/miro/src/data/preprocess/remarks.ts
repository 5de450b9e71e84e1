/** What a preparation says of its source and of its results: warnings, and that nothing can be used. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { MiroError } from "../../errors.js";
import { type Message, message, option } from "../../message.js";
import { counted, plural } from "../../numbers.js";
import { listed } from "../../printable.js";
import { compressedTars } from "../shards/compressed.js";
import { tarPath } from "./latent-stage.js";
import { readManifest, readReport } from "./manifest.js";
import type { ResolvedOptions, Stage } from "./options.js";
import { type ShardReport, skippedPath } from "./shard-work.js";
import type { SourceShard } from "./sources/raw-sample.js";

/** Tells a message that mentions options. */
export function say({ onMessage }: ResolvedOptions, wording: Message): void {
  onMessage?.(wording.text(), wording);
}

/** What to do about samples that are left out, for those reasons of which a whole data set may be. */
const REMEDIES: Partial<Record<string, string>> = {
  "missing-caption":
    "give each picture a caption: NAME.txt beside NAME.jpg, a field caption or text in NAME.json, " +
    "KEY.txt in a tar, or a column of a table",
  "missing-json": "give each sample of a tar its KEY.json; {} will do",
  "missing-image": "give each sample its picture",
};

/** @throws MiroError when no sample of a whole source can be used: such a result is no data set */
export function refuseNothing(src: string, reports: readonly ShardReport[]): void {
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
export function reportUnturned(options: ResolvedOptions, reports: readonly ShardReport[]): void {
  const byStage = new Map<Stage, number>();
  for (const { stage, unturned = 0 } of reports) byStage.set(stage, (byStage.get(stage) ?? 0) + unturned);
  const count = Math.max(0, ...byStage.values());
  if (count === 0) return;
  const stored = counted(count, "picture is", "pictures are");
  const were = plural(count, "was", "were");
  const what = `${stored} stored turned or mirrored and ${were} taken as stored, as in the published data`;
  const remedy = message`phones store photographs so: ${option("exifOrientation", true)} turns them as viewers do`;
  say(options, message`warning: ${options.src}: ${what}; ${remedy}`);
}

/**
 * Says how many samples the table of synthetic captions has no row for, since its names may be others than theirs, and
 * for how many it has rows that differ.
 */
export function reportWithoutSynthetic(
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
export function reportCompressed({ src, onMessage }: ResolvedOptions): void {
  const names = statSync(src).isDirectory() ? compressedTars(readdirSync(src)) : [];
  if (names.length === 0) return;
  const found = counted(names.length, "compressed tar is", "compressed tars are");
  onMessage?.(
    `warning: ${src}: ${found} not read (${listed(names, LISTED)}); unpack ${plural(names.length, "it", "them")}`,
  );
}

/** Warns of tars that this program has cut out of another source, or out of more pictures: training reads them too. */
export function reportEarlier(dest: string, all: readonly SourceShard[], options: ResolvedOptions): void {
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
