/** Where the models lie that come with the program. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { InvalidInputError, invalid } from "../../errors.js";
import { isFolder } from "../../files/make-folder.js";
import { about, message } from "../../message.js";

/** Name of the bundled model. */
export const BUNDLED_MODEL = "miro-emoji";

/** The folder of the bundled model, or null when it is not there. */
export function bundledModel(): string | null {
  return bundledFolder(BUNDLED_MODEL);
}

/**
 * A folder of `models/` by name, or null when it is not there: inside the package where it is installed, at the root of
 * the repository in a clone (`src/pipeline/loading` and `dist/pipeline/loading` are equally deep).
 */
export function bundledFolder(name: string): string | null {
  const candidates = [`../../../models/${name}`, `../../../../../models/${name}`];
  for (const candidate of candidates) {
    const folder = fileURLToPath(new URL(candidate, import.meta.url));
    if (existsSync(`${folder}/config.json`)) return folder;
  }
  return null;
}

/**
 * The model that is meant: a folder, a repository, or the bundled model, which is meant by its name, where no folder is
 * called so, and by no name at all.
 *
 * @throws InvalidInputError for what is no name, and when the bundled model is meant and is not in this copy
 */
export function modelOrBundled(model: string | undefined): string {
  if (model !== undefined && (typeof model !== "string" || model === "")) {
    throw invalid("model", `a folder, a run, a repository owner/name or ${BUNDLED_MODEL}`, model);
  }
  if (model !== undefined && (model !== BUNDLED_MODEL || isFolder(model))) {
    return model;
  }
  const bundled = bundledModel();
  if (bundled !== null) return bundled;
  throw new InvalidInputError(
    message`${about("model")}: the bundled model is not in this copy; name a folder or a repository`,
  );
}
