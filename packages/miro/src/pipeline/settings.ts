/**
 * Settings inside pictures: the key `miro` holds them as JSON, and `parameters` as the lines that other tools show and
 * read (the convention of AUTOMATIC1111's web UI: prompt, `Negative prompt: …`, then
 * `Steps: …, Sampler: …, CFG scale: …`, where a value with a comma, a colon or a line feed is quoted as JSON).
 */
import { z } from "zod";
import { checkText } from "../arguments.js";
import { describe, InvalidInputError, invalid } from "../errors.js";
import { expectedAndReceived } from "../expectations.js";
import { cfgScale } from "../flow/guidance.js";
import { samplerTitle } from "../flow/samplers/index.js";
import { expectedOf, oneEach } from "../options.js";
import { checkTexts, encodePng, type PngText } from "../pictures/png.js";
import type { RgbImage } from "../pictures/rgb.js";
import { sha256Schema, weightsSchema } from "./loading/identity.js";
import { EDIT_OPTIONS, pictureOptions } from "./picture-options.js";

/** The longest prompt that a picture can store, in UTF-16 units; a longer one is refused before anything is drawn. */
export const MAX_PROMPT_LENGTH = 1 << 20;

const text = z.string().max(MAX_PROMPT_LENGTH);
const shortText = z.string().min(1).max(4096);
const side = z
  .int()
  .min(1)
  .max(1 << 16);
/** A picture that was drawn over: its file, below the home folder as `~/…`, and what its pixels were. */
const pictureIdentity = z.strictObject({ file: shortText.optional(), sha256: sha256Schema });

const { negativePrompt: _, seed, rewardTargets, negativeRewardTargets, ...options } = oneEach(pictureOptions).shape;

/**
 * Everything that decides a picture, as stored in its file: the options of {@link pictureOptions} by their names, as
 * they were decided for it, and what drew it. What a picture does not hold had no influence, or was drawn by a version
 * without it.
 */
export const imageSettingsSchema = z.strictObject({
  prompt: text,
  /** Absent when the unconditional text is the checkpoint's own. */
  negativePrompt: text.optional(),
  /** Null when the noise was given. */
  seed: seed.nullable(),
  ...z.object(options).partial().shape,
  steps: options.steps,
  guidanceScale: options.guidanceScale,
  guidanceType: options.guidanceType,
  /** Also one that is not there in this process. */
  sampler: shortText,
  /** A number, also where `dynamic` was asked for. */
  shift: z.number().positive(),
  /** What was drawn over, and where. */
  image: pictureIdentity.optional(),
  mask: pictureIdentity.optional(),
  /** Present where it was asked for: shapes then do not follow the batch, which on CUDA decides the last bits. */
  deterministic: z.literal(true).optional(),
  rewardTargets,
  negativeRewardTargets,
  /** Name for people: the last part of a folder, or a repository. */
  model: shortText,
  variant: shortText.optional(),
  /** The weights, where the pipeline was loaded from files. `textEncoder` is absent when its states were given. */
  weights: z
    .strictObject({ checkpoint: weightsSchema, textEncoder: weightsSchema.optional(), autoencoder: weightsSchema })
    .optional(),
  /** How the picture was chosen among others; of no influence on its pixels. */
  bestOf: z
    .strictObject({
      /** Number of candidates, and the seed of the first; of variations also its variation seed. */
      count: z.int().min(1),
      seed: z.int().min(0).nullable(),
      variationSeed: z.int().min(0).optional(),
      /** The scorer that decided, or several with their weights (`a,b=0.5`), and the scores by scorer. */
      scorer: shortText,
      scores: z.record(z.string().max(100), z.number()),
      /** By scorer, the model or measure that gave its score, such as which HPSv2. */
      models: z.record(z.string().max(100), shortText).optional(),
      /** From 1, the best. */
      rank: z.int().min(1),
    })
    .optional(),
  width: side,
  height: side,
  device: shortText,
  dtype: z.enum(["float32", "bfloat16", "float16"]),
  textEncoderDtype: z.enum(["float32", "bfloat16"]).optional(),
  /** How the network's weights were rounded further. */
  quantization: z.enum(["int8"]).optional(),
  versions: z.strictObject({ miro: shortText, torch: shortText }),
});

