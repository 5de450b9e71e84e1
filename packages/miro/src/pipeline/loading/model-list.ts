/** What can be loaded on this machine: the bundled model, the published ones, and what the cache of downloads holds. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { invalid } from "../../errors.js";
import { freeBytes } from "../../files/free-space.js";
import { isFolder } from "../../files/make-folder.js";
import { BUNDLED_MODEL, bundledModel } from "./bundled.js";
import { missingFiles } from "./checkpoint.js";
import { hubCache } from "./hub-environment.js";
import { readReleaseConfig } from "./release-config.js";
import { RELEASES, type Release } from "./releases.js";

/** One commit of a repository in the cache. */
export interface CachedRevision {
  commit: string;
  /** Branches and tags that meant it when they were last asked for. */
  refs: string[];
  files: number;
  sizeBytes: number;
  /** Sub-folders that hold a whole checkpoint, "" for the root. */
  checkpoints: string[];
}

/** A repository in the cache. */
export interface CachedRepository {
  repository: string;
  folder: string;
  revisions: CachedRevision[];
  /** Of its blobs, each once. */
  sizeBytes: number;
  /** Of downloads that were broken off and will be continued. */
  incompleteBytes: number;
  /** When one of its files was last read or written, as far as the file system keeps that (ISO 8601). */
  lastUsed: string | null;
}

/** A published checkpoint, and whether all its files are in the cache. */
export interface ListedRelease extends Release {
  cached: boolean;
}

/** What {@link listModels} finds. */
export interface ModelList {
  /** The model that comes with the package, and the rewards it was trained on; null where it is not in this copy. */
  bundled: { name: string; folder: string; rewards: readonly string[] } | null;
  /** The published checkpoints, in the cache or not. */
  published: ListedRelease[];
  /** The cache of downloads: its repositories, their size, and what is free on its disk. */
  cache: { folder: string; repositories: CachedRepository[]; sizeBytes: number; freeBytes: number | null };
}

/**
 * Lists models without asking the Hub.
 * @param cacheDir default: as Python's `huggingface_hub`
 *
 * @example
 * ```ts
 * import { listModels } from "miro-t2i";
 *
 * for (const { repository, variant } of listModels().published) console.log(repository, variant ?? "");
 * ```
 */
export function listModels(options: { cacheDir?: string | undefined } = {}): ModelList {
  if (typeof options !== "object" || options === null) throw invalid("options", "an object of options", options);
  const { cacheDir = hubCache() } = options;
  if (typeof cacheDir !== "string") throw invalid("cacheDir", "a folder", cacheDir);
  const repositories = entriesOf(cacheDir)
    .filter((name) => name.startsWith("models--"))
    .map((name) => scan(join(cacheDir, name), name.slice("models--".length).split("--").join("/")))
    .filter((found) => found !== null)
    .sort((a, b) => a.repository.localeCompare(b.repository));
  const cached = new Set(
    repositories.flatMap(({ repository, revisions }) =>
      revisions.flatMap(({ checkpoints }) => checkpoints.map((folder) => `${repository} ${folder}`)),
    ),
  );
  const folder = bundledModel();
  return {
    bundled: folder === null ? null : { name: BUNDLED_MODEL, folder, rewards: readReleaseConfig(folder).coherenceKeys },
    published: RELEASES.map((release) => ({
      ...release,
      cached: cached.has(`${release.repository} ${release.variant ?? ""}`),
    })),
    cache: {
      folder: cacheDir,
      repositories,
      sizeBytes: repositories.reduce((sum, { sizeBytes, incompleteBytes }) => sum + sizeBytes + incompleteBytes, 0),
      freeBytes: freeBytes(cacheDir),
    },
  };
}

/** One repository's folder; null when it is not one. */
function scan(folder: string, repository: string): CachedRepository | null {
  if (!isFolder(folder)) return null;
  const blobs = entriesOf(join(folder, "blobs")).map((name) => ({ name, stat: statOf(join(folder, "blobs", name)) }));
  const sizeOf = (incomplete: boolean) =>
    blobs.reduce(
      (sum, { name, stat }) => sum + (name.endsWith(".incomplete") === incomplete ? (stat?.size ?? 0) : 0),
      0,
    );
  const used = Math.max(0, ...blobs.map(({ stat }) => Math.max(stat?.atimeMs ?? 0, stat?.mtimeMs ?? 0)));
  const refs = filesBelow(join(folder, "refs")).map((name) => [name, readRef(join(folder, "refs", name))] as const);
  const revisions = entriesOf(join(folder, "snapshots")).map((commit): CachedRevision => {
    const files = filesBelow(join(folder, "snapshots", commit));
    const present = new Set(files);
    return {
      commit,
      refs: refs.filter(([, meant]) => meant === commit).map(([name]) => name),
      files: files.length,
      sizeBytes: files.reduce((sum, file) => sum + (statOf(join(folder, "snapshots", commit, file))?.size ?? 0), 0),
      checkpoints: files
        .filter((file) => file === "config.json" || file.endsWith("/config.json"))
        .map((file) => file.slice(0, -"config.json".length))
        .filter((prefix) => missingFiles((name) => present.has(prefix + name)).length === 0)
        .map((prefix) => prefix.replace(/\/$/, "")),
    };
  });
  return {
    repository,
    folder,
    revisions,
    sizeBytes: sizeOf(false),
    incompleteBytes: sizeOf(true),
    lastUsed: used > 0 ? new Date(used).toISOString() : null,
  };
}

/** Paths of the files below a folder, with forward slashes; a link counts when its target is there. */
function filesBelow(folder: string, depth = 4): string[] {
  return entriesOf(folder).flatMap((name) => {
    const stat = statOf(join(folder, name));
    if (stat?.isFile()) return [name];
    if (!stat?.isDirectory() || depth === 0) return [];
    return filesBelow(join(folder, name), depth - 1).map((file) => `${name}/${file}`);
  });
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function statOf(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function readRef(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
