/**
 * Files of a repository brought into the cache. A download is resumed where it broke off, retried, and compared with
 * its hash before it gets its name (see partial-file.ts). Files that the Hub keeps in Xet storage come by the same
 * addresses as others: it bridges them, and their SHA-256 is that of the contents.
 */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { rename, rm, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { describeStandIn } from "@miro-t2i/torch/stand-in";
import { MiroError } from "../../errors.js";
import { freeBytes } from "../../files/free-space.js";
import { makeFolder } from "../../files/make-folder.js";
import { formatSize } from "../../files/sizes.js";
import { cannotWrite, link, tagCache, writable } from "./hub-cache.js";
import { bareEtag, describeFiles, type RemoteFile } from "./hub-describe.js";
import { hubContents, networkReason, notTheHub, pause, retryDelays, Unreachable } from "./hub-http.js";
import type { Repository } from "./hub-repository.js";
import { PartialFile } from "./partial-file.js";

/** A file on its way into the cache. */
export interface IncomingFile extends RemoteFile {
  blob: string;
}

/** Makes files of a commit present in its snapshot. */
export async function download(
  repository: Repository,
  sha: string,
  folder: string,
  paths: readonly string[],
): Promise<void> {
  const files = (await describeFiles(repository, sha, paths)).map(
    (file): IncomingFile => ({ ...file, blob: join(repository.storage, "blobs", file.etag) }),
  );
  const absent: IncomingFile[] = [];
  for (const file of files) {
    const size = statSync(file.blob, { throwIfNoEntry: false })?.size;
    if (size === file.sizeBytes) continue;
    // A blob of another size is damaged: no process writes to one that has its name.
    if (size !== undefined) await writable(file.blob, () => rm(file.blob));
    absent.push(file);
  }
  const allTotalBytes = absent.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (absent.length > 0) {
    await writable(absent[0]!.blob, async () => makeFolder(join(repository.storage, "blobs")));
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
    await downloadBlob(repository, file, report);
    before += file.sizeBytes;
  }
  for (const { blob, path } of files) await link(blob, join(folder, path));
}

/** What an earlier attempt has already counts as there. */
function checkSpace({ name, storage }: Repository, neededBytes: number, files: readonly IncomingFile[]): void {
  const kept = files.reduce((sum, { blob }) => sum + PartialFile.keptBytes(blob), 0);
  const free = freeBytes(storage);
  if (free === null || neededBytes - kept <= free) return;
  throw new MiroError(
    `${name}: ${formatSize(neededBytes - kept)} are to be downloaded, ${formatSize(free)} are free in ${storage}; ` +
      "free some, or set HF_HUB_CACHE to a larger disk",
  );
}

/** Downloads one file: resumed after a broken connection, checked against its hash, named only when right. */
export async function downloadBlob(
  repository: Repository,
  file: IncomingFile,
  report: (bytes: number) => void,
): Promise<void> {
  const { path, hash, sizeBytes: size, blob } = file;
  const { name, options } = repository;
  const delays = retryDelays(repository);
  const partial = await PartialFile.claim(blob, { report, onWait: options.onMessage, signal: options.signal });
  if (partial === null) return; // another process brought it
  try {
    for (let attempt = 0; ; attempt++) {
      options.signal?.throwIfAborted();
      const before = partial.sizeBytes();
      try {
        await receive(repository, file, partial, report);
        const received = partial.sizeBytes();
        if (received < size) throw new Error(`the connection ended at byte ${received} of ${size}`);
        if (received > size) throw new Damaged(`more than the ${size} bytes arrived ${stated(repository)}`);
        if (hash !== null && !(await hasHash(partial.path, hash, received, options.signal))) {
          throw new Damaged(
            `the contents do not have the hash ${repository.elsewhere === undefined ? "that the Hub states" : "that is expected"} (${hash.slice(0, 12)}…)`,
          );
        }
        await rename(partial.path, blob);
        return;
      } catch (error) {
        if (error instanceof Damaged) await writable(blob, () => truncate(partial.path, 0));
        if (options.signal?.aborted || (error instanceof MiroError && !(error instanceof Unreachable))) throw error;
        // What the network does is a cause of an error, or an Unreachable; the file system speaks for itself.
        if ((error as NodeJS.ErrnoException).syscall !== undefined) throw cannotWrite(blob, error);
        // A connection that breaks often and still gets on is no reason to give up.
        if (partial.sizeBytes() > before) attempt = 0;
        const delay = delays[attempt];
        if (delay === undefined) {
          const reason = error instanceof Unreachable ? error.message : networkReason(error);
          throw new MiroError(
            `${name}/${path}: download failed: ${reason}; ${partial.sizeBytes()} of ${size} bytes are kept, run again to continue`,
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

function stated({ elsewhere }: Repository): string {
  return elsewhere === undefined ? "that the Hub states" : "that are expected";
}

/** What arrived is wrong, and nothing of it can be kept. */
class Damaged extends Error {}

/** Lets a file grow by what the Hub still has of it. */
async function receive(
  repository: Repository,
  { url, path, etag, hash, sizeBytes: size }: RemoteFile,
  partial: PartialFile,
  report: (bytes: number) => void,
): Promise<void> {
  const { signal } = repository.options;
  let have = partial.sizeBytes();
  if (have > size) {
    await truncate(partial.path, 0);
    have = 0;
  }
  if (have === size) return;
  const { status, headers, url: source, body } = await hubContents(repository, url, path, have);
  if (status === 416 || (have > 0 && status === 206 && (startOf(headers) !== have || isEncoded(headers)))) {
    throw new Damaged("the server does not continue where it was asked to");
  }
  if (status !== 200 && status !== 206) throw notTheHub(repository, status);
  // Without a hash nothing else would tell parts of two versions. A storage elsewhere has ETags of its own.
  const now = bareEtag(headers.get("ETag"));
  if (hash === null && now !== undefined && now !== etag && source.href === new URL(url).href)
    throw new Damaged("it has changed on the server");
  // A server that does not know ranges sends everything again.
  const resumed = have > 0 && status === 206;
  let bytes = resumed ? have : 0;
  // Of another size than the file, it may be a page or a message: that is said at once.
  let unlike = !resumed && headers.get("Content-Length") !== String(size);
  const counted = async function* () {
    for await (const part of body) {
      const standIn = unlike ? describeStandIn(part) : null;
      if (standIn !== null) throw new MiroError(`${repository.name}/${path}: ${source.origin} sent ${standIn}`);
      unlike = false;
      bytes += part.length;
      if (bytes > size) throw new Damaged(`more than the ${size} bytes arrive ${stated(repository)}`);
      report(bytes);
      yield part;
    }
  };
  const sink = createWriteStream(partial.path, { flags: resumed ? "a" : "w", flush: true });
  const closed = new Promise<void>((resolve) => sink.once("close", () => resolve()));
  try {
    await pipeline(counted, sink, signal ? { signal } : {});
  } finally {
    await closed; // a write may be under way; the next attempt must see it
  }
}

/** Whether the contents come compressed, though not asked for so: bytes of one form are none of the other. */
function isEncoded(headers: Headers): boolean {
  return !/^(identity)?$/i.test(headers.get("Content-Encoding") ?? "");
}

/** First byte of a partial answer. */
function startOf(headers: Headers): number {
  return Number(/^bytes (\d+)-/.exec(headers.get("Content-Range") ?? "")?.[1] ?? Number.NaN);
}

/**
 * SHA-256 for large files; for small ones the git object id (SHA-1 of `blob SIZE\0` and the contents), or a mirror's
 * plain SHA-1.
 */
async function hasHash(path: string, expected: string, size: number, signal?: AbortSignal): Promise<boolean> {
  const hashes =
    expected.length === 64 ? [createHash("sha256")] : [createHash("sha1").update(`blob ${size}\0`), createHash("sha1")];
  for await (const part of createReadStream(path)) {
    signal?.throwIfAborted();
    for (const hash of hashes) hash.update(part);
  }
  return hashes.some((hash) => hash.digest("hex") === expected);
}