/** Which picture was drawn over. */
export type PictureIdentity = z.output<typeof pictureIdentity>;

/** Everything that decides a picture, as stored in its file. */
export type ImageSettings = z.output<typeof imageSettingsSchema>;

/** Settings that are options and the same for all pictures of a plan. */
export type DecidedOptions = Omit<Pick<ImageSettings, keyof typeof options>, (typeof EDIT_OPTIONS)[number]>;

/**
 * Of a plan the options that are the same for all its pictures, without what is off or empty.
 *
 * @param from default: {@link pictureOptions}
 */
export function decidedOptions(plan: object, from: z.ZodObject = pictureOptions): DecidedOptions {
  const ofEach = ["negativePrompt", "seed", "rewardTargets", "negativeRewardTargets", ...EDIT_OPTIONS];
  const isOff = (value: unknown) =>
    value === undefined || value === false || (typeof value === "object" && Object.keys(value ?? {}).length === 0);
  const names = Object.keys(from.shape).filter((name) => !ofEach.includes(name));
  const values = names.map((name) => [name, (plan as Record<string, unknown>)[name]]);
  return Object.fromEntries(values.filter(([, value]) => !isOff(value))) as DecidedOptions;
}

/** The text chunks of a picture. */
export function settingsToText(settings: ImageSettings): PngText[] {
  checkSettings(settings);
  const software = `miro-t2i ${settings.versions.miro}`;
  return [
    { keyword: "Software", text: software },
    { keyword: "parameters", text: parameters(settings, software) },
    { keyword: "miro", text: JSON.stringify(settings) },
  ];
}

/** @throws InvalidInputError for what a caller cannot have got as settings */
export function checkSettings(settings: unknown): asserts settings is ImageSettings {
  const { prompt, versions, rewardTargets } = (settings ?? {}) as Partial<Record<keyof ImageSettings, unknown>>;
  if (typeof prompt !== "string" || [versions, rewardTargets].some((one) => typeof one !== "object" || one === null))
    throw invalid("settings", "settings of a picture, as describe and readSettings give them", settings);
}

