/** A repository of the Hub as it is asked for. */
import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Dispatcher } from "undici";
import { isFolder } from "../../files/make-folder.js";
import { nearest } from "../../nearest.js";

/** Options of {@link resolveModel}. */
export interface HubOptions {
  /** Branch, tag or commit, default `main`. */
  revision?: string | undefined;
  /** Cache folder, default as Python's. */
  cacheDir?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Reports downloads: bytes of the file so far and in all. */
  onDownload?: ((progress: DownloadProgress) => void) | undefined;
  /** Told what a download waits for; a warning of the process by default. */
  onMessage?: ((message: string) => void) | undefined;
  /** Waits between attempts, in milliseconds; one entry for each retry. */
  retryDelaysMs?: readonly number[] | undefined;
}

/** How far a download is. Files that are fetched together are counted together. */
export interface DownloadProgress {
  /** `owner/name`. */
  repo: string;
  /** Path of the file in its repository. */
  file: string;
  /** Of the file. */
  bytes: number;
  /** Size of the file. */
  totalBytes: number;
  /** Of all files that are fetched together. */
  allBytes: number;
  /** Size of all files of the download. */
  allTotalBytes: number;
  /** The file's number, from 1, and how many there are. */
  fileNumber: number;
  /** Number of files of the download. */
  fileCount: number;
}

/** A repository at a revision. */
export interface Repository {
  name: string;
  /** The option that names it, for errors. */
  parameter: string;
  revision: string;
  /** Its folder in the cache. */
  storage: string;
  options: HubOptions;
  /** The server, where it stands for a file outside of the Hub; it gets no token. */
  elsewhere?: string | undefined;
  /** Open connections to the Hub, if there are any. */
  connections?: Dispatcher | undefined;
}

/** What an error about a repository adds where its name may be that of a folder, misspelt: `runs/mine`. */
export function folderHint(name: string): string {
  const parent = dirname(name);
  if (!isFolder(parent)) return "";
  const folders = readdirSync(parent).filter((other) => isFolder(join(parent, other)));
  const near = nearest(basename(name), folders).map((other) => join(parent, other));
  if (near.length > 0) return `; did you mean the folder ${near.join(" or ")}?`;
  return parent === "." ? "" : `; the folder ${parent} here has no ${basename(name)}`;
}
