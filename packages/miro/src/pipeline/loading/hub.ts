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
 * resumed where it broke off, retried, and compared with its hash before it gets its name (see partial-file.ts). Files that
 * the Hub keeps in Xet storage come by the same addresses as others: it bridges them, and their SHA-256 is that of the contents.
 */
import { createHash, type Hash } from "node:crypto";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statfsSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { copyFile, rename, rm, symlink, truncate } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { PartialFile } from "./partial-file.js";

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

/** How far a download is. Files that are fetched together are counted together. */
export interface DownloadProgress {
  repo: string;
  file: string;
  /** Of the file. */
  bytes: number;
  totalBytes: number;
  /** Of all files that are fetched together. */
  allBytes: number;
  allTotalBytes: number;
  /** The file's number, from 1, and how many there are. */
  fileNumber: number;
  fileCount: number;
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

/** Files below a folder, two levels deep: a checkpoint, its parts, its variants. */
function listFolder(folder: string, depth = 2): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isSymbolicLink() && !existsSync(path)) return []; // it leads nowhere, or in a circle
    if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return [entry.name];
    return depth > 0 ? listFolder(path, depth - 1).map((file) => `${entry.name}/${file}`) : [];
  });
}

/**
 * Refuses links that lead out of a model's folder: a folder from elsewhere must not choose which of this machine's files are
 * read. In a snapshot of the cache, links lead to its blobs.
 */
