/**
 * Settings inside pictures: the key `miro` holds them as JSON, and `parameters` as the line that other tools show and
 * read (prompt, then `Steps: …, Sampler: …, CFG scale: …`).
 */
import type { RgbImage } from "./images.js";
import type { PngText } from "./png.js";

/** Everything that decides a picture, as stored in its file. */
export interface ImageSettings {
  prompt: string;
  /** Null when the noise was given. */
  seed: number | null;
  steps: number;
  guidanceScale: number;
  guidanceType: "constant" | "linear";
  guidanceWindow?: [number, number | null];
  sampler: string;
  shift: number;
  rewardTargets: Record<string, number>;
  negativeRewardTargets: Record<string, number>;
  model: string;
  variant?: string;
  width: number;
  height: number;
  device: string;
  dtype: string;
  versions: { miro: string; torch: string };
}

/** A finished picture. */
export interface GeneratedImage extends RgbImage {
  prompt: string;
  seed: number | null;
  settings: ImageSettings;
}

/** The text chunks of a picture. */
export function settingsToText(settings: ImageSettings): PngText[] {
  const { prompt, steps, sampler, guidanceScale, seed, width, height, model, variant } = settings;
  const fields = [
    `Steps: ${steps}`,
    `Sampler: ${sampler[0]!.toUpperCase()}${sampler.slice(1)}`,
    // What others call the scale is one more than w.
    `CFG scale: ${Math.max(0, guidanceScale) + 1}`,
    ...(seed === null ? [] : [`Seed: ${seed}`]),
    `Size: ${width}x${height}`,
    `Model: ${model}${variant ? `/${variant}` : ""}`,
    `Version: miro-t2i ${settings.versions.miro}`,
  ];
  return [
    { keyword: "Software", text: `miro-t2i ${settings.versions.miro}` },
    { keyword: "parameters", text: `${prompt}\n${fields.join(", ")}` },
    { keyword: "miro", text: JSON.stringify(settings) },
  ];
}

/** The settings among the texts of a picture, unchecked, or null when they are not there or are not JSON. */
export function textToSettings(text: readonly PngText[]): Record<string, unknown> | null {
  const found = text.find(({ keyword }) => keyword === "miro");
  if (!found) return null;
  try {
    const value: unknown = JSON.parse(found.text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
