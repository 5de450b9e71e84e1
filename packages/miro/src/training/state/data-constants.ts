/**
 * `constants.safetensors` of a run: what a release says of the data besides the network, so that any checkpoint of the
 * run can be released without its data. A run that knows nothing of the empty prompt leaves its text states out.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { scope } from "@miro-t2i/torch";
import { SafetensorsFile, writeSafetensors } from "@miro-t2i/torch/io";
import { CONSTANTS_FILE } from "../../pipeline/loading/run-model.js";
import type { BatchSource, DataConstants } from "../batches/batches.js";

/** What is known of the data. */
export interface KnownConstants extends Pick<DataConstants, "normalization"> {
  /** Null where nothing is known of the empty prompt. */
  uncondEmbedding: DataConstants["uncondEmbedding"] | null;
}

/** What the source of a run's batches knows; null where its data were made up. */
export function constantsOf({ constants, normalization }: BatchSource): KnownConstants | null {
  if (constants !== undefined) return constants;
  return normalization === undefined ? null : { normalization, uncondEmbedding: null };
}

/** Stores the constants in the folder of a run. */
export function writeConstants(run: string, { normalization, uncondEmbedding }: KnownConstants): void {
  scope(() =>
    writeSafetensors(join(run, CONSTANTS_FILE), {
      "normalization.scale": normalization.scale.to({ device: "cpu", dtype: "float32" }),
      "normalization.bias": normalization.bias.to({ device: "cpu", dtype: "float32" }),
      ...(uncondEmbedding && { uncond_embedding: uncondEmbedding.to({ device: "cpu", dtype: "float32" }) }),
    }),
  );
}

/**
 * Reads them; the caller owns the tensors.
 * @returns null where the run has none: its data were made up, or an early version wrote it
 */
export function readConstants(run: string): KnownConstants | null {
  const path = join(run, CONSTANTS_FILE);
  if (!existsSync(path)) return null;
  using file = SafetensorsFile.open(path);
  const get = (name: string) => file.get(name);
  return {
    normalization: { scale: get("normalization.scale"), bias: get("normalization.bias") },
    uncondEmbedding: file.keys().includes("uncond_embedding") ? get("uncond_embedding") : null,
  };
}
