/** The folder of a scorer's published files, and where its networks go. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError } from "../errors.js";
import { readJson } from "../files/json-file.js";
import { resolveDType } from "../pipeline/loading/device.js";
import { type ModelSource, resolveModel } from "../pipeline/loading/hub.js";
import type { LoadScorerOptions } from "./scorer.js";
import type { WeightsPlace } from "./strict-weights.js";

/** @param parameters of the network; small ones are computed in float32 unless another dtype is asked for */
export function placeOf({ device = "cpu", dtype = "auto" }: LoadScorerOptions, parameters: number): WeightsPlace {
  return { device, dtype: resolveDType(dtype, device, parameters) };
}

/**
 * A folder with the weights, fetched from the Hub where it is a repository.
 *
 * @param key of the scorer, for errors
 * @param weights file names, of which the first that is there is taken; with an index come the files that it names
 * @param sideFiles that are fetched too where they exist: shapes, vocabularies
 * @throws InvalidInputError when none of the weights is there
 */
export async function fetchFolder(
  name: string,
  key: string,
  weights: readonly string[],
  sideFiles: readonly string[],
  { cacheDir, onDownload, onMessage, signal }: LoadScorerOptions,
): Promise<string> {
  const source = await resolveModel(name, `weights.${key}`, { cacheDir, onDownload, onMessage, signal });
  const file = weights.find((file) => source.files.includes(file));
  if (file === undefined)
    throw new InvalidInputError(`${name}: holds no weights of ${key}; expected ${weights.join(" or ")}`);
  await source.fetch([file, ...sideFiles.filter((file) => source.files.includes(file))]);
  if (file.endsWith(".index.json")) await source.fetch(shardsOf(source, file));
  return source.folder;
}

/** Files that an index names; what is wrong with it is said when it is opened. */
function shardsOf({ folder, files }: ModelSource, index: string): string[] {
  const path = join(folder, index);
  const map = existsSync(path) ? (readJson(path) as { weight_map?: unknown } | null)?.weight_map : null;
  const names = new Set(typeof map === "object" && map !== null ? Object.values(map) : []);
  return files.filter((file) => names.has(file));
}
