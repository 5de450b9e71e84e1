/**
 * The axes of a sweep: what changes from column to column, or from row to row, written as `NAME=VALUES`.
 *
 *   reward.KEY=0:1:0.25        target of one reward, from 0 to 1 in steps of 0.25; none says nothing of it
 *   negative.KEY=0,0.5,1       target of one reward in the negative branch of guidance
 *   tradeoff.A.B=0:1:0.25      negative targets t for reward A and 1 − t for reward B: the picture is led away from
 *                              B at the one end and from A at the other (the paper's pairwise trade-offs)
 *   guidance=0,0.25,1          guidance scale, 0 is unguided
 *   steps=5,10,20              sampling steps
 *   evaluations=10,20,40       evaluations of the network: as many steps as the sampler makes of them
 *   sampler=euler,heun         integration method
 *   eta=0,0.5,1                an option of the sampler's own
 *   seed=0:7                   seeds, in steps of 1
 *   model=DIR,OWNER/NAME       checkpoints
 *   variant=NAME,NAME          variants of the checkpoint; `main` is the checkpoint itself
 *   prompt                     the prompts of the call
 */
import type { z } from "zod";
import { checkList, checkObject, checkText, isText } from "../../arguments.js";
import { invalid } from "../../errors.js";
import { checkKey } from "../../files/plain-data.js";
import { message } from "../../message.js";
import {
  collects,
  columnOf,
  commaSeparated,
  declarationOf,
  expectedOf,
  fromText,
  isNumeric,
  isOnlyNumeric,
  perPrompt,
} from "../../options.js";
import { generateSchema } from "../../pipeline/generate-options.js";
import type { PromptOptions } from "../../pipeline/requests/prompt-file.js";

/**
 * What one place of a sweep changes in the settings of the whole: options of `generate`, and what belongs to the sweep.
 */
export interface CellChange extends PromptOptions {
  prompt?: string;
  seed?: number;
  model?: string;
  /** "" is the checkpoint itself. */
  variant?: string;
  evaluations?: number;
}

/** One value of an axis. */
export interface AxisPoint {
  /** As it stands on the sheet. */
  label: string;
  /** As it stands in the JSON. */
  value: string | number;
  change: CellChange;
}

/** What changes along one side of a sweep. */
export interface Axis {
  /** `guidance`, `reward.sharpness`, … */
  name: string;
  points: readonly AxisPoint[];
}

/** Axes that are no options of `generate`. */
const OWN_AXES = ["tradeoff.KEY.KEY", "evaluations", "seed", "model", "variant", "prompt"];

/** An option of `generate` as an axis: its schema and its path among the options. */
interface OptionAxis {
  schema: z.ZodType;
  path: readonly [string, string?];
}

/** The options that may differ from prompt to prompt, by the names of their axes. */
function optionAxes(options: z.ZodObject): Map<string, OptionAxis> {
  const axes = new Map<string, OptionAxis>();
  for (const [name, schema] of Object.entries<z.ZodType>(perPrompt(options).shape)) {
    const { axis = columnOf(name, schema), members } = declarationOf(schema);
    if (members)
      for (const [key, of] of Object.entries(members())) axes.set(columnOf(key, of), { schema: of, path: [name, key] });
    else if (axis !== null) axes.set(axis, { schema, path: [name] });
  }
  return axes;
}

/** Names of axes, as an error or a help text lists them. */
export function axisNames(options: z.ZodObject = generateSchema): string[] {
  const names = [...optionAxes(options)].map(([name, { schema }]) =>
    collects(schema) === "record" ? `${name}.KEY` : name,
  );
  return [...names, ...OWN_AXES];
}

const MOST_POINTS = 64;

/**
 * Reads an axis.
 *
 * @param text `NAME=VALUES`; values are separated by commas, numbers may be given as `FIRST:LAST:STEP`
 * @param parameter what the caller calls the axis, for errors
 * @param prompts the prompts of the call, for the axis `prompt`
 * @param options the options of `generate`; those that may differ from prompt to prompt are axes
 * @throws InvalidInputError naming what is wrong
 */
export function parseAxis(
  text: string,
  parameter: string,
  prompts: readonly string[],
  options: z.ZodObject = generateSchema,
): Axis {
  checkText("text", text, "NAME=VALUES");
  checkText("parameter", parameter, "what the axis is called, for errors");
  checkList("prompts", prompts, "a list of texts", isText);
  checkObject("options", options, "the options of generate, as a schema", ["shape"]);
  const cut = text.indexOf("=");
  const name = (cut < 0 ? text : text.slice(0, cut)).trim();
  const values = cut < 0 ? "" : text.slice(cut + 1).trim();
  const points = pointsOf(name, values, parameter, prompts, options);
  if (points.length === 0) throw invalid(parameter, `${name}=VALUES with at least one value`, text);
  if (points.length > MOST_POINTS)
    throw invalid(parameter, `at most ${MOST_POINTS} values`, message`${points.length} of ${name}`);
  return { name, points };
}

