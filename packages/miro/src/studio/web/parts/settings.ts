/** The settings of a picture as rows for people. */
import type { Model, Settings } from "../state/api.js";
import { shortNumber } from "./field.js";

export interface Row {
  name: string;
  value: string;
}

const NAMES: Record<string, string> = {
  prompt: "Prompt",
  negativePrompt: "Negative prompt",
  model: "Model",
  variant: "Variant",
  seed: "Seed",
  steps: "Steps",
  guidanceScale: "Guidance",
  guidanceType: "Guidance over the steps",
  guidanceWindow: "Guided steps",
  sampler: "Sampler",
  samplerOptions: "Options of the sampler",
  shift: "Shift",
  strength: "Strength",
  variationSeed: "Variation seed",
  variationStrength: "Variation",
  width: "Width",
  height: "Height",
  device: "Device",
  dtype: "Precision",
};

/** One row for each setting; rewards have a row each. */
export function rowsOf(settings: Settings, models: readonly Model[]): Row[] {
  const labels = new Map(models.flatMap(({ rewards }) => rewards).map(({ key, label }) => [key, label]));
  const rows: Row[] = [];
  for (const [key, name] of Object.entries(NAMES)) {
    const value = settings[key];
    if (value !== undefined && value !== null) rows.push({ name, value: text(value) });
  }
  for (const [key, value] of Object.entries(settings.rewardTargets ?? {}))
    rows.push({ name: labels.get(key) ?? key, value: text(value) });
  for (const [key, value] of Object.entries(settings.negativeRewardTargets ?? {}))
    rows.push({ name: `${labels.get(key) ?? key}, negative`, value: text(value) });
  const best = settings.bestOf as { count: number; scorer: string; scores: Record<string, number> } | undefined;
  if (best) {
    rows.push({ name: "Best of", value: `${best.count} by ${best.scorer}` });
    for (const [key, score] of Object.entries(best.scores)) rows.push({ name: `Score ${key}`, value: text(score) });
  }
  return rows;
}

function text(value: unknown): string {
  if (value === null) return "none";
  if (typeof value === "number") return shortNumber(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Rows of two pictures beside each other, and whether they differ. */
export function differences(a: readonly Row[], b: readonly Row[]): { name: string; values: [string, string] }[] {
  const names = [...new Set([...a, ...b].map(({ name }) => name))];
  const find = (rows: readonly Row[], name: string) => rows.find((row) => row.name === name)?.value ?? "–";
  return names
    .map((name) => ({ name, values: [find(a, name), find(b, name)] as [string, string] }))
    .filter(({ values: [one, other] }) => one !== other);
}
