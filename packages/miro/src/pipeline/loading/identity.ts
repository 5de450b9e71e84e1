/**
 * Which weights drew a picture: where they came from and the SHA-256 of their file, as pictures store it.
 *
 * Hashing a large file takes seconds, so it happens in a worker thread beside loading and drawing, once for each state
 * of a file: `sha256.json` in the program's cache folder (`MIRO_CACHE`, else `~/.cache/miro-t2i`) remembers the hash by
 * path, size, times and inode. In the cache of Hub downloads a large file's name is its hash, so nothing is read there.
 */
import { createHash } from "node:crypto";
import { type BigIntStats, readdirSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { startProgram } from "../../compiled-module.js";
import { MiroError, systemReason } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { ownCache } from "../../files/own-cache.js";
import { readBytes, readText, writeFileAtomic } from "../../files/whole-files.js";
import { bundledModel } from "./bundled.js";

/** A SHA-256 in hexadecimal. */
export const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

/** Weights of one part of a pipeline. */
export const weightsSchema = z.strictObject({
  /**
   * `bundled`: the model that comes with the program; `checkpoint`: the part lies beside the checkpoint; `hub`: a
   * repository; `folder`: a folder on the machine that drew.
   */
  source: z.enum(["bundled", "checkpoint", "hub", "folder"]),
  /** `owner/name` of a repository, or the folder (below the home folder as `~/…`). */
  name: z.string().min(1).max(4096).optional(),
  /** Commit of a repository. */
  commit: z
    .string()
    .regex(/^[\w.-]{1,100}$/)
    .optional(),
  /** Of the weights' file; of several files: of their hashes and names, as `sha256sum` lists them by name. */
  sha256: sha256Schema,
});

/** Where a part's weights came from, and their hash. */
export type WeightsIdentity = z.output<typeof weightsSchema>;

/** Weights whose hash may still be on its way. */
export interface PendingIdentity {
  /** Waits for the hash. @throws MiroError when a file cannot be read */
  get(): Promise<WeightsIdentity>;
}

/**
 * Identifies the weights in `folder`, and begins to hash them.
 *
 * @param source where they come from: `checkpoint` for a part that lies beside it, else the name that the user gave
 * @param folder the folder of the files, on this machine
 * @param files names of the weights' files in it
 */
export function identifyWeights(
  source: "checkpoint" | { name: string },
  folder: string,
  files: readonly string[],
): PendingIdentity {
  const hashes = Promise.all(files.map((file) => hashFile(join(folder, file), { background: true })));
  hashes.catch(() => {}); // reported to whoever asks
  return {
    get: async () => {
      const all = await awake(hashes);
      const sha256 = all.length === 1 ? all[0]! : combined(files, all);
      return { ...(source === "checkpoint" ? { source } : origin(source.name, folder)), sha256 };
    },
  };
}

/** Identifies weights of a folder whose hashes are known. @param hashes by the names of the files */
export function knownWeights(folder: string, hashes: ReadonlyMap<string, string>): PendingIdentity {
  const names = [...hashes.keys()];
  const sha256 = names.length === 1 ? hashes.get(names[0]!)! : combined(names, [...hashes.values()]);
  return { get: async () => ({ source: "folder", name: tilde(resolve(folder)), sha256 }) };
}

/** Waits for background work, which alone does not keep the process alive. */
export async function awake<T>(work: Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, 60_000);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

/** Where a folder or a repository comes from. */
function origin(name: string, folder: string): Omit<WeightsIdentity, "sha256"> {
  if (!isFolder(name)) {
    const commit = /[\\/]snapshots[\\/]([\w.-]+)/.exec(folder)?.[1];
    return { source: "hub", name, ...(commit && { commit }) };
  }
  const path = resolve(name);
  const bundled = bundledModel();
  return bundled !== null && path === resolve(bundled)
    ? { source: "bundled" }
    : { source: "folder", name: tilde(path) };
}

/** A path without the name of the user. */
export function tilde(path: string): string {
  const home = homedir();
  return path.startsWith(`${home}/`) && home !== "/" ? `~${path.slice(home.length)}` : path;
}

/** The folder that a stored name means on this machine. */
export function expandTilde(name: string): string {
  return name.startsWith("~/") ? join(homedir(), name.slice(2)) : name;
}

function combined(files: readonly string[], hashes: readonly string[]): string {
  const lines = files
    .map((file, i) => `${hashes[i]}  ${basename(file)}\n`)
    .sort((a, b) => (a.slice(64) < b.slice(64) ? -1 : 1));
  return createHash("sha256").update(lines.join("")).digest("hex");
}

/** Files up to this size are hashed at once: that takes less time than starting a worker thread. */
const SMALL_FILE_BYTES = 32 << 20;

/**
 * SHA-256 of a file, in hexadecimal.
 *
 * @param background whether the process may end while a large file is hashed, as after Ctrl-C (default false)
 * @throws MiroError naming the file when it cannot be read
 */
export async function hashFile(path: string, { background = false } = {}): Promise<string> {
  const file = unreadable(path, () => realpathSync(path));
  if (basename(dirname(file)) === "blobs" && /^[0-9a-f]{64}$/.test(basename(file))) return basename(file);
  const stat = unreadable(path, () => statSync(file, { bigint: true }));
  if (stat.size <= SMALL_FILE_BYTES) return createHash("sha256").update(readBytes(file)).digest("hex");
  const state = fingerprint(stat);
  const known = readCache()[file];
  if (known?.state === state) return known.sha256;
  const sha256 = await hashInWorker(file, background);
  if (fingerprint(unreadable(path, () => statSync(file, { bigint: true }))) === state)
    remember(file, { state, sha256 });
  return sha256;
}

/** Whether a file's name is one that weights have. */
export function isWeightsName(path: string): boolean {
  return /\.(?:pth|pt|bin|safetensors)$/.test(path);
}

/**
 * SHA-256 that tells weights on this machine from others: of a file its own, of a folder that of its weights and its
 * `config.json`; null where there is neither. The process may end meanwhile, unless it is {@link awake}.
 *
 * @throws MiroError naming what cannot be read
 */
export async function hashWeights(path: string): Promise<string | null> {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return null;
  if (!stat.isDirectory()) return hashFile(path, { background: true });
  const names = unreadable(path, () => readdirSync(path)).filter(
    (name) => isWeightsName(name) || name === "config.json",
  );
  const files = names.sort();
  const hashes = await Promise.all(files.map((name) => hashFile(join(path, name), { background: true })));
  const lines = files.map((name, i) => `${hashes[i]}  ${name}\n`);
  return createHash("sha256").update(lines.join("")).digest("hex");
}

function unreadable<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new MiroError(`${path}: cannot be read: ${systemReason(error)}`, { cause: error });
  }
}