function pointsOf(
  name: string,
  values: string,
  parameter: string,
  prompts: readonly string[],
  options: z.ZodObject,
): AxisPoint[] {
  const [kind = "", ...keys] = name.split(".");
  const of = `${parameter} ${name}`;
  for (const key of keys) checkKey(key, of);
  switch (keys.length === 0 ? name : kind) {
    case "prompt":
      if (values !== "")
        throw invalid(parameter, "prompt alone: its values are the prompts of the call", `prompt=${values}`);
      return prompts.map((prompt) => ({ label: prompt, value: prompt, change: { prompt } }));
    case "tradeoff": {
      const [a, b] = keys;
      if (keys.length !== 2 || !a || !b || a === b) break;
      return numbers(of, values, 0, 1).map((t) => ({
        label: `${short(t)} : ${short(1 - t)}`,
        value: t,
        change: { negativeRewardTargets: { [a]: t, [b]: round(1 - t) } },
      }));
    }
    case "evaluations":
      return integers(of, values, 1).map((evaluations) => point(evaluations, { evaluations }));
    case "seed":
      return integers(of, values, 0).map((seed) => point(seed, { seed }));
    case "model":
      return commaSeparated(values).map((model) => ({ label: model, value: model, change: { model } }));
    case "variant":
      return commaSeparated(values).map((variant) => ({
        label: variant,
        value: variant,
        change: { variant: variant === "main" ? "" : variant },
      }));
  }
  const axis = optionAxes(options).get(kind);
  const isRecord = axis !== undefined && collects(axis.schema) === "record";
  if (axis === undefined || keys.length !== (isRecord ? 1 : 0) || keys[0] === "")
    throw invalid(parameter, `one of the axes ${axisNames(options).join(", ")}`, name);
  return optionPoints(axis, keys[0], of, values);
}

/** The values of an option as an axis. @param key of a record the entry that changes */
function optionPoints(
  { schema, path: [name, member] }: OptionAxis,
  key: string | undefined,
  of: string,
  values: string,
): AxisPoint[] {
  const onlyNumbers = key !== undefined || isOnlyNumeric(schema);
  return commaSeparated(values).flatMap((word) => {
    const numeric = onlyNumbers || (isNumeric(schema) && /^[-+\d.:e]+$/i.test(word));
    // Of a reward, none says nothing of it.
    const isNone = key !== undefined && word.toLowerCase() === "none";
    const read = isNone ? [null] : numeric ? numbers(of, word) : [fromText(schema, word, of)];
    return read.map((value) => {
      const inner = key === undefined ? value : { [key]: value };
      const result = schema.safeParse(inner);
      if (!result.success) throw invalid(of, expectedOf(schema), value);
      const change = { [name]: member === undefined ? result.data : { [member]: result.data } };
      return {
        label: labelOf(name, value, word),
        value: typeof value === "number" ? value : word,
        change,
      };
    });
  });
}

function labelOf(name: string, value: unknown, word: string): string {
  if (typeof value !== "number") return word;
  return name === "guidanceScale" && value <= 0 ? "unguided" : short(value);
}

function point(value: number, change: CellChange): AxisPoint {
  return { label: short(value), value, change };
}

/** Numbers and ranges; both ends of a range belong to it where its steps reach them. */
function numbers(parameter: string, values: string, least = -Infinity, most = Infinity): number[] {
  return commaSeparated(values).flatMap((word) => {
    const parts = word.split(":").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
    if (parts.length > 3 || parts.some((part) => !Number.isFinite(part)))
      throw invalid(parameter, "numbers separated by commas, or FIRST:LAST:STEP", word);
    const [first, last = first, step = 1] = parts as [number, number?, number?];
    const count = Math.floor((last - first) / step + 1e-9) + 1;
    if (!(step > 0) || count < 1)
      throw invalid(parameter, "FIRST:LAST:STEP with FIRST ≤ LAST and a positive STEP", word);
    if (count > MOST_POINTS) throw invalid(parameter, `at most ${MOST_POINTS} values`, word);
    const list = Array.from({ length: count }, (_, i) => round(first + i * step));
    const wrong = list.find((value) => value < least || value > most);
    if (wrong !== undefined) throw invalid(parameter, `numbers from ${least} to ${most}`, wrong);
    return list;
  });
}

function integers(parameter: string, values: string, least: number): number[] {
  const list = numbers(parameter, values, -Infinity, Number.MAX_SAFE_INTEGER);
  const wrong = list.find((value) => !Number.isInteger(value) || value < least);
  if (wrong !== undefined) throw invalid(parameter, `integers of at least ${least}`, wrong);
  return list;
}

/** Without the dust of binary fractions: 0.1 + 0.2 is 0.3. */
function round(value: number): number {
  return Number(value.toFixed(10));
}

function short(value: number): string {
  return String(Number(value.toFixed(4)));
}
