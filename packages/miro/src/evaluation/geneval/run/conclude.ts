/**
 * The last step of an evaluation: verdicts are summed up, and written with the table, the figures and the sheet of
 * failures.
 *
 * The figures hold a key of everything that they were made from: while it is the same, nothing is written again.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { isObject } from "../../../arguments.js";
import { InvalidInputError, MiroError } from "../../../errors.js";
import { readJson } from "../../../files/json-file.js";
import { sha256 } from "../../../files/sha256.js";
import { readText, removeKilledWrites, writeFileAtomic } from "../../../files/whole-files.js";
import { sheetPng } from "../../../pipeline/settings.js";
import { version } from "../../../version.js";
import type { SharedWork } from "../../shared-work.js";
import { markdownTable } from "../published.js";
import { readResults, type Summary, summarise } from "../summary.js";
import type { EvaluationReport, EvaluationRun } from "./evaluation-run.js";
import { failureSheet } from "./failure-sheet.js";
import { type ImageFolder, problemCounts } from "./image-folder.js";
import { promptFilePath } from "./prompt-files.js";
import { verdicts } from "./verdicts.js";

/** Files of the last step. */
function pathsOf({ output, outfile = join(output, "results.jsonl") }: EvaluationRun) {
  return {
    results: outfile,
    summary: join(output, "summary.json"),
    table: join(output, "summary.md"),
    failures: join(output, "failures.png"),
  };
}

/** Sums up verdicts that stand in a file, this program's or GenEval's own. */
export function summariseFolder(run: EvaluationRun): Pick<EvaluationReport, "summary" | "files"> {
  const { results, summary: path, table } = pathsOf(run);
  const summary = summarise(readResults(results));
  writeSummary(run, summary, {});
  return { summary, files: { results, summary: path, table } };
}

function writeSummary(run: EvaluationRun, summary: Summary, more: Record<string, unknown>): void {
  const { summary: path, table } = pathsOf(run);
  const note = more.found_by === undefined ? "" : `\nDetector: ${more.found_by}\n`;
  writeFileAtomic(table, markdownTable(run.name, summary, run.compare) + note, { overwrite: true });
  // Last, since its key says that the other files are there.
  const json = { name: run.name, ...summary, ...more };
  writeFileAtomic(path, `${JSON.stringify(json, null, 2)}\n`, { overwrite: true });
}

/** The last step, unless another process does it. @returns whether it is done */
export async function conclude(
  run: EvaluationRun,
  folder: ImageFolder,
  work: SharedWork,
  report: EvaluationReport,
): Promise<boolean> {
  const paths = pathsOf(run);
  const key = inputsKey(run, folder);
  const { results, failures, problems } = verdicts(run, folder);
  report.problems = problems;
  if (results.length === 0) {
    const reason = problems[0] ? `: ${problems[0].path} ${problems[0].reason}` : "";
    throw new InvalidInputError(`${run.images}: holds no picture that can be judged${reason}`);
  }
  report.summary = summarise(results);
  report.detector = [...new Set(results.map(({ detector }) => detector))].join(", ");
  const text = results.map((row) => `${JSON.stringify(row)}\n`).join("");
  const isDone = () =>
    run.only === undefined &&
    storedKey(paths.summary) === key &&
    existsSync(paths.table) &&
    existsSync(paths.results) &&
    readText(paths.results) === text;
  if (!isDone()) {
    const [taken] = await work.take("conclude", [0], isDone, 1);
    if (taken === undefined && !isDone()) return false;
    if (taken !== undefined) {
      removeKilledWrites(dirname(paths.results));
      writeFileAtomic(paths.results, text, { overwrite: true });
      const sheet = await failureSheet(run.images, failures, run.failures, `${run.name}: pictures that failed`);
      if (sheet) writeFileAtomic(paths.failures, sheetPng(sheet, "pictures that failed"), { overwrite: true });
      else rmSync(paths.failures, { force: true }); // of an earlier evaluation
      if (run.only === undefined)
        writeSummary(run, report.summary, {
          found_by: report.detector,
          ...provenance(run),
          problems: problemCounts(problems),
          key,
        });
    }
  }
  report.files = { results: paths.results };
  if (run.only === undefined) Object.assign(report.files, { summary: paths.summary, table: paths.table });
  if (failures.length > 0 && run.failures > 0) report.files.failures = paths.failures;
  return true;
}

function storedKey(path: string): unknown {
  try {
    const content = readJson(path);
    return isObject(content) ? content.key : undefined;
  } catch (error) {
    if (error instanceof MiroError) return undefined;
    throw error;
  }
}

/** Changes with everything that the last step makes files from. */
function inputsKey(run: EvaluationRun, { prompts, problems }: ImageFolder): string {
  const hash = (path: string) => (existsSync(path) ? sha256(readFileSync(path)) : null);
  const files = prompts.map(({ index }) => [
    index,
    hash(promptFilePath(run.output, "detections", index)),
    hash(promptFilePath(run.output, "colours", index)),
  ]);
  const { rules, name, failures, detectorKey, colourKey, outfile } = run;
  return sha256(JSON.stringify([version(), rules, name, failures, detectorKey, colourKey, outfile, files, problems]));
}

function provenance({ set, rules, detectorKey, colourKey, images }: EvaluationRun): Record<string, unknown> {
  const hparams = join(images, "hparams.json");
  return {
    metadata_sha256: set?.sha256 ?? null,
    hparams_sha256: existsSync(hparams) ? sha256(readFileSync(hparams)) : null,
    rules,
    detector: detectorKey,
    colours: colourKey,
    versions: { miro: version() },
  };
}
