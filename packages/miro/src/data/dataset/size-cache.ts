/**
 * The file in which the published code looks for the number of samples of a folder that pass its filter; without it, it
 * estimates the number from a sample. This package counts, and writes the file only for the published code.
 *
 *   total_size_256_0_0_0_0.json      {"total_size": 31}
 */
import { join } from "node:path";
import { pythonFloat } from "../../files/python-number.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import type { FilterOptions } from "./filters.js";

/** The published name: smallest side, then the two thresholds as Python prints floats, with `_` for `.`. */
export function sizeCacheName({ minImageSize, clipFilterThreshold, aestheticThreshold }: FilterOptions): string {
  const side = Number.isInteger(minImageSize) ? String(minImageSize) : pythonFloat(minImageSize);
  const [clip, aesthetic] = [clipFilterThreshold, aestheticThreshold].map((value) =>
    pythonFloat(value).replaceAll(".", "_"),
  );
  return `total_size_${side}_${clip}_${aesthetic}.json`;
}

/** Writes the file of a folder and returns its path. */
export function writeSizeCache(folder: string, options: FilterOptions, passing: number): string {
  const path = join(folder, sizeCacheName(options));
  writeFileAtomic(path, `{"total_size": ${passing}}`, { overwrite: true });
  return path;
}