function parameters(settings: ImageSettings, software: string): string {
  const { prompt, negativePrompt, steps, sampler, guidanceScale, seed, width, height, model, variant, weights } =
    settings;
  const asked = Object.entries(settings.rewardTargets).filter(([, target]) => target !== 1);
  const fields: [string, string | number | null | undefined][] = [
    ["Steps", steps],
    ["Sampler", samplerTitle(sampler)],
    ["CFG scale", cfgScale(guidanceScale)],
    ["Seed", seed],
    ["Denoising strength", settings.strength],
    ["Variation seed", settings.variationSeed],
    ["Variation seed strength", settings.variationStrength],
    ["Size", `${width}x${height}`],
    ["Model hash", weights?.checkpoint.sha256.slice(0, 10)],
    ["Model", `${model}${variant ? `/${variant}` : ""}`],
    ["VAE hash", weights?.autoencoder.sha256.slice(0, 10)],
    ["Rewards", asked.map(([key, target]) => `${key}=${target ?? "none"}`).join(" ") || null],
    ["Version", software],
  ];
  const line = fields
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name}: ${quoted(String(value))}`);
  const negative = negativePrompt === undefined ? [] : [`Negative prompt: ${negativePrompt}`];
  return [prompt, ...negative, line.join(", ")].join("\n");
}

function quoted(value: string): string {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
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

/**
 * Marks a picture that shows several, or a chart of them, so that nobody takes it for one of them.
 *
 * @param shows what is on it
 * @param settings of the pictures, where they are the same for all
 */
export function sheetText(shows: unknown, settings?: ImageSettings): PngText {
  return { keyword: "miro", text: JSON.stringify({ sheet: shows, ...(settings && { settings }) }) };
}

/** A picture that shows several, or a chart of them, marked as such. */
export function sheetPng({ data, width, height }: RgbImage, shows: unknown): Uint8Array {
  return encodePng(data, width, height, [sheetText(shows)]);
}

/** Whether the texts are those of a picture that shows several, written by this program. */
export function isSheet(text: readonly PngText[]): boolean {
  const stored = textToSettings(text);
  return stored !== null && "sheet" in stored;
}

/**
 * The settings among the texts of a picture, checked: whatever a file holds, what this returns can be trusted in form.
 *
 * @param file name for error messages
 * @throws InvalidInputError when there are none, or one is unknown or out of its range
 *
 * @example
 * ```ts
 * import { MiroPipeline, readImageFile, readSettings } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const { images } = await pipe.generate("a bell", { steps: 4, seed: 3 });
 * await images[0].save("bell.jpg");
 * const { prompt, seed, steps } = readSettings((await readImageFile("bell.jpg")).text, "bell.jpg");
 * console.log(prompt, seed, steps);
 * ```
 */
export function readSettings(text: readonly PngText[], file: string): ImageSettings {
  checkTexts(text);
  checkText("file", file, "the name of the picture's file, for errors");
  const found = textToSettings(text);
  if (!found) {
    throw new InvalidInputError(
      `${file}: holds no settings of miro; pictures that were edited or resized often lose them`,
    );
  }
  if ("sheet" in found) throw new InvalidInputError(`${file}: is a sheet of several pictures; name one of them`);
  const result = imageSettingsSchema.safeParse(found, { error: expectedAndReceived });
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const path = [...issue.path, ...(issue.code === "unrecognized_keys" ? [issue.keys[0]!] : [])].map(String);
  const what = issue.code === "unrecognized_keys" ? "is not known to this version" : wordsOf(issue, found);
  const versions = found.versions as { miro?: unknown } | undefined;
  const writer = typeof versions?.miro === "string" ? ` (written by miro-t2i ${describe(versions.miro)})` : "";
  throw new InvalidInputError(`${file}: the stored setting ${describe(path.join("."))} ${what}${writer}`);
}

/** What was expected of a stored setting: an option whose schema has no words for its fault says so itself. */
function wordsOf({ code, path, message }: z.core.$ZodIssue, settings: Record<string, unknown>): string {
  const option = code === "custom" && path.length === 1 && (options as Record<string, z.ZodType>)[String(path[0])];
  return option ? `expected ${expectedOf(option)}, received ${describe(settings[String(path[0])])}` : message;
}

/** What may differ between two drawings of one picture, or is known only afterwards. */
const INCIDENTAL = ["versions", "device", "bestOf"];

/**
 * The first setting in which a stored picture differs from one that is asked for, or null: then they are the same
 * picture, up to the versions and the device that drew it. Of the best of several the number of candidates, their first
 * seeds, the scorer and, where both name them, the models behind it count, not the seeds that won.
 */
export function settingsDifference(
  stored: ImageSettings,
  wanted: ImageSettings,
): { name: string; stored: unknown; wanted: unknown } | null {
  const models = stored.bestOf?.models !== undefined && wanted.bestOf?.models !== undefined;
  const [a, b] = [flatten(stored, models), flatten(wanted, models)];
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (a[name] !== b[name]) return { name, stored: a[name], wanted: b[name] };
  }
  return null;
}

/** Settings as dotted names and plain values; a picture that was drawn over is what its pixels are. */
function flatten(settings: ImageSettings, withModels: boolean): Record<string, unknown> {
  const flat: Record<string, unknown> = {};
  const visit = (value: unknown, path: string) => {
    if (typeof value === "object" && value !== null) {
      for (const [key, item] of Object.entries(value)) visit(item, path ? `${path}.${key}` : key);
    } else if (value !== undefined) flat[path] = value;
  };
  visit(Object.fromEntries(Object.entries(settings).filter(([key]) => !INCIDENTAL.includes(key))), "");
  for (const name of ["image.file", "mask.file"]) delete flat[name];
  const { bestOf } = settings;
  if (bestOf) {
    const { count, seed, variationSeed, scorer, models } = bestOf;
    Object.assign(flat, { seed, "bestOf.count": count, "bestOf.scorer": scorer });
    if (variationSeed !== undefined) Object.assign(flat, { variationSeed });
    if (withModels) visit(models, "bestOf.models");
  }
  return flat;
}
