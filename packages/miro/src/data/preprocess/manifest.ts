/**
 * What is known of a shard's output: from which input and with which settings it was made, what it holds, what was left
 * out. It lies beside the output, says `writing` while that is made and `complete` afterwards, and decides what a
 * restart does.
 */
import { existsSync, rmSync, statSync } from "node:fs";
import { z } from "zod";
import { readJson, readText, writeFileAtomic } from "../../files/whole-files.js";
import { version } from "../../version.js";
import type { Skipped, SkipReason } from "./sources/raw-sample.js";

const counts = z.record(z.string(), z.number());
const manifestSchema = z.object({
  format: z.literal("miro-shard-manifest"),
  version: z.literal(1),
  program: z.string(),
  state: z.enum(["writing", "complete"]),
  stage: z.string(),
  /** Digest of names, sizes and times of the input's files, and of the scores where they are merged. */
  input: z.record(z.string(), z.string()),
  settings: z.record(z.string(), z.unknown()),
  /** The source, by its whole path; early versions did not keep it. */
  from: z.string().optional(),
  output: z.object({ file: z.string(), bytes: z.number(), sha256: z.string() }).nullable(),
  samples: z.object({ seen: z.number(), written: z.number(), skipped: counts }).nullable(),
  /** Further counts: where captions came from, how many texts were cut. */
  details: counts,
  /** Seconds by part of the work. */
  seconds: counts,
});

export type Manifest = z.output<typeof manifestSchema>;

/** A manifest before the work: what will be made of what. */
export type Plan = Pick<Manifest, "stage" | "input" | "settings" | "from">;

/** What a finished shard adds to its plan. */
export type Outcome = Pick<Manifest, "output" | "samples" | "details" | "seconds">;

/** Notes that a shard is begun. */
export function beginManifest(path: string, plan: Plan): void {
  write(path, { ...plan, state: "writing", output: null, samples: null, details: {}, seconds: {} });
}

/** Notes that a shard is complete. */
export function completeManifest(path: string, plan: Plan, outcome: Outcome): void {
  write(path, { ...plan, state: "complete", ...outcome });
}

function write(path: string, content: Omit<Manifest, "format" | "version" | "program">): void {
  const manifest: Manifest = {
    format: "miro-shard-manifest",
    version: 1,
    program: `miro-t2i ${version()}`,
    ...content,
  };
  writeFileAtomic(path, `${JSON.stringify(manifest, null, 2)}\n`, { overwrite: true });
}

/** Reads a manifest; null when there is none that this version understands. */
export function readManifest(path: string): Manifest | null {
  if (!existsSync(path)) return null;
  try {
    const parsed = manifestSchema.safeParse(readJson(path));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** What a restart does with a shard. */
export type Standing =
  | { kind: "missing" }
  | { kind: "complete"; manifest: Manifest }
  /** The input has changed, or the output is gone or not what was written. */
  | { kind: "outdated"; reason: string }
  /** Made from another source, with a shard of the same name. */
  | { kind: "elsewhere"; from: string }
  /** Made with other settings. */
  | { kind: "different"; settings: string[] }
  /** An output that no manifest describes. */
  | { kind: "foreign" };

/** How things stand with a shard whose output is a file of its own. */
export function standing(manifestPath: string, outputPath: string, plan: Plan): Standing {
  const manifest = readManifest(manifestPath);
  const size = statSync(outputPath, { throwIfNoEntry: false })?.size;
  if (manifest === null) return size === undefined ? { kind: "missing" } : { kind: "foreign" };
  if (manifest.state === "writing") return { kind: "missing" };
  const other = differences(manifest.settings, plan.settings);
  if (size === undefined) return { kind: "outdated", reason: "the output is gone" };
  if (size !== manifest.output?.bytes)
    return { kind: "outdated", reason: `the output has ${size} bytes, not ${manifest.output?.bytes}` };
  const from = otherSource(manifest, plan);
  if (from !== null) return { kind: "elsewhere", from };
  if (other.length > 0) return { kind: "different", settings: other };
  const input = differences(manifest.input, plan.input);
  if (input.length > 0) return { kind: "outdated", reason: `changed since: ${input.join(", ")}` };
  return { kind: "complete", manifest };
}

/** The source that something was made from, where that is another one: neither its files nor its path are those. */
export function otherSource({ input, from }: Manifest, plan: Plan): string | null {
  return from !== undefined && from !== plan.from && input.source !== plan.input.source ? from : null;
}

/** Names of the fields in which two plain objects differ. */
export function differences(a: Record<string, unknown>, b: Record<string, unknown>): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(
    (name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]),
  );
}

/** Counts by reason the samples that are left out as a whole. */
export function countReasons(skipped: readonly Skipped[]): Record<string, number> {
  const result: Partial<Record<SkipReason, number>> = {};
  for (const { reason, column } of skipped) if (column === undefined) result[reason] = (result[reason] ?? 0) + 1;
  return result;
}

/** Writes the report of what was left out, one JSON object a line; removes an old one when nothing was. */
export function writeReport(path: string, skipped: readonly Skipped[]): void {
  if (skipped.length === 0) rmSync(path, { force: true });
  else writeFileAtomic(path, skipped.map((entry) => `${JSON.stringify(entry)}\n`).join(""), { overwrite: true });
}

/** What a report lists; nothing when there is no report. */
export function readReport(path: string): Skipped[] {
  if (!existsSync(path)) return [];
  return readText(path)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Skipped);
}
