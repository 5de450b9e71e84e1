/**
 * A trained model as a release folder in half precision: the averaged network, and copies of the frozen text encoder
 * and autoencoder beside it where the recipe names them, so that the folder needs nothing else.
 */
import { copyFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { makeFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { parsePrecondConfig, parseRinConfig, type RinConfig } from "../../networks/config.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import type { ReleaseConfig } from "../../pipeline/loading/release-config.js";
import { saveCheckpoint } from "../../pipeline/loading/save-checkpoint.js";
import type { DataConstants } from "../batches/batches.js";
import { sourceOf } from "../batches/sources.js";
import type { Recipe } from "../recipes/recipe.js";

export interface ExportOptions {
  recipe: Recipe;
  /** Folder to fill. */
  output: string;
  /** The network to release, with its EMA weights. */
  network: Rin;
  preconditioning: FlowPrecond;
  constants: DataConstants;
}

/** Writes the release into a folder. */
export async function exportRelease({
  recipe,
  output,
  network,
  preconditioning,
  constants,
}: ExportOptions): Promise<void> {
  const config = releaseConfigOf(recipe, network.config);
  if (config.settings.img_resolution === undefined) throw new TypeError(`${recipe.data.kind} data have no release`);
  saveCheckpoint(output, {
    config,
    network,
    preconditioning,
    postprocessing: constants.normalization,
    uncondEmbedding: constants.uncondEmbedding,
    dtype: "float16",
  });
  await copyFrozenParts(recipe, output);
}

/** The configuration of a release; without `img_resolution` where the recipe's data do not say it. */
export function releaseConfigOf(recipe: Recipe, network: RinConfig): ReleaseConfig {
  const { textTokens, release } = sourceOf(recipe.data).facts(recipe.data, network);
  return {
    network,
    preconditioning: parsePrecondConfig(recipe.preconditioning),
    coherenceKeys: network.coherenceKeys,
    settings: {
      scheduler: {
        start: recipe.scheduler.start,
        end: recipe.scheduler.end,
        shift: recipe.scheduler.shift,
        clip_min: recipe.scheduler.clipMin,
      },
      sampler_defaults: {
        num_steps: recipe.samples.steps,
        guidance_scale: recipe.samples.guidanceScale,
        shift: recipe.samples.shift,
      },
      data_resolution: network.dataSize,
      ...(release && { img_resolution: release.imgResolution }),
      max_text_len: textTokens,
    },
  };
}

/** Copies the frozen models of a recipe, where it names folders, so that the release needs nothing else. */
export async function copyFrozenParts(recipe: Recipe, output: string): Promise<void> {
  const { textEncoder, autoencoder, release } = sourceOf(recipe.data).facts(
    recipe.data,
    parseRinConfig(recipe.network),
  );
  for (const [name, text] of Object.entries((await release?.files?.()) ?? {}))
    writeFileAtomic(join(output, name), text, { overwrite: true });
  if (textEncoder !== undefined) copyHalved(textEncoder, join(output, "text_encoder"));
  if (autoencoder !== undefined) copyHalved(autoencoder, join(output, "vae"));
}

/** Copies a folder's files; float32 tensors become float16. */
function copyHalved(from: string, to: string): void {
  makeFolder(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (!entry.name.endsWith(".safetensors")) copyFileSync(source, target);
    else
      scope(() => {
        const tensors = [...readSafetensors(source)];
        writeSafetensors(target, new Map(tensors.map(([name, t]) => [name, t.dtype === "float32" ? t.half() : t])), {
          format: "pt",
        });
      });
  }
}
