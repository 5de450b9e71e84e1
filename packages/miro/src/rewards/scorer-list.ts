/** What is known of the scorers before one is loaded: where from, how large, on which terms, what is cached. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { checkObject } from "../arguments.js";
import { readJson } from "../files/json-file.js";
import { hubCache } from "../pipeline/loading/hub-environment.js";
import { isFetched } from "../pipeline/loading/known-file.js";
import { scorerBytes } from "./memory.js";
import { scorerSpecs } from "./registry.js";
import type { ScorerLicense, ScorerRepository, ScorerSpec } from "./scorer.js";

/** Where a scorer's weights come from, and whether they are in the cache. */
export interface ListedRepository {
  /** `owner/name` on the Hub, or the address of a file. */
  name: string;
  /** Of the download. */
  sizeBytes: number;
  cached: boolean;
}

/** A scorer in a list. */
export interface ListedScorer {
  key: string;
  name: string;
  description: string;
  /** Whether captions matter. */
  usesText: boolean;
  /** The terms of the published weights; null where there are none. */
  license: ScorerLicense | null;
  repositories: ListedRepository[];
  /** Bytes that weights and a batch take, by dtype; null where that is little. */
  memoryBytes: { float32: number; bfloat16: number } | null;
  /** Whether it is there without a download: all its files are in the cache, or it needs none. */
  ready: boolean;
}

/**
 * All scorers, in the order in which they were registered. The Hub is not asked.
 * @param cacheDir default: as Python's `huggingface_hub`
 */
export function listScorers(options: { cacheDir?: string | undefined } = {}): ListedScorer[] {
  checkObject("options", options, "{ cacheDir }");
  const { cacheDir } = options;
  return scorerSpecs().map((spec) => {
    const { key, name, description, usesText, license = null, memory } = spec;
    const repositories = (spec.repositories ?? []).map(
      (repository): ListedRepository => ({
        name: repository.name,
        sizeBytes: repository.sizeBytes,
        cached: isCached(repository, cacheDir),
      }),
    );
    const memoryBytes = memory ? { float32: bytesIn(spec, "float32"), bfloat16: bytesIn(spec, "bfloat16") } : null;
    const ready = repositories.every(({ cached }) => cached);
    return { key, name, description, usesText, license, repositories, memoryBytes, ready };
  });
}

function bytesIn(spec: ScorerSpec, dtype: "float32" | "bfloat16"): number {
  return scorerBytes([spec], { dtype });
}

function isCached({ name, weights, sizeBytes, sha256 }: ScorerRepository, cacheDir: string | undefined): boolean {
  if (sha256 !== undefined) return isFetched({ name: weights[0]!, url: name, sizeBytes, sha256 }, cacheDir);
  const snapshots = join(cacheDir ?? hubCache(), `models--${name.replace("/", "--")}`, "snapshots");
  return foldersIn(snapshots).some((commit) => holdsWeights(join(snapshots, commit), weights));
}

function foldersIn(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function holdsWeights(folder: string, names: readonly string[]): boolean {
  return names.some((name) => {
    const path = join(folder, name);
    if (!existsSync(path)) return false;
    if (!name.endsWith(".index.json")) return true;
    try {
      const { weight_map = {} } = readJson(path) as { weight_map?: Record<string, string> };
      const parts = Object.values(weight_map);
      return parts.length > 0 && parts.every((part) => existsSync(join(folder, part)));
    } catch {
      return false; // An index that cannot be read is fetched again.
    }
  });
}
