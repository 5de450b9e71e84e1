/**
 * The memory and the processors that this process may have: the machine's, within the control groups of a container, a
 * batch job or a unit of systemd. A module of its own, so that who asks loads no tensors.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { TorchError } from "./errors.js";

/**
 * The most memory that this process can have, in bytes.
 * @param root of the file system, for tests
 */
export function memoryLimit(root = "/", total = totalmem()): number {
  return Math.min(total, ...controlGroups(root, "memory").map(limitOf));
}

/**
 * Memory that this process can still get, in bytes. File pages that the kernel keeps count as free, since it gives
 * them up.
 * @param root of the file system, for tests
 */
export function availableMemory(root = "/", free = freemem()): number {
  return Math.min(free, ...controlGroups(root, "memory").map(leftIn));
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

/**
 * Processors that this process can use, at least 1: those that it may run on, and no more than its control groups give
 * it the time of, rounded up.
 * @param root of the file system, for tests
 */
export function processors(root = "/", available = availableParallelism()): number {
  return Math.max(1, Math.ceil(Math.min(available, ...controlGroups(root, "cpu").map(processorsOf))));
}

/** A control group that may limit this process. */
interface ControlGroup {
  folder: string;
  /** Of control groups, on which the names of the files depend. */
  version: 1 | 2;
}

/** The control group of this process and those around it, which share out memory or the time of processors. */
function controlGroups(root: string, controller: "memory" | "cpu"): ControlGroup[] {
  const own = read(join(root, "proc/self/cgroup")) ?? "";
  return own.split("\n").flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined) return [];
    const version = controllers!.split(",").includes(controller) ? 1 : 2;
    if (controllers !== "" && version === 2) return [];
    const top = join(root, version === 1 ? `sys/fs/cgroup/${controller}` : "sys/fs/cgroup");
    const folders: string[] = [];
    for (let folder = join(top, path); folder.startsWith(top); folder = dirname(folder)) folders.push(folder);
    return folders.map((folder) => ({ folder, version }));
  });
}

/** Infinity where there is no limit, or none that is told. */
function limitOf({ folder, version }: ControlGroup): number {
  const name = version === 1 ? "memory.limit_in_bytes" : "memory.max";
  return bytesIn(join(folder, name)) ?? Number.POSITIVE_INFINITY;
}

/** Processors whose time a control group gives; Infinity where that is not limited, or no limit is told. */
function processorsOf({ folder, version }: ControlGroup): number {
  const files = version === 1 ? ["cpu.cfs_quota_us", "cpu.cfs_period_us"] : ["cpu.max"];
  const texts = files.map((name) => read(join(folder, name))?.trim() ?? "");
  const [quota = 0, period = 0] = texts.join(" ").split(" ").map(Number); // "max" is not a number, and -1 no limit
  return quota > 0 && period > 0 ? quota / period : Number.POSITIVE_INFINITY;
}

function leftIn(group: ControlGroup): number {
  const { folder, version } = group;
  const used = bytesIn(join(folder, version === 1 ? "memory.usage_in_bytes" : "memory.current"));
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
