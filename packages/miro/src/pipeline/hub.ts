/**
 * Models by name: a folder on this machine, or a repository of the Hugging Face Hub.
 *
 * The cache has the layout of Python's `huggingface_hub`, so that both share their files:
 *
 *   HUB_CACHE/models--OWNER--NAME/refs/REVISION                 commit that the revision meant when last asked
 *                                 /blobs/HASH                   contents, by SHA-256 (large files) or git object id
 *                                 /snapshots/COMMIT/PATH        links to the blobs
 *
 * Respected: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` (or the stored login), `HF_ENDPOINT`, `HF_HUB_OFFLINE`. A download is
 * resumed where it broke off, retried, and compared with its hash before it gets its name.
 */
import { createHash, type Hash } from "node:crypto";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
} from "node:fs";
import { copyFile, rename, rm, symlink, truncate } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";

/** Options of {@link resolveModel}. */
export interface HubOptions {
  /** Branch, tag or commit, default `main`. */
  revision?: string | undefined;
  /** Cache folder, default as Python's. */
  cacheDir?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Reports downloads: bytes of the file so far and in all. */
  onDownload?: ((progress: DownloadProgress) => void) | undefined;
  /** Waits between attempts, in milliseconds; one entry for each retry. */
  retryDelaysMs?: readonly number[] | undefined;
}

/** How far a download is. */
export interface DownloadProgress {
  repo: string;
  file: string;
  bytes: number;
  totalBytes: number;
}

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

const RETRY_DELAYS_MS = [500, 2_000, 8_000];

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
    return { name, folder: name, files: listFolder(name), fetch: async () => {} };
  }
  if (!REPOSITORY.test(name) || name.startsWith(".") || existsSync(name)) {
    const what = existsSync(name) ? "a file" : "neither";
    throw new InvalidInputError(
      `${parameter}: expected a folder or a repository owner/name, received ${JSON.stringify(name)} (${what})`,
    );
  }
  return openRepository(name, parameter, options);
}

/** Files below a folder, two levels deep: a checkpoint, its parts, its variants. */
function listFolder(folder: string, depth = 2): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return [entry.name];
    return depth > 0 ? listFolder(path, depth - 1).map((file) => `${entry.name}/${file}`) : [];
  });
}

/** The Hub's address, without a slash at the end. */
export function hubEndpoint(): string {
  return (process.env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
}

/** Whether the Hub must not be asked. */
export function hubOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE || process.env.TRANSFORMERS_OFFLINE || "");
}

function hubHome(): string {
  return process.env.HF_HOME || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
}

/** The cache folder that Python's `huggingface_hub` uses. */
export function hubCache(): string {
  return process.env.HF_HUB_CACHE || process.env.HUGGINGFACE_HUB_CACHE || join(hubHome(), "hub");
}

