/**
 * Models by name: a folder on this machine, or a repository of the Hugging Face Hub.
 *
 * The Hub is asked what a revision means (hub-describe.ts), its files are fetched (hub-download.ts) into the cache that
 * Python's `huggingface_hub` uses (hub-cache.ts), as its environment variables say (hub-environment.ts).
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { InvalidInputError, invalid, MiroError } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { about, type Message, message, option } from "../../message.js";
import { checkLinks, knownCommit, listFolder, noteCommit } from "./hub-cache.js";
import { describeRepository } from "./hub-describe.js";
import { download } from "./hub-download.js";
import { hubCache, hubOffline } from "./hub-environment.js";
import { cacheMayHelp, retryDelays, Unreachable } from "./hub-http.js";
import { folderHint, type HubOptions, type Repository } from "./hub-repository.js";

/** A place that holds model files: a folder, or a repository that is fetched into the cache as needed. */
export interface ModelSource {
  /** As the user wrote it. */
  name: string;
  /** Folder of the files on this machine; complete for what has been fetched. */
  folder: string;
  /** Paths of all files that can be had, with forward slashes. */
  files: readonly string[];
  /** Why `files` may lack some that the repository has: it is what the cache holds, and the Hub could not be asked. */
  incomplete?: string | undefined;
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
  if (isFolder(name)) {
    refuseRevision(name, options.revision);
    return { name, folder: name, files: listFolder(name), fetch: async (paths) => checkLinks(name, paths, parameter) };
  }
  if (!isRepositoryName(name) || existsSync(name)) {
    const ofFile = name.endsWith(".ckpt") ? "miro convert makes a folder of it" : `its folder is ${dirname(name)}`;
    const what = existsSync(name) ? `(a file); ${ofFile}` : message`(neither)${addressHint(name) ?? folderHint(name)}`;
    throw invalid(parameter, "a folder or a repository owner/name", message`${JSON.stringify(name)} ${what}`);
  }
  return openRepository(name, parameter, options);
}

/** How a page of the Hub begins, as browsers and other tools write it. */
const PAGE = /^(https?:\/\/(huggingface\.co|hf\.co)|hf:\/)\//;

/** How the repository is written here whose page was given, or its name with `@` and a revision; else null. */
function addressHint(text: string): Message | null {
  const isPage = PAGE.test(text);
  const [place = "", behind] = text.replace(PAGE, "").split("@", 2);
  const [owner, repository = "", kind, branch] = place.split(/[?#]/)[0]!.split("/");
  const name = `${owner}/${repository.replace(/\.git$/, "")}`;
  if (!isRepositoryName(name) || (!isPage && (behind === undefined || kind !== undefined))) return null;
  const revision = behind ?? (kind === "tree" && branch !== "main" ? branch : undefined);
  return revision === undefined
    ? message`; write it as ${name}`
    : message`; write it as ${name}, with ${option("revision", revision)}`;
}

/** A folder has no revisions. @throws InvalidInputError where one is asked for */
export function refuseRevision(folder: string, revision: string | undefined): void {
  if (revision !== undefined)
    throw new InvalidInputError(
      message`${about("revision")}: ${folder} is a folder on this machine, which has no revision ${JSON.stringify(revision)}`,
    );
}

/** Whether a name may be that of a repository. */
export function isRepositoryName(name: string): boolean {
  return REPOSITORY.test(name) && !name.startsWith(".");
}

/** A repository as far as the cache has it, without asking the Hub; null where the cache has nothing of it. */
export function cachedModel(name: string, parameter: string, options: HubOptions = {}): Promise<ModelSource | null> {
  const storage = storageOf(name, options);
  return cached({ name, parameter, revision: options.revision ?? "main", storage, options }, "it was not asked");
}

function storageOf(name: string, { cacheDir }: HubOptions): string {
  return join(cacheDir ?? hubCache(), `models--${name.replace("/", "--")}`);
}

async function openRepository(name: string, parameter: string, options: HubOptions): Promise<ModelSource> {
  const revision = options.revision ?? "main";
  if (!/^[\w.-]+(\/[\w.-]+)*$/.test(revision) || revision.split("/").includes(".."))
    throw invalid("revision", "a branch, tag or commit", revision);
  const storage = storageOf(name, options);
  const repository: Repository = { name, parameter, revision, storage, options };
  const offline = hubOffline();
  if (offline) return (await cached(repository, `${offline} is set`)) ?? nothingCached(repository, `${offline} is set`);
  // What the cache has is not waited for, as in Python: only without it trouble that passes is worth another attempt.
  const hasCopy = (await cached(repository, "")) !== null;
  let info: { sha: string; files: string[] };
  try {
    info = await describeRepository(repository, hasCopy ? [] : retryDelays(repository));
  } catch (error) {
    if (!cacheMayHelp(error)) throw error;
    const copy = await cached(repository, error.message);
    if (copy !== null) return copy;
    throw error instanceof Unreachable ? nothingCached(repository, error.message) : error;
  }
  const folder = join(storage, "snapshots", info.sha);
  return {
    name,
    folder,
    files: info.files,
    fetch: async (paths) => {
      const absent = paths.filter((path) => !existsSync(join(folder, path)));
      if (absent.length > 0) await download(repository, info.sha, folder, absent);
      await noteCommit(storage, revision, info.sha);
    },
  };
}

/** What an earlier download left, or null. */
async function cached({ name, storage, revision }: Repository, why: string): Promise<ModelSource | null> {
  const commit = (await knownCommit(storage, revision)) ?? revision;
  const folder = join(storage, "snapshots", commit);
  if (!/^[\w.-]+$/.test(commit) || !isFolder(folder)) return null;
  return {
    name,
    folder,
    files: listFolder(folder),
    incomplete: `the Hub cannot be asked: ${why}`,
    fetch: async (paths) => {
      const absent = paths.filter((path) => !existsSync(join(folder, path)));
      if (absent.length > 0) {
        throw new MiroError(
          `${name}: ${absent.join(", ")} ${absent.length > 1 ? "are" : "is"} not in the cache (${folder}), and the Hub cannot be asked: ${why}`,
        );
      }
    },
  };
}

function nothingCached({ name, storage }: Repository, why: string): never {
  throw new MiroError(
    `${name}: ${why}, and the cache has no copy (${storage}); give a folder, or go online once${folderHint(name)}`,
  );
}
