/**
 * Verdicts on detections that stand in a file: `{"options": …, "cases": [{"name", "metadata", "detections", "colours",
 * "options"}]}`. Detections are `{class: [[x1, y1, x2, y2, score], …]}`, colours the answers for the kept objects of a
 * class, best first; a case's options override the file's.
 */
import { z } from "zod";
import { checkName, isObject } from "../../arguments.js";
import { InvalidInputError } from "../../errors.js";
import { checkContent } from "../../expectations.js";
import { parseJson } from "../../files/json-file.js";
import { checkPlainData } from "../../files/plain-data.js";
import { readBytes } from "../../files/whole-files.js";
import { counted } from "../../numbers.js";
import { parseOptions } from "../../options.js";
import type { Box } from "./detection.js";
import { COLOURS, checkMetadata } from "./metadata.js";
import { type Found, judge, rulesSchema } from "./rules.js";

const number = z.number();
const caseSchema = z.looseObject({
  name: z.string(),
  metadata: z.unknown(),
  detections: z.record(z.string(), z.array(z.tuple([number, number, number, number, number]))),
  colours: z.record(z.string(), z.array(z.enum(COLOURS))).default({}),
  options: z.record(z.string(), z.unknown()).default({}),
});
const fileSchema = z.looseObject({
  options: z.record(z.string(), z.unknown()).default({}),
  cases: z.array(z.unknown()),
});

/** A verdict under the name of its case. */
export interface NamedVerdict {
  name: string;
  correct: boolean;
  /** What is wrong, one fault a line; empty if nothing is. */
  reason: string;
}

/**
 * Judges the cases of a file, in their order.
 *
 * @param options override the file's
 * @throws InvalidInputError naming the file, the case and what is wrong with it
 */
export function judgeFile(path: string, options: Readonly<Record<string, unknown>> = {}): NamedVerdict[] {
  checkName("path", path, "the name of a file");
  const content = parseJson(readBytes(path), path);
  const { cases: _, ...others } = isObject(content) ? content : {};
  checkPlainData(others, (place) => `${path}: ${place}`);
  const file = checkContent(fileSchema, content, path);
  // Each by itself: all detections of GenEval's pictures are more values than one thing from a file may have.
  return file.cases.map((value, i) => {
    checkPlainData(value, (place) => `${path}: cases.${i}.${place}`);
    const one = checkContent(caseSchema, value, `${path}: cases.${i}`);
    const where = `${path}, case ${JSON.stringify(one.name)}`;
    const metadata = checkMetadata(one.metadata, where);
    const rules = rulesOf({ ...file.options, ...options, ...one.options }, where);
    const found = new Map<string, Found[]>(
      Object.entries(one.detections).map(([name, rows]) => [
        name,
        rows.map((row) => ({ box: row.slice(0, 4) as unknown as Box, score: row[4] })),
      ]),
    );
    const { correct, reason } = judge(
      metadata,
      found,
      (name, objects) => {
        const answers = one.colours[name] ?? [];
        if (answers.length < objects.length) {
          throw new InvalidInputError(
            `${where}: expected the colours of ${counted(objects.length, "object")} of ${JSON.stringify(name)} in "colours", ` +
              `found ${answers.length}`,
          );
        }
        return answers.slice(0, objects.length);
      },
      rules,
    );
    return { name: one.name, correct, reason };
  });
}

function rulesOf(options: Record<string, unknown>, where: string) {
  try {
    return parseOptions(rulesSchema, options);
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    throw new InvalidInputError(`${where}: ${error.message}`, { cause: error });
  }
}