/** The access token from the environment or from the stored login. */
function hubToken(): string | undefined {
  const given = process.env.HF_TOKEN || process.env.HUGGING_FACE_HUB_TOKEN;
  if (given) return given.trim();
  try {
    return readFileSync(process.env.HF_TOKEN_PATH || join(hubHome(), "token"), "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
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
      const { writeFileAtomic } = await import("./files.js");
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

interface Repository {
  name: string;
  parameter: string;
  revision: string;
  storage: string;
  options: HubOptions;
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
  const info = await hubCall(repository, () =>
    modelInfo({
      name: repository.name,
      revision: repository.revision,
      hubUrl: hubEndpoint(),
      fetch: hubFetch(repository.options),
      additionalFields: ["sha", "filePaths"],
    }),
  );
  const { sha, filePaths } = info as { sha?: string; filePaths?: string[] };
  if (!sha || !/^[0-9a-f]{40}$/.test(sha) || !Array.isArray(filePaths)) {
    throw new MiroError(`${repository.name}: ${hubEndpoint()} did not answer as the Hub does`);
  }
  const files = filePaths.filter((path) => typeof path === "string" && safePath(path));
  return { sha, files };
}

/** A relative path that stays below its folder, by the rules of every system. */
function safePath(path: string): boolean {
  return !/^[/\\]|^[A-Za-z]:|\\|\0/.test(path) && path !== "" && !path.split("/").includes("..");
}

async function download(repository: Repository, sha: string, folder: string, paths: readonly string[]): Promise<void> {
  const { pathsInfo } = await import("@huggingface/hub");
  const entries = await hubCall(repository, () =>
    pathsInfo({
      repo: { type: "model", name: repository.name },
      paths: [...paths],
      revision: sha,
      hubUrl: hubEndpoint(),
      fetch: hubFetch(repository.options),
    }),
  );
  for (const path of paths) {
    const entry = entries.find((candidate) => candidate.path === path && candidate.type === "file");
    if (!entry || !safePath(path)) throw new InvalidInputError(`${repository.name}: has no file ${path}`);
    const hash = entry.lfs ? entry.lfs.oid.replace(/^sha256:/, "") : entry.oid;
    if (!hash || !/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(hash)) {
      throw new MiroError(`${repository.name}: the Hub gives no hash for ${path}`);
    }
    const blob = join(repository.storage, "blobs", hash);
    if (!existsSync(blob)) await downloadBlob(repository, sha, path, blob, hash, entry.lfs?.size ?? entry.size);
    await link(blob, join(folder, path));
  }
}

/** Downloads one file: resumed after a broken connection, checked against its hash, named only when right. */
async function downloadBlob(
  repository: Repository,
  sha: string,
  path: string,
  blob: string,
  hash: string,
  size: number,
): Promise<void> {
  const { name, options } = repository;
  const url = `${hubEndpoint()}/${name}/resolve/${sha}/${path.split("/").map(encodeURIComponent).join("/")}`;
  const partial = `${blob}.incomplete`;
  const delays = options.retryDelaysMs ?? RETRY_DELAYS_MS;
  await writable(blob, async () => mkdirSync(dirname(blob), { recursive: true }));
  for (let attempt = 0; ; attempt++) {
    options.signal?.throwIfAborted();
    let have = statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
    if (have > size) {
      await truncate(partial, 0);
      have = 0;
    }
    try {
      if (have < size || size === 0) {
        const range: Record<string, string> = have > 0 ? { Range: `bytes=${have}-` } : {};
        const response = await hubCall(repository, () => hubFetch(options)(url, { headers: range }), path);
        if (!response.ok || !response.body) {
          await response.body?.cancel();
          throw httpError(repository, response.status, path);
        }
        const resumed = have > 0 && response.status === 206;
        let bytes = resumed ? have : 0;
        const body = Readable.fromWeb(response.body as ReadableStream);
        body.on("data", (part: Buffer) => {
          bytes += part.length;
          options.onDownload?.({ repo: name, file: path, bytes, totalBytes: size });
        });
        const sink = createWriteStream(partial, { flags: resumed ? "a" : "w" });
        const closed = new Promise<void>((resolve) => sink.once("close", () => resolve()));
        try {
          await pipeline(body, sink, options.signal ? { signal: options.signal } : {});
        } finally {
          await closed; // a write may be under way; the next attempt must see it
        }
      }
      const received = statSync(partial).size;
      if (received < size) throw new Error(`the connection ended at byte ${received} of ${size}`);
      if (received !== size || (await digest(partial, hash, received)) !== hash) {
        await rm(partial, { force: true });
        throw new Error(`the contents do not have the hash that the Hub states (${hash.slice(0, 12)}…)`);
      }
      await rename(partial, blob);
      return;
    } catch (error) {
      if (error instanceof MiroError || options.signal?.aborted) throw error;
      if ((error as NodeJS.ErrnoException).syscall === "write" || (error as NodeJS.ErrnoException).syscall === "open") {
        throw new MiroError(`${blob}: cannot be written: ${systemReason(error)}`, { cause: error });
      }
      const delay = delays[attempt];
      if (delay === undefined) {
        const kept = statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
        throw new MiroError(
          `${name}/${path}: download failed: ${networkReason(error)}; ${kept} of ${size} bytes are kept, run again to continue`,
          { cause: error },
        );
      }
      await pause(delay, options.signal);
    }
  }
}

/** SHA-256 for large files, the git object id (SHA-1 of `blob SIZE\0` and the contents) for small ones. */
async function digest(path: string, expected: string, size: number): Promise<string> {
  const hash: Hash = expected.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

/** A relative link, or a copy where the file system has no links. */
async function link(blob: string, path: string): Promise<void> {
  await writable(path, async () => {
    mkdirSync(dirname(path), { recursive: true });
    await rm(path, { force: true });
    try {
      await symlink(relative(dirname(path), blob), path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return; // another process was faster
      await copyFile(blob, `${path}.copy`);
      await rename(`${path}.copy`, path);
    }
  });
}

async function writable(path: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof MiroError) throw error;
    throw new MiroError(`${path}: cannot be written: ${systemReason(error)}`, { cause: error });
  }
}

/**
 * `fetch` with the token (which a redirect to another host drops), the signal, and another attempt when the Hub is busy
 * (429) or in trouble (5xx).
 */
function hubFetch({ signal, retryDelaysMs = RETRY_DELAYS_MS }: HubOptions): typeof fetch {
  return async (input, init = {}) => {
    const headers = new Headers(init.headers);
    const token = hubToken();
    if (token) headers.set("Authorization", `Bearer ${token}`);
    headers.set("User-Agent", "miro-t2i");
    for (let attempt = 0; ; attempt++) {
      const response = await fetch(input, { ...init, headers, ...(signal ? { signal } : {}) });
      const delay = retryDelaysMs[attempt];
      if ((response.status !== 429 && response.status < 500) || delay === undefined) return response;
      await response.body?.cancel();
      const asked = Number(response.headers.get("Retry-After"));
      await pause(asked > 0 ? Math.min(asked * 1000, 60_000) : delay, signal);
    }
  };
}

/** Runs a request; the Hub's refusals become messages that say what to do. */
async function hubCall<T>(repository: Repository, call: () => Promise<T>, path?: string): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const status = (error as { statusCode?: number }).statusCode;
    if (status !== undefined) throw httpError(repository, status, path);
    throw error;
  }
}

function httpError({ name, parameter, revision }: Repository, status: number, path?: string): MiroError {
  if (status === 401 || status === 403) {
    const token = hubToken() ? "the token does not allow it" : "set HF_TOKEN, or run `hf auth login`";
    return new InvalidInputError(
      `${parameter}: the Hub refuses access to ${name} (${status}): it is private, gated, or does not exist; ${token}`,
    );
  }
  if (status === 404) {
    const what = path ? `no file ${path} in ${name}` : `no repository ${name} with revision ${revision}`;
    return new InvalidInputError(`${parameter}: the Hub has ${what}`);
  }
  return new MiroError(
    `${name}: the Hub answers with HTTP status ${status}${status === 429 ? " (too many requests); wait a little" : ""}`,
  );
}

/** The innermost cause of a failed request, in words. */
function networkReason(error: unknown): string {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  return systemReason(inner);
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
