/**
 * The files in which bin edges are kept: name and content are the published ones, so that either program reads the
 * other's.
 *
 *   coherence_bins_64_bins_aesthetic_score-clip_score_synthetic_prob_0.5.json      {"clip_score": [0.0, 0.21…, 1.0], …}
 *
 * Beside it lies `….identity.json`, which says what the edges were computed from; a file whose identity differs is not
 * used. A file without one comes from somewhere else and is taken as it is.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MiroError } from "../../errors.js";
import { pythonFloat } from "../../files/python-number.js";
import { sha256 } from "../../files/sha256.js";
import { readJson, readText, writeFileAtomic } from "../../files/whole-files.js";
import { version } from "../../version.js";
import type { BinOptions } from "./bins.js";
import { parseBinOptions } from "./bins.js";
import type { ScoreMode } from "./caption-source.js";

/** What edges depend on. */
export interface BinIdentity {
  scores: readonly string[];
  syntheticProb: number;
  scoreMode: ScoreMode;
  bins: BinOptions;
  maxSamples: number;
  seed: number;
  /** The shards of all roots, in order. */
  shards: readonly { name: string; samples: number; sizeBytes: number; mtimeUs: number }[];
}

/** Edges by score, ascending, float32. */
export type BinEdges = Map<string, Float32Array>;

/** The published name of the file. */
export function binCacheName({
  scores,
  syntheticProb,
  bins,
}: Pick<BinIdentity, "scores" | "syntheticProb" | "bins">): string {
  const { numBins, strategy, refineLastNBins, refineFactor } = parseBinOptions(bins);
  const how = {
    quantile: "",
    uniform: "_strategy_uniform",
    refined_quantile: `_strategy_refined_quantile_refine_${refineLastNBins}_factor_${refineFactor}`,
  }[strategy];
  return `coherence_bins_${numBins}_bins_${[...scores].sort().join("-")}${how}_synthetic_prob_${pythonFloat(syntheticProb)}.json`;
}

/**
 * Reads kept edges.
 * @param folder the first root
 * @returns null where there is no file, or it belongs to other data or options; `foreign` where nothing says what it
 *   belongs to
 * @throws MiroError naming the file when its content is not what such a file holds
 */
export function readBinCache(
  folder: string,
  identity: BinIdentity,
): { edges: BinEdges; file: string; foreign: boolean } | null {
  const path = join(folder, binCacheName(identity));
  if (!existsSync(path)) return null;
  const beside = identityPath(path);
  const foreign = !existsSync(beside);
  if (!foreign) {
    const about = readJson(beside) as { identity?: unknown; sha256?: unknown } | null;
    if (about?.identity !== digest(identity) || about.sha256 !== sha256(readText(path))) return null;
  }
  const json = readJson(path);
  const fail = (what: string): never => {
    throw new MiroError(`${path}: ${what}; remove the file, it will be made anew`);
  };
  if (typeof json !== "object" || json === null || Array.isArray(json))
    return fail("expected an object of arrays of edges");
  const names = Object.keys(json);
  if (names.length !== identity.scores.length || !identity.scores.every((name) => names.includes(name))) return null;
  const edges: BinEdges = new Map();
  for (const name of identity.scores) {
    const list = (json as Record<string, unknown>)[name];
    if (!Array.isArray(list) || list.length < 2 || !list.every((edge) => Number.isFinite(edge)))
      return fail(`${name}: expected at least two finite edges`);
    const values = Float32Array.from(list as number[]);
    if (values.some((edge, i) => i > 0 && !(edge > values[i - 1]!))) return fail(`${name}: the edges do not ascend`);
    edges.set(name, values);
  }
  return { edges, file: path, foreign };
}

/** Keeps edges and what they belong to. Scores are written in the order of the identity. */
export function writeBinCache(folder: string, identity: BinIdentity, edges: BinEdges): string {
  const path = join(folder, binCacheName(identity));
  const members = identity.scores
    .filter((name) => edges.has(name))
    .map((name) => `${JSON.stringify(name)}: [${[...edges.get(name)!].map(pythonFloat).join(", ")}]`);
  const content = `{${members.join(", ")}}`;
  const { shards, bins, ...rest } = identity;
  const about = {
    identity: digest(identity),
    sha256: sha256(content),
    version: version(),
    ...rest,
    ...parseBinOptions(bins),
    shards: shards.length,
    samples: shards.reduce((sum, { samples }) => sum + samples, 0),
  };
  // The identity first: until its edges are there, it names a content that no file has.
  writeFileAtomic(identityPath(path), `${JSON.stringify(about, null, 2)}\n`, { overwrite: true });
  writeFileAtomic(path, content, { overwrite: true });
  return path;
}

function identityPath(path: string): string {
  return path.replace(/\.json$/, ".identity.json");
}

/** Scores count in any order, as in the name of the file: the edges of one do not depend on the others. */
function digest({ scores, bins, ...rest }: BinIdentity): string {
  return sha256(JSON.stringify({ scores: [...scores].sort(), ...rest, bins: parseBinOptions(bins) }));
}
