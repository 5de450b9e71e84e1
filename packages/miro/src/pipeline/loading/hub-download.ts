/**
 * Files of a repository brought into the cache. A download is resumed where it broke off, retried, and compared with its
 * hash before it gets its name (see partial-file.ts). Files that the Hub keeps in Xet storage come by the same addresses as
 * others: it bridges them, and their SHA-256 is that of the contents.
 */
import { createHash, type Hash } from "node:crypto";
import { createReadStream, createWriteStream, existsSync, mkdirSync, statfsSync } from "node:fs";
import { rename, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { link, safePath, tagCache, writable } from "./hub-cache.js";
import { hubEndpoint } from "./hub-environment.js";
import { httpError, hubFetch, networkReason, pause, RETRY_DELAYS_MS } from "./hub-http.js";
import type { Repository } from "./hub-repository.js";
import { PartialFile } from "./partial-file.js";

/** A file to fetch: what the Hub says about it. */
interface RemoteFile {
  path: string;
  hash: string;
  sizeBytes: number;
  blob: string;
}

export async function download(
  repository: Repository,
  sha: string,
  folder: string,
  paths: readonly string[],
): Promise<void> {
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
