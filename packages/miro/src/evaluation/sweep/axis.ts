/**
 * The axes of a sweep: what changes from column to column, or from row to row, written as `NAME=VALUES`.
 *
 *   reward.KEY=0:1:0.25        target of one reward                     from 0 to 1 in steps of 0.25
 *   negative.KEY=0,0.5,1       target of one reward in the negative branch of guidance
 *   tradeoff.A.B=0:1:0.25      negative targets t for reward A and 1 − t for reward B: the picture is led away from B at
 *                              the one end and from A at the other (the paper's pairwise trade-offs)
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
import { InvalidInputError, invalid } from "../../errors.js";
import { checkKey } from "../../files/plain-data.js";
import { type SamplerOptionValue, samplerNames, samplerOptionsOfAll } from "../../flow/samplers/index.js";
import { about, message } from "../../message.js";

/** What one place of a sweep changes in the settings of the whole. */
export interface CellChange {
  prompt?: string;
  seed?: number;
  model?: string;
  /** "" is the checkpoint itself. */
  variant?: string;
  steps?: number;
  evaluations?: number;
  guidanceScale?: number;
  sampler?: string;
  samplerOptions?: Record<string, SamplerOptionValue>;
  rewardTargets?: Record<string, number>;
  negativeRewardTargets?: Record<string, number>;
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

const AXES = [
  "reward.KEY",
  "negative.KEY",
  "tradeoff.KEY.KEY",
  "guidance",
  "steps",
  "evaluations",
  "sampler",
  "seed",
  "model",
  "variant",
  "prompt",
];

/** Names of axes, as an error or a help text lists them. */
export function axisNames(): string[] {
  return [...AXES, ...samplerOptionsOfAll().map(({ key }) => key)];
}

const MOST_POINTS = 64;

/**
 * Reads an axis.
 *
 * @param text `NAME=VALUES`; values are separated by commas, numbers may be given as `FIRST:LAST:STEP`
 * @param parameter what the caller calls the axis, for errors
 * @param prompts the prompts of the call, for the axis `prompt`
 * @throws InvalidInputError naming what is wrong
 */
export function parseAxis(text: string, parameter: string, prompts: readonly string[]): Axis {
  const cut = text.indexOf("=");
  const name = (cut < 0 ? text : text.slice(0, cut)).trim();
  const values = cut < 0 ? "" : text.slice(cut + 1).trim();
  const points = pointsOf(name, values, parameter, prompts);
  if (points.length === 0) throw invalid(parameter, `${name}=VALUES with at least one value`, text);
  if (points.length > MOST_POINTS)
    throw invalid(parameter, `at most ${MOST_POINTS} values`, `${points.length} of ${name}`);
  return { name, points };
}

function pointsOf(name: string, values: string, parameter: string, prompts: readonly string[]): AxisPoint[] {
  const [kind = "", ...keys] = name.split(".");
  const of = `${parameter} ${name}`;
  for (const key of keys) checkKey(key, of);
  switch (keys.length === 0 ? name : kind) {
    case "prompt":
      if (values !== "")
        throw invalid(parameter, "prompt alone: its values are the prompts of the call", `prompt=${values}`);
      return prompts.map((prompt) => ({ label: prompt, value: prompt, change: { prompt } }));
    case "reward":
    case "negative": {
      if (keys.length !== 1 || keys[0] === "") break;
      const field = kind === "reward" ? "rewardTargets" : "negativeRewardTargets";
      return numbers(of, values).map((value) => point(value, { [field]: { [keys[0]!]: value } }));
    }
    case "tradeoff": {
      const [a, b] = keys;
      if (keys.length !== 2 || !a || !b || a === b) break;
      return numbers(of, values, 0, 1).map((t) => ({
        label: `${short(t)} : ${short(1 - t)}`,
        value: t,
        change: { negativeRewardTargets: { [a]: t, [b]: round(1 - t) } },
      }));
    }
    case "guidance":
      return numbers(of, values).map((value) => ({
        ...point(value, { guidanceScale: value }),
        label: value <= 0 ? "unguided" : short(value),
      }));
    case "steps":
      return integers(of, values, 1).map((steps) => point(steps, { steps }));
    case "evaluations":
      return integers(of, values, 1).map((evaluations) => point(evaluations, { evaluations }));
    case "seed":
      return integers(of, values, 0).map((seed) => point(seed, { seed }));
    case "sampler":
      return words(values).map((sampler) => {
        if (!samplerNames().includes(sampler)) throw invalid(of, `any of ${samplerNames().join(", ")}`, sampler);
        return { label: sampler, value: sampler, change: { sampler } };
      });
    case "model":
      return words(values).map((model) => ({ label: model, value: model, change: { model } }));
    case "variant":
      return words(values).map((variant) => ({
        label: variant,
        value: variant,
        change: { variant: variant === "main" ? "" : variant },
      }));
  }
  if (samplerOptionsOfAll().some(({ key }) => key === name)) {
    const numeric = words(values).every((word) => /^[-+\d.:e]+$/i.test(word));
    if (numeric) return numbers(of, values).map((value) => point(value, { samplerOptions: { [name]: value } }));
    return words(values).map((value) => ({ label: value, value, change: { samplerOptions: { [name]: value } } }));
  }
  throw new InvalidInputError(
    message`${about(parameter)}: expected one of the axes ${axisNames().join(", ")}, received ${JSON.stringify(name)}`,
  );
}

function point(value: number, change: CellChange): AxisPoint {
  return { label: short(value), value, change };
}

function words(values: string): string[] {
  return values
    .split(",")
    .map((word) => word.trim())
    .filter(Boolean);
}

/** Numbers and ranges; both ends of a range belong to it where its steps reach them. */
function numbers(parameter: string, values: string, least = -Infinity, most = Infinity): number[] {
  return words(values).flatMap((word) => {
    const parts = word.split(":").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
    if (parts.length > 3 || parts.some((part) => !Number.isFinite(part)))
      throw invalid(parameter, "numbers separated by commas, or FIRST:LAST:STEP", word);
    const [first, last = first, step = 1] = parts as [number, number?, number?];
    const count = Math.floor((last! - first) / step! + 1e-9) + 1;
    if (!(step! > 0) || count < 1)
      throw invalid(parameter, "FIRST:LAST:STEP with FIRST ≤ LAST and a positive STEP", word);
    if (count > MOST_POINTS) throw invalid(parameter, `at most ${MOST_POINTS} values`, word);
    const list = Array.from({ length: count }, (_, i) => round(first + i * step!));
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
