/**
 * Models by name: a folder on this machine, or a repository of the Hugging Face Hub.
 *
 * The Hub is asked what a revision means (hub-http.ts), its files are fetched (hub-download.ts) into the cache that Python's
 * `huggingface_hub` uses (hub-cache.ts), as its environment variables say (hub-environment.ts).
 */
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { InvalidInputError, MiroError } from "../../errors.js";
import { checkLinks, listFolder, safePath, writable } from "./hub-cache.js";
import { download } from "./hub-download.js";
import { hubCache, hubEndpoint, hubOffline } from "./hub-environment.js";
import { hubFetch, networkReason } from "./hub-http.js";
import type { HubOptions, Repository } from "./hub-repository.js";

/** A place that holds model files: a folder, or a repository that is fetched into the cache as needed. */
export interface ModelSource {
  /** As the user wrote it. */
  name: string;
  /** Folder of the files on this machine; complete for what has been fetched. */
  folder: string;
  /** Paths of all files that can be had, with forward slashes. */
  files: readonly string[];
  /** Makes files present. */
  fetch(paths: readonly string[]): Promise<void>;
}

const REPOSITORY = /^[\w.-]+\/[\w.-]+$/;

/**
 * Finds a model.
 *
 * @param name an existing folder, or `owner/name` on the Hub
 * @param parameter how the caller calls it, for errors
 * @throws InvalidInputError when it is neither, or the Hub has no such repository or revision; MiroError when the Hub
 *   cannot be reached and the cache does not help
 */
export async function resolveModel(name: string, parameter: string, options: HubOptions = {}): Promise<ModelSource> {
  if (statSync(name, { throwIfNoEntry: false })?.isDirectory()) {
    return { name, folder: name, files: listFolder(name), fetch: async (paths) => checkLinks(name, paths, parameter) };
  }
  if (!REPOSITORY.test(name) || name.startsWith(".") || existsSync(name)) {
    const what = existsSync(name) ? "a file" : "neither";
    throw new InvalidInputError(
      `${parameter}: expected a folder or a repository owner/name, received ${JSON.stringify(name)} (${what})`,
    );
  }
  return openRepository(name, parameter, options);
}

async function openRepository(name: string, parameter: string, options: HubOptions): Promise<ModelSource> {
  const revision = options.revision ?? "main";
  if (!/^[\w.-]+(\/[\w.-]+)*$/.test(revision) || revision.split("/").includes("..")) {
    throw new InvalidInputError(`revision: expected a branch, tag or commit, received ${JSON.stringify(revision)}`);
  }
  const storage = join(options.cacheDir ?? hubCache(), `models--${name.replace("/", "--")}`);
  const repository = { name, parameter, revision, storage, options };
  if (hubOffline()) return cached(repository) ?? offlineError(repository, "HF_HUB_OFFLINE is set");
  let info: { sha: string; files: string[] };
  try {
    info = await describeRepository(repository);
  } catch (error) {
    // An answer of the Hub is final; without one, an earlier download will do, as in Python.
    if (error instanceof MiroError || options.signal?.aborted) throw error;
    return (
      cached(repository) ?? offlineError(repository, `${hubEndpoint()} cannot be reached (${networkReason(error)})`)
    );
  }
  if (revision !== info.sha) {
    const ref = join(storage, "refs", revision);
    await writable(ref, async () => {
      mkdirSync(dirname(ref), { recursive: true });
      const { writeFileAtomic } = await import("../../files/files.js");
      writeFileAtomic(ref, info.sha, { overwrite: true });
    });
  }
  const folder = join(storage, "snapshots", info.sha);
  return {
    name,
    folder,
    files: info.files,
    fetch: async (paths) => {
      const absent = paths.filter((path) => !existsSync(join(folder, path)));
      if (absent.length > 0) await download(repository, info.sha, folder, absent);
    },
  };
}

/** What an earlier download left, or null. */
function cached({ name, storage, revision }: Repository): ModelSource | null {
  let commit = revision;
  try {
    commit = readFileSync(join(storage, "refs", revision), "utf8").trim();
  } catch {
    // The revision is a commit, or was never fetched.
  }
  const folder = join(storage, "snapshots", commit);
  if (!/^[\w.-]+$/.test(commit) || !existsSync(folder)) return null;
  return {
    name,
    folder,
    files: listFolder(folder),
    fetch: async (paths) => {
      const absent = paths.filter((path) => !existsSync(join(folder, path)));
      if (absent.length > 0) {
        throw new MiroError(
          `${name}: ${absent.join(", ")} ${absent.length > 1 ? "are" : "is"} not in the cache (${folder}) and the Hub cannot be asked`,
        );
      }
    },
  };
}

function offlineError({ name, storage }: Repository, why: string): never {
  throw new MiroError(`${name}: ${why}, and the cache has no copy (${storage}); give a folder, or go online once`);
}

/** The commit of a revision and the names of its files. */
async function describeRepository(repository: Repository): Promise<{ sha: string; files: string[] }> {
  const { modelInfo } = await import("@huggingface/hub");
  const info = await modelInfo({
    name: repository.name,
    revision: repository.revision,
    hubUrl: hubEndpoint(),
    fetch: hubFetch(repository),
    additionalFields: ["sha", "filePaths"],
  });
  const { sha, filePaths } = info as { sha?: string; filePaths?: string[] };
  if (!sha || !/^[0-9a-f]{40}$/.test(sha) || !Array.isArray(filePaths)) throw notTheHub(repository);
  const files = filePaths.filter((path) => typeof path === "string" && safePath(path));
  return { sha, files };
}

function notTheHub({ name }: Repository): MiroError {
  return new MiroError(`${name}: ${hubEndpoint()} did not answer as the Hub does; check HF_ENDPOINT and the proxy`);
}
