/** What every benchmark shares: options, the machine, medians, running the Python reference, storing a result. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { cpus, platform, release, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildInfo, cuda, getNumThreads } from "@miro-t2i/torch";
import type { PrecisionName } from "miro-t2i/training";

export interface BenchOptions {
  /** `full` or `tiny`: which network is measured. */
  size: "full" | "tiny";
  /** Of training: the network at full depth and tiny width, whatever the size. */
  thin: boolean;
  /** Repetitions of whatever is repeated. */
  rounds: number;
  /** A Python with the reference implementation, null when there is none. */
  python: string | null;
  /** Where to measure: `cpu`, `cuda`, … */
  device: string;
  /** Pictures at a time, one measurement for each. */
  batches: number[];
  /** Measured steps of each training. */
  steps: number;
  /** What is trained in. */
  precision: PrecisionName;
  /** Scorers that are measured; empty for all. */
  by: string[];
  /** Pictures that are scored together. */
  pictures: number;
  /** What scorers compute in, one measurement for each. */
  dtypes: ("auto" | "float32" | "bfloat16")[];
  /** Scorers are measured over the same pictures only, none alone. */
  together: boolean;
  /** A recording of the scorers' reference, with their weights. */
  recording?: string | undefined;
  /** Name of the result file. */
  name: string;
  /** The command line, for the record. */
  command: string;
}

export class BenchError extends Error {}

/** The repository's root, from where this file runs (its source or dist/). */
export function root(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package-lock.json"))) {
    if (dirname(folder) === folder) throw new BenchError("not inside the repository");
    folder = dirname(folder);
  }
  return folder;
}

export interface Spread {
  median: number;
  min: number;
  max: number;
  samples: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)!, samples: sorted.length };
}

/** How long answers take. */
export interface Percentiles {
  p50: number;
  p99: number;
  max: number;
  samples: number;
}

export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
  return { p50: at(0.5), p99: at(0.99), max: sorted.at(-1)!, samples: sorted.length };
}

/** Seconds that one call takes: `repeats` calls after `warmup` unmeasured ones. */
export function seconds(repeats: number, warmup: number, work: () => void): number[] {
  for (let i = 0; i < warmup; i++) work();
  return Array.from({ length: repeats }, () => {
    const start = performance.now();
    work();
    return (performance.now() - start) / 1000;
  });
}

/** One of those that are measured against each other. */
export interface Side {
  name: string;
  /** Pictures at a time. */
  batch: number;
  /** Measures it once more. */
  run(): void | Promise<void>;
  /** Why it is not measured any more. */
  failure?: string;
}

/**
 * Measures all sides in each round, one after the other, so that a change of the machine's speed meets all of them. One
 * that fails, as a batch that does not fit, takes none of the others with it.
 * @param keep called after each run that came through: what is known then outlives a benchmark that is stopped
 */
export async function inTurns(rounds: number, sides: readonly Side[], keep: () => void): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const side of sides) {
      if (side.failure !== undefined) continue;
      try {
        await side.run();
      } catch (error) {
        side.failure = (error as Error).message;
        console.error(`${side.name}, batch ${side.batch}: ${side.failure}`);
        continue;
      }
      keep();
    }
    console.error(`round ${round + 1} of ${rounds} done`);
  }
  if (sides.every(({ failure }) => failure !== undefined)) throw new BenchError("no side could be measured");
}

/** The sides that failed, for the record. */
export function failuresOf(sides: readonly Side[]): { name: string; batch: number; failure: string }[] {
  return sides.flatMap(({ name, batch, failure }) => (failure === undefined ? [] : [{ name, batch, failure }]));
}

/** No process of a benchmark takes longer, unless it hangs. */
const LONGEST_MS = 2 * 3_600_000;

