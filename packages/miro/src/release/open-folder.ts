/** A release folder as what another release, or a training checkpoint, is made from. */
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { readNpy } from "@miro-t2i/torch/io";
import { defaultNormalization } from "../autoencoder/normalization.js";
import { InvalidInputError } from "../errors.js";
import { openTensorFile } from "../files/tensor-files.js";
import { weightFiles } from "../pipeline/loading/checkpoint.js";
import { copyPart } from "../pipeline/loading/copy-part.js";
import { readReleaseConfig } from "../pipeline/loading/release-config.js";
import { isRun } from "../pipeline/loading/run-checkpoint.js";
import { VOCABULARY_FILE } from "../text/vocabulary.js";
import type { ReleaseSource } from "./source.js";
import type { Weight } from "./weights.js";

/** @throws InvalidInputError for a run of `miro train`, where a release is wanted */
export function refuseRun(folder: string): void {
  if (isRun(folder))
    throw new InvalidInputError(
      `${folder}: is a run of miro train; miro convert makes a release of it, and a run that has ended has one in export/`,
    );
}

/** Opens a folder; text states of the empty prompt become (n, d) float32. @throws MiroError naming the file */
export function openFolder(path: string): ReleaseSource {
  const config = readReleaseConfig(path);
  const files = weightFiles(path).map((name) => openTensorFile(join(path, name)));
  const close = () => {
    for (const file of files) file[Symbol.dispose]();
  };
  try {
    const weights = new Map<string, Weight>(
      files.flatMap((file) =>
        file
          .keys()
          .filter((key) => !key.startsWith("postprocessing.vae."))
          .map((key) => [key, { file, key }] as const),
      ),
    );
    for (const module of ["data_preprocessing", "postprocessing"] as const) {
      if (weights.has(`${module}.scale`)) continue;
      const { scale, bias } = defaultNormalization(config.settings[module] ?? {});
      weights.set(`${module}.scale`, scale);
      weights.set(`${module}.bias`, bias);
    }
    const states = readNpy(join(path, "uncond_embedding.npy")).float();
    return {
      path,
      config,
      weights,
      uncondEmbedding: states.view(-1, states.size(-1)),
      average: "the weights of a release",
      step: null,
      preset: null,
      recipe: null,
      checkpoint: null,
      copyParts: async (folder, _, signal) => {
        for (const part of ["text_encoder", "vae"])
          if (existsSync(join(path, part)))
            await copyPart(join(path, part), join(folder, part), { root: path, signal });
        // What a small model knows, and what it is shown with.
        for (const name of [VOCABULARY_FILE, "examples.txt"])
          if (existsSync(join(path, name))) copyFileSync(join(path, name), join(folder, name));
      },
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Whether a folder is a release. */
export function isReleaseFolder(path: string): boolean {
  return existsSync(join(path, "config.json")) && existsSync(join(path, "uncond_embedding.npy"));
}
