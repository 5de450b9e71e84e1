/**
 * Settings inside pictures: the key `miro` holds them as JSON, and `parameters` as the line that other tools show and
 * read (prompt, then `Steps: …, Sampler: …, CFG scale: …`).
 */
import type { PngText } from "./png.js";
import type { ImageSettings } from "./pipeline.js";

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
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