/** Runs a program to its end. @returns its output @throws BenchError with the last of what it said */
export function runProcess(program: string, args: readonly string[], env: Record<string, string> = {}): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    encoding: "utf8",
    env: { ...process.env, ...env },
    maxBuffer: 2 ** 26,
    timeout: LONGEST_MS,
    killSignal: "SIGKILL",
  });
  if (status === 0) return stdout;
  const said = [error?.message, ...(stderr ?? "").trim().split("\n").slice(-5)].filter(Boolean).join("\n");
  throw new BenchError(`${[program, ...args].join(" ").slice(0, 200)} failed:\n${said}`);
}

const lastLine = (output: string): unknown => JSON.parse(output.trim().split("\n").at(-1)!);

/** Runs a script of bench/reference in the reference's Python; its last line of output is JSON. */
export function runReference<T>(python: string, script: string, args: readonly string[]): T {
  return lastLine(runProcess(python, [join(root(), "bench", "reference", script), ...args])) as T;
}

/** Runs a program of this folder, as training-run.ts, in a process of its own; its last line of output is JSON. */
export function runOurs<T>(name: string, job: object, env?: Record<string, string>): T {
  const script = join(root(), "bench", "dist", `${name}-run.js`);
  return lastLine(runProcess(process.execPath, [script, JSON.stringify(job)], env)) as T;
}

/**
 * The Python to measure the reference with: as given, as MIRO_BENCH_PYTHON says, or python3 when it has the reference.
 */
export function referencePython(given: string | undefined): string | null {
  const named = given ?? process.env.MIRO_BENCH_PYTHON;
  if (named) return named;
  const probe = spawnSync("python3", [
    "-c",
    "import importlib.util as u, sys; sys.exit(0 if u.find_spec('miro') and u.find_spec('torch') else 1)",
  ]);
  return probe.status === 0 ? "python3" : null;
}

export interface Machine {
  cpu: string;
  cores: number;
  threads: number;
  memoryGiB: number;
  os: string;
  capabilities: string[];
  /** Names of the CUDA devices. */
  gpus: string[];
}

export function machine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    threads: getNumThreads(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    os: `${platform()} ${release()}`,
    capabilities: buildInfo().capabilities,
    gpus: cuda.devices().map(({ name }) => name),
  };
}

/** The number of a GPU: `cuda` is the first one; null for the CPU. */
export function gpuOf(device: string): number | null {
  return device === "cpu" ? null : Number(device.split(":")[1] ?? 0);
}

/** Waits until a device has done all that it was given. */
export function waitForDevice(device: string): void {
  const gpu = gpuOf(device);
  if (gpu !== null) cuda.synchronize(gpu);
}

/** Of a checkout what git says, of a packed folder (npm run pack:device) what was written into it. */
function commit(): string {
  const packed = join(root(), "packed.json");
  if (existsSync(packed)) return (JSON.parse(readFileSync(packed, "utf8")) as { commit: string }).commit;
  try {
    const git = (...args: string[]) =>
      execFileSync("git", args, { cwd: root(), encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    return (
      git("rev-parse", "--short", "HEAD") +
      (git("status", "--porcelain", "--untracked-files=no") === "" ? "" : " with changes")
    );
  } catch {
    return "unknown";
  }
}

/** Writes bench/results/NAME.json: hardware, configuration, versions, date, command, figures. */
export function store(
  options: BenchOptions,
  config: unknown,
  figures: object,
  versions: Record<string, string> = {},
): string {
  const { version } = JSON.parse(readFileSync(join(root(), "packages", "miro", "package.json"), "utf8")) as {
    version: string;
  };
  const file = join(root(), "bench", "results", `${options.name}.json`);
  const record = {
    benchmark: options.name,
    command: options.command,
    date: new Date().toISOString(),
    machine: machine(),
    versions: {
      "miro-t2i": version,
      commit: commit(),
      node: process.versions.node,
      libtorch: buildInfo().torchVersion,
      ...(buildInfo().cuda && { cuda: cuda.version() ?? "unknown" }),
      ...versions,
    },
    config,
    ...figures,
  };
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.tmp`, `${JSON.stringify(record, null, 2)}\n`);
  renameSync(`${file}.tmp`, file);
  return file;
}

/** Rows of cells as aligned text. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows
    .map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "))
    .join("\n");
}
