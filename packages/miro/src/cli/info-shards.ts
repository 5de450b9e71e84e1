/**
 * The part of `miro info` that looks at shards: a report, and on request histograms and a contact sheet as pictures.
 */
import { readdirSync } from "node:fs";
import { histogramChart, histogramLine } from "../data/inspect/histogram-chart.js";
import { reportShards, type ShardReport } from "../data/inspect/shard-report.js";
import { shardSheet } from "../data/inspect/shard-sheet.js";
import { WIDS_INDEX_NAME } from "../data/shards/wids-index.js";
import { formatMemory } from "../files/sizes.js";
import { writeFileAtomic } from "../files/whole-files.js";
import { counted } from "../numbers.js";
import { sheetPng } from "../pipeline/settings.js";
import type { CliContext } from "./context.js";
import { Progress } from "./progress.js";
import { writeChart } from "./write-chart.js";

/** What is to be drawn, and where to. */
export interface ShardPictures {
  /** PNG or SVG file for the histograms. */
  plot?: string | undefined;
  /** PNG file for the contact sheet. */
  sheet?: string | undefined;
}

/** Whether a path is a shard, an index of shards or a folder of shards. */
export function holdsShards(path: string, isFolder: boolean): boolean {
  if (!isFolder) return path.endsWith(".tar") || path.endsWith(WIDS_INDEX_NAME);
  return readdirSync(path).some((name) => name.endsWith(".tar"));
}

/** Reports on shards; draws what is asked for. */
export async function shardInfo(
  path: string,
  { plot, sheet, skipBrokenShards }: ShardPictures & { skipBrokenShards?: boolean },
  context: CliContext,
): Promise<ShardReport> {
  const progress = await Progress.for(context);
  try {
    const report = await reportShards(path, {
      skipBrokenShards,
      signal: context.signal,
      onProgress: (done, total) =>
        progress.update("reading", done, total, { count: `${done}/${counted(total, "shard")}` }),
    });
    if (plot !== undefined) await writeChart(plot, histogramChart(report.fields), "numbers of shards");
    if (sheet !== undefined) {
      const picture = await shardSheet(path, { signal: context.signal });
      writeFileAtomic(sheet, sheetPng(picture, "samples of shards"), { overwrite: true });
    }
    return report;
  } finally {
    progress.stop();
  }
}

/** The report for people. */
export function shardLines(report: ShardReport): string[] {
  const { shards, samples, bytes, members, fields, problems, problemCount } = report;
  const each = samples > 0 ? `, ${formatMemory(bytes / samples)} a sample` : "";
  const lines = [
    `${counted(samples, "sample")} in ${counted(shards, "shard")}, ${formatMemory(bytes)}${each}`,
    "members:",
  ];
  const names = Object.keys(members);
  const width = Math.max(0, ...names.map((name) => name.length));
  for (const [name, member] of Object.entries(members)) {
    const { arrays } = member;
    const lengths = arrays?.lengths
      ? `, n ${arrays.lengths.min} to ${arrays.lengths.max}, mean ${arrays.lengths.mean.toFixed(1)}`
      : "";
    const what = arrays ? `${arrays.dtype} (${arrays.shape})${lengths}` : "";
    lines.push(
      `  ${name.padEnd(width)}  ${String(member.count).padStart(8)}  ${formatMemory(member.bytes).padStart(9)}  ${what}`.trimEnd(),
    );
  }
  const shown = Object.entries(fields).filter(([, { count }]) => count > 0);
  if (shown.length > 0) lines.push("numbers of the metadata:");
  const wide = Math.max(0, ...shown.map(([name]) => name.length));
  for (const [name, { count, missing, mean, std, min, max, histogram }] of shown) {
    const range = `${number(min)} to ${number(max)}, mean ${number(mean)}, deviation ${number(std)}`;
    lines.push(
      `  ${name.padEnd(wide)}  |${histogramLine(histogram)}|  ${range}, n ${count}${missing > 0 ? `, missing ${missing}` : ""}`,
    );
  }
  if (problemCount > 0) lines.push(`problems: ${problemCount}`, ...problems.map((problem) => `  ${problem}`));
  return lines;
}

function number(value: number | null): string {
  return value === null ? "none" : String(Number(value.toPrecision(4)));
}
