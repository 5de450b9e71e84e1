/** Verdicts on the pictures of an evaluation, from what was found in them and the colours of it. */
import { join } from "node:path";
import { MiroError } from "../../../errors.js";
import { pythonJson } from "../../../files/python-json.js";
import { groupBy } from "../../../group-by.js";
import { message, option } from "../../../message.js";
import type { Colour, PromptMetadata } from "../metadata.js";
import { judge, keepBest, type Rules } from "../rules.js";
import type { Result } from "../summary.js";
import { checkKept, nameOf, pictureHash } from "./detect.js";
import type { EvaluationRun } from "./evaluation-run.js";
import type { Failure } from "./failure-sheet.js";
import type { ImageFolder, Problem } from "./image-folder.js";
import { maskOf, promptFilePath, readPromptFile, type StoredDetection } from "./prompt-files.js";

/** A line of `results.jsonl`: GenEval's fields, behind them ours. */
type Row = Result & { prompt_index: number; sample_index: number; colors: string; detector: string };

/**
 * Judges the pictures of a folder that have been looked at; the others are problems.
 * @throws InvalidInputError where objects were left out that would count by the rules
 */
export function verdicts(
  run: EvaluationRun,
  folder: ImageFolder,
): { results: Row[]; failures: Failure[]; problems: Problem[] } {
  const results: Row[] = [];
  const failures: Failure[] = [];
  const problems = [...folder.problems];
  for (const { index, metadata, samples } of folder.prompts) {
    const file = readPromptFile(run.output, "detections", index);
    const colours = readPromptFile(run.output, "colours", index);
    if (file) checkKept(file.key, run.rules, promptFilePath(run.output, "detections", index));
    for (const { index: sample, path } of samples) {
      const name = nameOf(path);
      const picture = file?.pictures[name];
      if (picture === undefined || picture.error !== undefined) {
        const reason = picture?.error ?? "has not been looked at; detect first";
        problems.push({ kind: picture ? "damaged picture" : "missing picture", path, reason });
        continue;
      }
      if (run.only === "judge" && picture.sha256 !== pictureHash(join(run.images, path))) {
        problems.push({ kind: "missing picture", path, reason: "has changed since it was looked at; detect again" });
        continue;
      }
      const found = groupBy(picture.detections, (one) => one.class);
      const classified = colours?.pictures[name] ?? {};
      const { correct, reason, kept } = judge(
        metadata,
        found,
        (className, objects) => coloursFor(classified, className, objects.length, path),
        run.rules,
      );
      results.push({
        filename: path,
        tag: metadata.tag,
        prompt: metadata.prompt,
        correct,
        reason,
        metadata: pythonJson(metadata),
        details: pythonJson(
          Object.fromEntries([...kept].map(([name, list]) => [name, list.map(({ box, score }) => [...box, score])])),
        ),
        prompt_index: index,
        sample_index: sample,
        colors: pythonJson(classified),
        detector: file!.detector ?? "",
      });
      if (correct) continue;
      const own = promptFilePath(run.output, "detections", index);
      const objects = shownObjects(metadata, found, run.rules);
      failures.push({
        path,
        tag: metadata.tag,
        prompt: metadata.prompt,
        reason,
        objects: objects.map((one) => ({
          className: one.class,
          score: one.score,
          box: one.box,
          mask: maskOf(one, picture, own),
        })),
      });
    }
  }
  return { results, failures, problems };
}

/** What counts of the classes that were asked for, and behind it what else was found, each place once. */
function shownObjects(
  { tag, include }: PromptMetadata,
  found: ReadonlyMap<string, readonly StoredDetection[]>,
  rules: Rules,
): StoredDetection[] {
  const named = new Set(include.map((one) => one.class));
  const best = (name: string) => keepBest(found.get(name) ?? [], tag, rules);
  const asked = [...named].flatMap(best);
  const places = new Set(asked.map(({ box }) => String(box)));
  const others = [...found.keys()].filter((name) => !named.has(name)).flatMap(best);
  const besides = others
    .sort((a, b) => b.score - a.score)
    .filter(({ box }) => !places.has(String(box)) && places.add(String(box)));
  return [...asked, ...besides];
}

function coloursFor(classified: Record<string, Colour[]>, className: string, count: number, path: string): Colour[] {
  const answers = classified[className] ?? [];
  if (answers.length < count)
    throw new MiroError(
      message`${path}: the colours of ${className} have not been classified; run without ${option("only", "summary")}`,
    );
  return answers.slice(0, count);
}
