/** Where the model lies that comes with the program. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Name of the bundled model. */
export const BUNDLED_MODEL = "miro-emoji";

/**
 * The folder of the bundled model, or null when it is not there: inside the package where it is installed, at the root
 * of the repository in a clone (`src/pipeline` and `dist/pipeline` are equally deep).
 */
export function bundledModel(): string | null {
  const candidates = [`../../models/${BUNDLED_MODEL}`, `../../../../models/${BUNDLED_MODEL}`];
  for (const candidate of candidates) {
    const folder = fileURLToPath(new URL(candidate, import.meta.url));
    if (existsSync(`${folder}/config.json`)) return folder;
  }
  return null;
}
