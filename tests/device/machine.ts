/** What a device check ran on, and with what. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, platform, release, totalmem } from "node:os";
import { join } from "node:path";
import { buildInfo, cuda, hasCudaGraphs } from "@miro-t2i/torch";
import { availableDevices } from "miro-t2i";
import { repositoryRoot } from "../reference/fixture.js";

/** A machine, or why the device is not to be had on it. */
export interface Machine {
  /** Why the device cannot be used; null when it can. */
  unavailable: string | null;
  cpu: string;
  cores: number;
  memoryGiB: number;
  os: string;
  capabilities: string[];
  gpus: { name: string; memoryGiB: number; capability: string }[];
  /** Version of NVIDIA's driver; null without one. */
  driver: string | null;
  cudaGraphs: boolean;
  versions: Record<string, string>;
}

export function machine(device: string): Machine {
  const { torchVersion, cuda: withCuda, capabilities } = buildInfo();
  const available = availableDevices();
  return {
    unavailable: available.includes(device)
      ? null
      : `${device} is not available (libtorch ${torchVersion} ${withCuda ? "with" : "without"} CUDA); ` +
        `available: ${available.join(", ")}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    os: `${platform()} ${release()}`,
    capabilities,
    gpus: cuda.devices().map(({ name, memoryBytes, capability }) => ({
      name,
      memoryGiB: Math.round(memoryBytes / 2 ** 30),
      capability: capability.join("."),
    })),
    driver: driverVersion(),
    cudaGraphs: device !== "cpu" && hasCudaGraphs(),
    versions: {
      "miro-t2i": (json("packages/miro/package.json") as { version: string }).version,
      commit: commit(),
      node: process.versions.node,
      libtorch: torchVersion,
      ...(withCuda && { cuda: cuda.version() ?? "unknown" }),
    },
  };
}

const json = (path: string): unknown => JSON.parse(readFileSync(join(repositoryRoot(), path), "utf8"));

function driverVersion(): string | null {
  try {
    const text = readFileSync("/proc/driver/nvidia/version", "utf8");
    return /Kernel Module[^\d]*([\d.]+)/.exec(text)?.[1] ?? null;
  } catch {}
  try {
    // In a container that has no such file.
    const args = ["--query-gpu=driver_version", "--format=csv,noheader"];
    const said = execFileSync("nvidia-smi", args, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: 20_000,
    });
    return /^[\d.]+/.exec(said)?.[0] ?? null;
  } catch {
    return null;
  }
}

/** Of a checkout what git says, of a packed folder what was written into it. */
function commit(): string {
  try {
    return (json("packed.json") as { commit: string }).commit;
  } catch {}
  try {
    const git = (...args: string[]) =>
      execFileSync("git", args, {
        cwd: repositoryRoot(),
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      }).trim();
    const isClean = git("status", "--porcelain", "--untracked-files=no") === "";
    return `${git("rev-parse", "--short", "HEAD")}${isClean ? "" : " with changes"}`;
  } catch {
    return "unknown";
  }
}
