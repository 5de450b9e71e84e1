/**
 * `hparams.json`: how the pictures of a folder were made, with the keys of the published generator and behind them what
 * it leaves out. Two runs that differ in anything that decides pixels do not share a folder.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { isObject } from "../../../arguments.js";
import { describe, InvalidInputError } from "../../../errors.js";
import { readJson } from "../../../files/json-file.js";
import { writeFileAtomic } from "../../../files/whole-files.js";
import { message, option } from "../../../message.js";
import type { MiroPipeline } from "../../../pipeline/pipeline.js";
import type { ImageSettings } from "../../../pipeline/settings.js";
import type { PromptSet } from "../prompts.js";

/** Contents of the file. */
export type Hparams = Record<string, unknown>;

/** What may differ between runs that fill one folder together. */
const INCIDENTAL = new Set([
  "n_samples",
  "checkpoint",
  "metadata_file",
  "batch_size",
  "device",
  "versions",
  "requested",
]);

/** What is recorded of a run. @param settings of any of its pictures */
export function hparamsOf(
  pipe: MiroPipeline,
  settings: ImageSettings,
  {
    set,
    samples,
    seed,
    batchSize,
    requested,
  }: { set: PromptSet; samples: number; seed: number; batchSize: number; requested: unknown },
): Hparams {
  const { rewardTargets, negativeRewardTargets, weights } = settings;
  const keys = [...pipe.coherenceKeys];
  return {
    checkpoint: settings.model,
    n_samples: samples,
    steps: settings.steps,
    cfg: settings.guidanceScale,
    seed,
    coherence_keys: keys,
    coherence_values: keys.map((key) => rewardTargets[key]),
    uncoherence_values: keys.map((key) => negativeRewardTargets[key]),
    guidance_type: settings.guidanceType,
    negative_prompts: settings.negativePrompt ?? null,
    guidance_window: settings.guidanceWindow ?? null,
    sampler: settings.sampler,
    sampler_options: settings.samplerOptions ?? {},
    shift: settings.shift,
    batch_size: batchSize,
    deterministic: settings.deterministic ?? false,
    metadata_file: set.name,
    metadata_sha256: set.sha256,
    noise: "seeded by philox4x32-10 of the seed, the SHA-256 of the prompt and the number of the picture",
    max_text_tokens: pipe.config.settings.max_text_len,
    width: settings.width,
    height: settings.height,
    dtype: settings.dtype,
    text_encoder_dtype: settings.textEncoderDtype ?? null,
    quantization: settings.quantization ?? "none",
    variant: settings.variant ?? null,
    weights: weights ?? null,
    device: settings.device,
    versions: settings.versions,
    requested,
  };
}

/** The file of a folder, null where there is none. @throws MiroError or InvalidInputError when it cannot be read */
export function readHparams(folder: string): Hparams | null {
  const path = join(folder, "hparams.json");
  if (!existsSync(path)) return null;
  const content = readJson(path);
  if (!isObject(content)) throw new InvalidInputError(`${path}: expected an object, received ${describe(content)}`);
  return content;
}

/**
 * Records how pictures are made, after a comparison with what is recorded.
 * @throws InvalidInputError naming what differs, unless `overwrite` is set
 */
export function writeHparams(folder: string, wanted: Hparams, overwrite: boolean): void {
  const path = join(folder, "hparams.json");
  const stored = readHparams(folder);
  if (stored !== null && !overwrite) {
    if (!("metadata_sha256" in stored))
      throw new InvalidInputError(
        message`${path}: another program made these pictures; judge them with ${option("images")}, or choose another ${option("outdir")}`,
      );
    const differing = Object.keys(wanted).find(
      (key) => !INCIDENTAL.has(key) && JSON.stringify(stored[key]) !== JSON.stringify(wanted[key]),
    );
    if (differing !== undefined)
      throw new InvalidInputError(
        message`${path}: these pictures were made with other settings: ${differing} is ${describe(stored[differing])} there and ${describe(wanted[differing])} here; choose another ${option("outdir")}, or ${option("overwrite", true)} to draw them again`,
      );
    // Several processes write the same; more pictures of a prompt are asked for now and then.
    if (Number(stored.n_samples) >= Number(wanted.n_samples)) return;
  }
  writeFileAtomic(path, `${JSON.stringify(wanted, null, 2)}\n`, { overwrite: true });
}