/** Changes whenever a file's content may have. */
function fingerprint({ size, mtimeNs, ctimeNs, ino }: BigIntStats): string {
  return [size, mtimeNs, ctimeNs, ino].join(" ");
}

// Plain JavaScript in a string, so that it is the same from the sources and from the compiled files.
const WORKER = `
const { createHash } = require("node:crypto");
const { openSync, readSync } = require("node:fs");
const { parentPort, workerData } = require("node:worker_threads");
const hash = createHash("sha256");
const file = openSync(workerData, "r");
const buffer = Buffer.allocUnsafe(4 << 20);
for (let count; (count = readSync(file, buffer)) > 0; ) hash.update(buffer.subarray(0, count));
parentPort.postMessage(hash.digest("hex"));`;

function hashInWorker(file: string, background: boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    const worker = startProgram(WORKER, file);
    worker.once("message", resolve);
    worker.once("error", (error) =>
      reject(new MiroError(`${file}: cannot be read: ${systemReason(error)}`, { cause: error })),
    );
    if (background) worker.unref(); // after the listeners, which would take it back
  });
}

const cacheSchema = z.record(z.string(), z.object({ state: z.string(), sha256: sha256Schema }));

const cachePath = () => join(ownCache(), "sha256.json");

/** What is known, nothing when the file is not there or damaged: everything in it can be computed again. */
function readCache(): z.output<typeof cacheSchema> {
  try {
    return cacheSchema.safeParse(JSON.parse(readText(cachePath()))).data ?? {};
  } catch {
    return {};
  }
}

function remember(file: string, entry: { state: string; sha256: string }): void {
  const kept = Object.entries(readCache()).filter(([path]) => statSync(path, { throwIfNoEntry: false }));
  try {
    writeFileAtomic(cachePath(), JSON.stringify({ ...Object.fromEntries(kept), [file]: entry }, null, 1), {
      overwrite: true,
    });
  } catch {
    // A home folder that cannot be written to: the file is hashed again next time.
  }
}
