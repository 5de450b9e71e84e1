/**
 * What a run's network is as a model: the description beside each checkpoint, and after the last step a release folder
 * in half precision with the averaged network, and with copies of the frozen text encoder and autoencoder where the
 * recipe names their folders, so that the release needs nothing else. Of parts on the Hub it has the names.
 */
import { join, resolve } from "node:path";
import { isFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { parsePrecondConfig, parseRinConfig, type RinConfig } from "../../networks/config.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { type CopyPartOptions, copyPart } from "../../pipeline/loading/copy-part.js";
import { type ReleaseConfig, sdxlSettings } from "../../pipeline/loading/release-config.js";
import { MODEL_FILE, modelText } from "../../pipeline/loading/run-model.js";
import { saveCheckpoint } from "../../pipeline/loading/save-checkpoint.js";
import type { DataConstants } from "../batches/batches.js";
import { type SourceFacts, sourceFacts } from "../batches/sources.js";
import type { Recipe } from "../recipes/recipe.js";
import { emaFile } from "./checkpoint.js";

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
  await copyFrozenParts(factsOf(recipe), output, { half: true });
}

/**
 * The files beside a checkpoint's weights that make a model of it, by name.
 * @param emaNames the recipe's EMA weights by their published names
 */
export async function modelTexts(recipe: Recipe, emaNames: readonly string[]): Promise<Record<string, string>> {
  const { textEncoder, autoencoder, release } = factsOf(recipe);
  const description = {
    network: emaFile(emaNames[recipe.ema.defaultIndex]!),
    config: releaseConfigOf(recipe, parseRinConfig(recipe.network)),
    textEncoder: wherever(textEncoder),
    vae: wherever(autoencoder),
  };
  return { [MODEL_FILE]: modelText(description), ...(await release?.files?.()) };
}

function factsOf({ data, network }: Recipe): SourceFacts {
  return sourceFacts(data, parseRinConfig(network));
}

/** A part's name that means the same in every working directory. */
function wherever(name: string | undefined): string | undefined {
  return name !== undefined && isFolder(name) ? resolve(name) : name;
}

/** The configuration of a release; without `img_resolution` where the recipe's data do not say it. */
export function releaseConfigOf(recipe: Recipe, network: RinConfig): ReleaseConfig {
  const { textTokens, release, textEncoder, autoencoder, sdxlLatents } = sourceFacts(recipe.data, network);
  return {
    network,
    preconditioning: parsePrecondConfig(recipe.preconditioning),
    coherenceKeys: network.coherenceKeys,
    settings: {
      ...(sdxlLatents && sdxlSettings(sdxlLatents)),
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
      ...(textEncoder !== undefined && !isFolder(textEncoder) && { text_encoder_repo: textEncoder }),
      ...(autoencoder !== undefined && !isFolder(autoencoder) && { vae_repo: autoencoder }),
    },
  };
}

/**
 * Copies the frozen models of a run, where they are folders, and what else a release of it has beside its weights.
 */
export async function copyFrozenParts(
  { textEncoder, autoencoder, release }: Pick<SourceFacts, "textEncoder" | "autoencoder" | "release">,
  output: string,
  options: CopyPartOptions,
): Promise<void> {
  for (const [name, text] of Object.entries((await release?.files?.()) ?? {}))
    writeFileAtomic(join(output, name), text, { overwrite: true });
  for (const [part, name] of [
    ["text_encoder", textEncoder],
    ["vae", autoencoder],
  ] as const)
    if (name !== undefined && isFolder(name)) await copyPart(name, join(output, part), options);
}
