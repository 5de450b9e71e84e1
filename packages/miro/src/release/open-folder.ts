/** A release folder as what another release, or a training checkpoint, is made from. */
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { defaultNormalization } from "../autoencoder/normalization.js";
import { InvalidInputError, MiroError } from "../errors.js";
import { openReleaseFiles, uncondStates } from "../pipeline/loading/checkpoint.js";
import { copyPart } from "../pipeline/loading/copy-part.js";
import { isRun } from "../pipeline/loading/run-checkpoint.js";
import { VOCABULARY_FILE } from "../text/vocabulary.js";
import { type ReleaseFacts, readFacts } from "./facts.js";
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
  const files = openReleaseFiles(path);
  const { config, uncondPath } = files;
  const fail = (problem: string) => new MiroError(`${uncondPath}: ${problem}`);
  try {
    const facts = factsOf(path);
    const weights = new Map<string, Weight>(
      [...files.tensors].filter(([name]) => !name.startsWith("postprocessing.vae.")),
    );
    for (const module of ["data_preprocessing", "postprocessing"] as const)
      for (const name of ["scale", "bias"] as const) {
        const key = `${module}.${name}`;
        if (!weights.has(key)) weights.set(key, defaultNormalization(config.settings[module] ?? {})[name]);
      }
    return {
      path,
      config,
      weights,
      uncondEmbedding: scope(() => uncondStates(files.readUncondEmbedding(), config.network.labelDim, fail).clone()),
      average: facts?.average ?? "the weights of a release",
      step: facts?.step ?? null,
      preset: null,
      training: facts?.training ?? null,
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
      [Symbol.dispose]: () => files[Symbol.dispose](),
    };
  } catch (error) {
    files[Symbol.dispose]();
    throw error;
  }
}

/** What a release says of itself. Where that cannot be read it says nothing: it is written anew. */
function factsOf(path: string): ReleaseFacts | null {
  try {
    return readFacts(path);
  } catch (error) {
    if (error instanceof MiroError) return null;
    throw error;
  }
}

/** Whether a folder is a release. */
export function isReleaseFolder(path: string): boolean {
  return existsSync(join(path, "config.json")) && existsSync(join(path, "uncond_embedding.npy"));
}
