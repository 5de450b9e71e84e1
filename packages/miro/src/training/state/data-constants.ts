/**
 * `constants.safetensors` of a run: what a release says of the data besides the network, so that any checkpoint of the
 * run can be released without its data.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { SafetensorsFile, writeSafetensors } from "@miro-t2i/torch/io";
import { CONSTANTS_FILE } from "../../pipeline/loading/run-model.js";
import type { DataConstants } from "../batches/batches.js";

/** Stores the constants in the folder of a run. */
export function writeConstants(run: string, { normalization, uncondEmbedding }: DataConstants): void {
  scope(() =>
    writeSafetensors(join(run, CONSTANTS_FILE), {
      "normalization.scale": normalization.scale.to({ device: "cpu", dtype: "float32" }),
      "normalization.bias": normalization.bias.to({ device: "cpu", dtype: "float32" }),
      uncond_embedding: uncondEmbedding.to({ device: "cpu", dtype: "float32" }),
    }),
  );
}

/**
 * Reads them; the caller owns the tensors.
 * @returns null where the run has none: its data were made up, or an early version wrote it
 */
export function readConstants(run: string): DataConstants | null {
  const path = join(run, CONSTANTS_FILE);
  if (!existsSync(path)) return null;
  using file = SafetensorsFile.open(path);
  const get = (name: string) => file.get(name);
  return {
    normalization: { scale: get("normalization.scale"), bias: get("normalization.bias") },
    uncondEmbedding: get("uncond_embedding"),
  };
}
