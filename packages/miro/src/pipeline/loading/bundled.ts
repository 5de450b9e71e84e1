/** Where the models lie that come with the program. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Name of the bundled model. */
export const BUNDLED_MODEL = "miro-emoji";

/** The folder of the bundled model, or null when it is not there. */
export function bundledModel(): string | null {
  return bundledFolder(BUNDLED_MODEL);
}

/**
 * A folder of `models/` by name, or null when it is not there: inside the package where it is installed, at the root of the
 * repository in a clone (`src/pipeline/loading` and `dist/pipeline/loading` are equally deep).
 */
export function bundledFolder(name: string): string | null {
  const candidates = [`../../../models/${name}`, `../../../../../models/${name}`];
  for (const candidate of candidates) {
    const folder = fileURLToPath(new URL(candidate, import.meta.url));
    if (existsSync(`${folder}/config.json`)) return folder;
  }
  return null;
}
