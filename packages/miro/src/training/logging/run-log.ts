/**
 * Reads what runs have logged: `log.jsonl`, one JSON object a line, each with a `step` and any numbers (see
 * logging.ts).
 *
 * A log may come from a run that still writes, was killed or was resumed. A last line that is cut off, and lines that
 * are no records, are counted and left out. A record whose step lies before that of an earlier one starts a resumed
 * part of the run: what was logged after its step is discarded, because the run went back there.
 */
import { statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { checkList, checkName } from "../../arguments.js";
import { invalid, MiroError, systemReason } from "../../errors.js";
import { readLinesOf } from "../../files/whole-files.js";
import { SmoothMean } from "./smooth-mean.js";

/** The values of one name over the steps of a run, in the order of the steps. */
export interface Series {
  steps: number[];
  /** NaN where the run logged that a value was not finite. */
  values: number[];
}

/** A run's log. */
export interface RunLog {
  /** What the run is called: its folder, or its log file where that is no `log.jsonl`. */
  name: string;
  /** The log file. */
  path: string;
  /** Every number that was logged, by name; `step` is left out. */
  series: ReadonlyMap<string, Series>;
  /** Messages by step. */
  warnings: { step: number; message: string }[];
  /** Lines that are no records. */
  badLines: number;
  /** Times that the run went back to an earlier step. */
  restarts: number;
}

/**
 * Reads the log of a run.
 * @param path the run's folder, or a log file
 * @throws MiroError when there is no log, or no record in it
 */
export function readRunLog(path: string): RunLog {
  checkName("path", path, "the name of a file");
  const file = logFile(path);
  const all = new Map<string, Series>();
  let warnings: RunLog["warnings"] = [];
  let badLines = 0;
  let restarts = 0;
  let last = Number.NEGATIVE_INFINITY;
  for (const line of readLinesOf(file)) {
    if (line.trim() === "") continue;
    const record = parseRecord(line);
    if (record === null) {
      badLines++;
      continue;
    }
    const { step, ...figures } = record;
    if (step < last) {
      restarts++;
      for (const { steps, values } of all.values()) {
        while (steps.at(-1)! > step) steps.pop();
        values.length = steps.length;
      }
      warnings = warnings.filter((warning) => warning.step <= step);
    }
    last = step;
    for (const [name, value] of Object.entries(figures)) {
      if (name === "warning" && typeof value === "string") warnings.push({ step, message: value });
      if (typeof value !== "number" && value !== null) continue;
      if (!all.has(name)) all.set(name, { steps: [], values: [] });
      const { steps, values } = all.get(name)!;
      if (steps.at(-1) !== step) steps.push(step);
      values[steps.length - 1] = value ?? Number.NaN;
    }
  }
  // A name that has never had a value, such as one that was null throughout, is no series.
  const series = new Map([...all].filter(([, { values }]) => values.some((value) => !Number.isNaN(value))));
  if (series.size === 0)
    throw new MiroError(
      `${file}: no numbers have been logged yet; a run logs them every trainer.log_every_n_steps steps`,
    );
  return { name: runName(file), path: file, series, warnings, badLines, restarts };
}

function logFile(path: string): string {
  try {
    if (!statSync(path).isDirectory()) return path;
    const file = join(path, "log.jsonl");
    statSync(file);
    return file;
  } catch (error) {
    throw new MiroError(`${path}: no log of a run: ${systemReason(error)}; name the folder of a run or its log.jsonl`, {
      cause: error,
    });
  }
}

function runName(file: string): string {
  return basename(file) === "log.jsonl" ? basename(dirname(resolve(file))) : basename(file);
}

function parseRecord(line: string): { step: number; [name: string]: unknown } | null {
  try {
    const record = JSON.parse(line) as unknown;
    const valid = typeof record === "object" && record !== null && "step" in record && Number.isFinite(record.step);
    return valid ? (record as { step: number }) : null;
  } catch {
    return null;
  }
}

/**
 * Exponential means of the values up to each, see {@link SmoothMean}. What is not finite is passed over and stays a
 * gap.
 * @param weight of the past, in [0, 1); 0 smooths nothing
 * @throws InvalidInputError for another weight
 */
export function smooth(values: readonly number[], weight: number): number[] {
  checkList("values", values, "a list of numbers");
  if (typeof weight !== "number" || !(weight >= 0 && weight < 1)) throw invalid("weight", "a number in [0, 1)", weight);
  const mean = new SmoothMean(weight);
  return values.map((value) => {
    mean.add(value);
    return Number.isFinite(value) ? mean.value : Number.NaN;
  });
}
