/**
 * Files that are published outside of the Hub. Their size and hash are known, so what arrives is them or is refused.
 * They go to the folder that `huggingface_hub` has for what is no repository (`assets`), or below the cache that was
 * given.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { MiroError } from "../../errors.js";
import { makeFolder } from "../../files/make-folder.js";
import { writable } from "./hub-cache.js";
import { downloadBlob } from "./hub-download.js";
import { hubAssets, hubOffline } from "./hub-environment.js";
import type { HubOptions, Repository } from "./hub-repository.js";

/** A file that is known. */
export interface KnownFile {
  name: string;
  url: string;
  sizeBytes: number;
  /** In hexadecimal. */
  sha256: string;
}

/** The folder that holds a file once it was fetched: named by its hash, so that another version is another one. */
export function knownFolder({ sha256 }: KnownFile, cacheDir?: string): string {
  return join(cacheDir === undefined ? hubAssets() : join(cacheDir, "assets"), "miro-t2i", sha256.slice(0, 16));
}

/** Whether a file was fetched. */
export function isFetched(file: KnownFile, cacheDir?: string): boolean {
  const stat = statSync(join(knownFolder(file, cacheDir), file.name), { throwIfNoEntry: false });
  return stat?.size === file.sizeBytes;
}

/**
 * Makes a file present. A download is resumed where it broke off, retried, and compared with its hash before it gets
 * its name.
 *
 * @returns the folder that holds it, under its name
 * @throws MiroError when it is not there and cannot be fetched
 */
export async function fetchKnownFile(file: KnownFile, options: HubOptions = {}): Promise<string> {
  const folder = knownFolder(file, options.cacheDir);
  if (isFetched(file, options.cacheDir)) return folder;
  const offline = hubOffline();
  if (offline) throw new MiroError(`${file.name}: not in the cache (${folder}), and ${offline} is set`);
  const { origin } = new URL(file.url);
  const repository: Repository = {
    name: origin,
    parameter: file.name,
    revision: "",
    storage: folder,
    options,
    elsewhere: origin,
  };
  const { name, url, sizeBytes, sha256 } = file;
  const blob = join(folder, name);
  await writable(blob, async () => makeFolder(folder));
  await downloadBlob(repository, { path: name, url, etag: sha256, hash: sha256, sizeBytes, blob }, (bytes) =>
    options.onDownload?.({
      repo: origin,
      file: name,
      bytes,
      totalBytes: sizeBytes,
      allBytes: bytes,
      allTotalBytes: sizeBytes,
      fileNumber: 1,
      fileCount: 1,
    }),
  );
  return folder;
}