function checkLinks(folder: string, paths: readonly string[], parameter: string): void {
  const inside = realpathSync(folder);
  const cache = /^(.*)[/\\]models--[^/\\]+[/\\]snapshots[/\\]/.exec(inside)?.[1];
  const below = (path: string, root: string) => path.startsWith(root.endsWith(sep) ? root : root + sep);
  for (const path of paths) {
    const file = join(folder, path);
    if (!existsSync(file)) continue; // whoever reads it says so
    const target = realpathSync(file);
    if (below(target, inside) || (cache !== undefined && below(target, cache))) continue;
    throw new InvalidInputError(
      `${parameter}: ${file} is a link out of the folder, to ${target}; copy the file there, or name the folder that has it`,
    );
  }
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
      const { writeFileAtomic } = await import("../files.js");
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

/** A relative path that stays below its folder, by the rules of every system. */
function safePath(path: string): boolean {
  return !/^[/\\]|^[A-Za-z]:|\\|\0/.test(path) && path !== "" && !path.split("/").includes("..");
}

/** A file to fetch: what the Hub says about it. */
interface RemoteFile {
  path: string;
  hash: string;
  sizeBytes: number;
  blob: string;
}

async function download(repository: Repository, sha: string, folder: string, paths: readonly string[]): Promise<void> {
  const { pathsInfo } = await import("@huggingface/hub");
  const entries = await pathsInfo({
    repo: { type: "model", name: repository.name },
    paths: [...paths],
    revision: sha,
    hubUrl: hubEndpoint(),
    fetch: hubFetch(repository),
  });
  const files = paths.map((path): RemoteFile => {
    const entry = entries.find((candidate) => candidate.path === path && candidate.type === "file");
    if (!entry || !safePath(path)) throw new InvalidInputError(`${repository.name}: has no file ${path}`);
    const hash = entry.lfs ? entry.lfs.oid.replace(/^sha256:/, "") : entry.oid;
    const sizeBytes = entry.lfs?.size ?? entry.size;
    if (!hash || !/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(hash) || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
      throw new MiroError(`${repository.name}: the Hub gives no hash and size for ${path}`);
    }
    return { path, hash, sizeBytes, blob: join(repository.storage, "blobs", hash) };
  });
  const absent = files.filter(({ blob }) => !existsSync(blob));
  const allTotalBytes = absent.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (absent.length > 0) {
    await writable(absent[0]!.blob, async () => mkdirSync(join(repository.storage, "blobs"), { recursive: true }));
    tagCache(dirname(repository.storage));
    checkSpace(repository, allTotalBytes, absent);
  }
  let before = 0;
  for (const [i, file] of absent.entries()) {
    const report = (bytes: number) =>
      repository.options.onDownload?.({
        repo: repository.name,
        file: file.path,
        bytes,
        totalBytes: file.sizeBytes,
        allBytes: before + bytes,
        allTotalBytes,
        fileNumber: i + 1,
        fileCount: absent.length,
      });
    await downloadBlob(repository, sha, file, report);
    before += file.sizeBytes;
  }
  for (const { blob, path } of files) await link(blob, join(folder, path));
}

/** What an earlier attempt has already counts as there. */
function checkSpace({ name, storage }: Repository, neededBytes: number, files: readonly RemoteFile[]): void {
  const kept = files.reduce((sum, { blob }) => sum + PartialFile.keptBytes(blob), 0);
  const { bavail, bsize } = statfsSync(storage);
  if (neededBytes - kept <= bavail * bsize) return;
  const gb = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  throw new MiroError(
    `${name}: ${gb(neededBytes - kept)} are to be downloaded, ${gb(bavail * bsize)} are free in ${storage}; free some, or set HF_HUB_CACHE to a larger disk`,
  );
}

/** Tells backup programs, as Python does, that the cache need not be kept (https://bford.info/cachedir/). */
function tagCache(cache: string): void {
  const text = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by huggingface_hub.
# For information about cache directory tags, see:
#\thttps://bford.info/cachedir/
`;
  try {
    writeFileSync(join(cache, "CACHEDIR.TAG"), text, { flag: "wx" });
  } catch {
    // There already, or not to be: nothing depends on it.
  }
}

/** Downloads one file: resumed after a broken connection, checked against its hash, named only when right. */
async function downloadBlob(
  repository: Repository,
  sha: string,
  { path, hash, sizeBytes: size, blob }: RemoteFile,
  report: (bytes: number) => void,
): Promise<void> {
  const { name, options } = repository;
  const url = `${hubEndpoint()}/${name}/resolve/${sha}/${path.split("/").map(encodeURIComponent).join("/")}`;
  const delays = options.retryDelaysMs ?? RETRY_DELAYS_MS;
  const partial = await PartialFile.claim(blob, { report, signal: options.signal });
  if (partial === null) return; // another process brought it
  try {
    for (let attempt = 0; ; attempt++) {
      options.signal?.throwIfAborted();
      try {
        await receive(repository, url, path, partial, size, report);
        const received = partial.sizeBytes();
        if (received < size) throw new Error(`the connection ended at byte ${received} of ${size}`);
        if (received > size) throw new Damaged(`more than the ${size} bytes arrived that the Hub states`);
        if ((await digest(partial.path, hash, received)) !== hash) {
          throw new Damaged(`the contents do not have the hash that the Hub states (${hash.slice(0, 12)}…)`);
        }
        await rename(partial.path, blob);
        return;
      } catch (error) {
        if (error instanceof Damaged) await truncate(partial.path, 0);
        if (error instanceof MiroError || options.signal?.aborted) throw error;
        const { syscall } = error as NodeJS.ErrnoException;
        if (syscall === "write" || syscall === "open" || syscall === "rename") {
          throw new MiroError(`${blob}: cannot be written: ${systemReason(error)}`, { cause: error });
        }
        const delay = delays[attempt];
        if (delay === undefined) {
          throw new MiroError(
            `${name}/${path}: download failed: ${networkReason(error)}; ${partial.sizeBytes()} of ${size} bytes are kept, run again to continue`,
            { cause: error },
          );
        }
        await pause(delay, options.signal);
      }
    }
  } finally {
    partial.park();
  }
}

/** What arrived is wrong, and nothing of it can be kept. */
class Damaged extends Error {}

/** Lets a file grow by what the Hub still has of it. */
async function receive(
  repository: Repository,
  url: string,
  path: string,
  partial: PartialFile,
  size: number,
  report: (bytes: number) => void,
): Promise<void> {
  const { signal } = repository.options;
  let have = partial.sizeBytes();
  if (have > size) {
    await truncate(partial.path, 0);
    have = 0;
  }
  if (have === size) return;
  const range: Record<string, string> = have > 0 ? { Range: `bytes=${have}-` } : {};
  const response = await hubFetch(repository, path)(url, { headers: { ...range, "Accept-Encoding": "identity" } });
  const body = response.body;
  if (response.status === 416 || (have > 0 && response.status === 206 && startOf(response) !== have)) {
    await body?.cancel();
    throw new Damaged("the server does not continue where it was asked to");
  }
  if (!response.ok || body === null) {
    await body?.cancel();
    throw httpError(repository, response, path);
  }
  // A server that does not know ranges sends everything again.
  const resumed = have > 0 && response.status === 206;
  let bytes = resumed ? have : 0;
  const stream = Readable.fromWeb(body as ReadableStream);
  stream.on("data", (part: Buffer) => {
    bytes += part.length;
    if (bytes > size) stream.destroy(new Damaged(`more than the ${size} bytes arrive that the Hub states`));
    else report(bytes);
  });
  const sink = createWriteStream(partial.path, { flags: resumed ? "a" : "w" });
  const closed = new Promise<void>((resolve) => sink.once("close", () => resolve()));
  try {
    await pipeline(stream, sink, signal ? { signal } : {});
  } finally {
    await closed; // a write may be under way; the next attempt must see it
  }
}

/** First byte of a partial answer. */
function startOf(response: Response): number {
  return Number(/^bytes (\d+)-/.exec(response.headers.get("Content-Range") ?? "")?.[1] ?? Number.NaN);
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
 * (429) or in trouble (5xx). What the Hub refuses is an error that says what to do.
 */
function hubFetch(repository: Repository, path?: string): typeof fetch {
  const { signal, retryDelaysMs = RETRY_DELAYS_MS } = repository.options;
  return async (input, init = {}) => {
    const headers = new Headers(init.headers);
    const token = hubToken();
    if (token) headers.set("Authorization", `Bearer ${token}`);
    headers.set("User-Agent", "miro-t2i");
    for (let attempt = 0; ; attempt++) {
      const response = await fetch(input, { ...init, headers, ...(signal ? { signal } : {}) });
      const { status } = response;
      const delay = retryDelaysMs[attempt];
      if (status !== 429 && status < 500) {
        if (status < 400 || status === 416) return response;
      } else if (delay !== undefined) {
        await response.body?.cancel();
        await pause(askedDelayMs(response) ?? delay, signal);
        continue;
      }
      await response.body?.cancel();
      throw httpError(repository, response, path);
    }
  };
}

/** How long the server asks to wait, at most a minute: seconds or a date (RFC 9110, 10.2.3). */
function askedDelayMs(response: Response): number | null {
  const asked = response.headers.get("Retry-After");
  if (asked === null) return null;
  const ms = /^\d+$/.test(asked.trim()) ? Number(asked) * 1000 : Date.parse(asked) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 60_000) : null;
}

function httpError({ name, parameter, revision }: Repository, response: Response, path?: string): MiroError {
  const { status } = response;
  const code = response.headers.get("X-Error-Code");
  const token = hubToken();
  if (code === "GatedRepo" || code === "DisabledRepo") {
    const what = code === "GatedRepo" ? "its owner lets in only who accepts the conditions" : "it has been disabled";
    const then = token ? "with the account of your token" : "then set HF_TOKEN, or run `hf auth login`";
    return new InvalidInputError(
      `${parameter}: the Hub refuses access to ${name} (${status}): ${what}; see ${hubEndpoint()}/${name}, ${then}`,
    );
  }
  if (status === 401 || status === 403) {
    const advice = token ? "HF_TOKEN or the stored login does not allow it" : "set HF_TOKEN, or run `hf auth login`";
    return new InvalidInputError(
      `${parameter}: the Hub refuses access to ${name} (${status}): it is private, gated, or does not exist; ${advice}`,
    );
  }
  if (status === 404) {
    const what =
      path !== undefined
        ? `no file ${path} in ${name}`
        : code === "RevisionNotFound"
          ? `no revision ${revision} of ${name}`
          : `no repository ${name} with revision ${revision}`;
    return new InvalidInputError(`${parameter}: the Hub has ${what}`);
  }
  return new MiroError(
    `${name}: the Hub answers with HTTP status ${status}${status === 429 ? " (too many requests); wait a little, or set HF_TOKEN" : ""}`,
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
