/** `model.safetensors` of a release, or several files with an index where one would be too large. */
import { join } from "node:path";
import type { DType } from "@miro-t2i/torch";
import { type DeferredTensor, writeSafetensorsInPieces } from "@miro-t2i/torch/io";
import { writeFileAtomic } from "../files/whole-files.js";
import { inPieces } from "../pieces.js";
import { WEIGHTS_INDEX } from "../pipeline/loading/checkpoint.js";
import { bytesOf, deferred, type ExpectedTensor, type OnBytes, ReadMeter, type Weight } from "./weights.js";

/** Dtypes that the parameters of a release may have. */
export const RELEASE_DTYPES = ["float32", "float16", "bfloat16"] as const;
export type ReleaseDType = (typeof RELEASE_DTYPES)[number];

/** How the weights are written. */
export interface WriteOptions {
  dtype: ReleaseDType;
  /** Values of a file, unless a single tensor is larger. */
  maxShardBytes: number;
  onBytes?: OnBytes | undefined;
  /** Stops between two tensors. */
  signal?: AbortSignal | undefined;
}

/**
 * Writes the tensors, one in memory at a time.
 * @returns names of the files
 */
export async function writeWeights(
  folder: string,
  weights: ReadonlyMap<string, Weight>,
  expected: ReadonlyMap<string, ExpectedTensor>,
  { dtype, maxShardBytes, onBytes, signal }: WriteOptions,
): Promise<string[]> {
  const shards: { bytes: number; tensors: Map<string, DeferredTensor> }[] = [];
  let total = 0;
  const meter = new ReadMeter(onBytes);
  for (const [name, { kind, shape }] of expected) {
    const as: DType = kind === "parameter" ? dtype : kind === "buffer" ? "float32" : "bool";
    const bytes = bytesOf({ shape, dtype: as });
    let shard = shards.at(-1);
    if (shard === undefined || shard.bytes + bytes > maxShardBytes) {
      shard = { bytes: 0, tensors: new Map() };
      shards.push(shard);
    }
    shard.bytes += bytes;
    total += bytes;
    shard.tensors.set(name, meter.track(deferred(weights.get(name)!, as)));
  }
  const digits = (value: number) => String(value).padStart(5, "0");
  const names = shards.map((_, i) =>
    shards.length === 1 ? "model.safetensors" : `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`,
  );
  for (const [i, { tensors }] of shards.entries())
    await inPieces(writeSafetensorsInPieces(join(folder, names[i]!), tensors, { format: "pt" }), signal);
  if (shards.length === 1) return names;
  const places = shards.flatMap(({ tensors }, i) => [...tensors.keys()].map((name) => [name, names[i]!] as const));
  const index = {
    metadata: { total_size: total },
    weight_map: Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  writeFileAtomic(join(folder, WEIGHTS_INDEX), `${JSON.stringify(index, null, 2)}\n`, { overwrite: true });
  return [...names, WEIGHTS_INDEX];
}
