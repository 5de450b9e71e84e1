/**
 * The memory that this process may have: the machine's, within the control groups of a container, a batch job or a
 * unit of systemd. A module of its own, so that who asks loads no tensors.
 */
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { TorchError } from "./errors.js";

/**
 * The most memory that this process can have, in bytes.
 * @param root of the file system, for tests
 */
export function memoryLimit(root = "/", total = totalmem()): number {
  return Math.min(total, ...controlGroups(root).map(limitOf));
}

/**
 * Memory that this process can still get, in bytes. File pages that the kernel keeps count as free, since it gives
 * them up.
 * @param root of the file system, for tests
 */
export function availableMemory(root = "/", free = freemem()): number {
  return Math.min(free, ...controlGroups(root).map(leftIn));
}

/**
 * How much freed memory of CPU tensors is kept for the next ones, in bytes: what MIRO_CPU_CACHE_BYTES says, else a
 * quarter of what this process can have.
 * @throws TorchError where the variable is no number of bytes
 */
export function cpuCacheBytes(env: NodeJS.ProcessEnv): number {
  const given = env.MIRO_CPU_CACHE_BYTES;
  if (!given) return Math.floor(memoryLimit() / 4);
  const bytes = Number(given);
  if (!Number.isSafeInteger(bytes) || bytes < 0)
    throw new TorchError(`MIRO_CPU_CACHE_BYTES: expected a number of bytes, found ${JSON.stringify(given)}`);
  return bytes;
}

/** A control group that may limit the memory of this process. */
interface ControlGroup {
  folder: string;
  /** The names of its files, which depend on the version of control groups. */
  limit: string;
  usage: string;
}

/** The control group of this process and those around it. */
function controlGroups(root: string): ControlGroup[] {
  const own = read(join(root, "proc/self/cgroup")) ?? "";
  return own.split("\n").flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined) return [];
    const isFirst = controllers!.split(",").includes("memory");
    if (controllers !== "" && !isFirst) return [];
    const top = join(root, isFirst ? "sys/fs/cgroup/memory" : "sys/fs/cgroup");
    const names = isFirst
      ? { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes" }
      : { limit: "memory.max", usage: "memory.current" };
    const folders: string[] = [];
    for (let folder = join(top, path); folder.startsWith(top); folder = dirname(folder)) folders.push(folder);
    return folders.map((folder) => ({ folder, ...names }));
  });
}

/** Infinity where there is no limit, or none that is told. */
function limitOf({ folder, limit }: ControlGroup): number {
  return bytesIn(join(folder, limit)) ?? Number.POSITIVE_INFINITY;
}

function leftIn(group: ControlGroup): number {
  const { folder, usage } = group;
  const used = bytesIn(join(folder, usage));
  if (used === null) return Number.POSITIVE_INFINITY;
  const stat = read(join(folder, "memory.stat")) ?? "";
  const kept = ["inactive_file", "active_file"].map((name) => {
    const line = new RegExp(`^(?:total_)?${name} (\\d+)$`, "gm");
    return Math.max(0, ...[...stat.matchAll(line)].map(([, bytes]) => Number(bytes)));
  });
  return Math.max(0, limitOf(group) - used + kept[0]! + kept[1]!);
}

function bytesIn(path: string): number | null {
  const bytes = Number.parseInt(read(path) ?? "", 10);
  return Number.isNaN(bytes) ? null : bytes;
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
