/** Autoencoders: pictures to latents and back. */
import { takeAll } from "@miro-t2i/torch/io";
import { InvalidInputError } from "../errors.js";
import type { Pieces } from "../pieces.js";
import type { Autoencoder, LoadAutoencoderOptions } from "./autoencoder.js";
import { AutoencoderKL } from "./autoencoder-kl.js";
import { PatchAutoencoder } from "./patch-autoencoder.js";
import { readConfig } from "./weights.js";

export type { Autoencoder, LatentDistribution, LoadAutoencoderOptions } from "./autoencoder.js";
export { AutoencoderKL, type AutoencoderKLConfig, parseAutoencoderKLConfig } from "./autoencoder-kl.js";
export { PatchAutoencoder, type PatchAutoencoderConfig, parsePatchAutoencoderConfig } from "./patch-autoencoder.js";
export { countStoredWeights } from "./weights.js";

/** The loaders by the `_class_name` of a folder's `config.json`. */
const LOADERS: Record<string, (folder: string, options: LoadAutoencoderOptions) => Pieces<Autoencoder>> = {
  AutoencoderKL: (folder, options) => AutoencoderKL.loading(folder, options),
  PatchAutoencoder: (folder, options) => PatchAutoencoder.loading(folder, options),
};

/**
 * Loads the autoencoder of a folder, whichever kind its `config.json` names. The caller disposes of it.
 * @throws MiroError naming the file that is missing or broken; InvalidInputError for a kind that is not known
 */
export function loadAutoencoder(folder: string, options: LoadAutoencoderOptions = {}): Autoencoder {
  return takeAll(loadingAutoencoder(folder, options));
}

/** As {@link loadAutoencoder}, in pieces. */
export function* loadingAutoencoder(folder: string, options: LoadAutoencoderOptions = {}): Pieces<Autoencoder> {
  const name = readConfig(folder)._class_name;
  const load = typeof name === "string" && Object.hasOwn(LOADERS, name) ? LOADERS[name] : undefined;
  if (load === undefined) {
    const known = Object.keys(LOADERS).join(", ");
    throw new InvalidInputError(
      `${folder}/config.json: _class_name: expected one of ${known}, received ${JSON.stringify(name)}`,
    );
  }
  return yield* load(folder, options);
}
