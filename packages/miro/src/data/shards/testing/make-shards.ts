/** Small shards of the published layout with values that can be computed again from a sample's number. For tests. */
import { scope, tensor } from "@miro-t2i/torch";
import { encodeNpy } from "@miro-t2i/torch/io";
import { TarWriter } from "../tar-writer.js";

export const TEXT = "flan_t5_xl_embeddings.npy";
export const SYNTHETIC = "synthetic_flan_t5_xl_embeddings.npy";
export const MEAN = "vae_embeddings_mean_256.npy";
export const WIDTH = 6;
export const LATENT = [4, 3, 3];

/** Tokens of a sample's text. */
export const tokensOf = (sample: number): number => 1 + ((sample * 7) % 5);
/** The value that all numbers of an array have: different for each sample and member, exact in float16. */
export const numberIn = (sample: number, member: string): number =>
  (sample % 512) + { [TEXT]: 0, [SYNTHETIC]: 512, [MEAN]: 1024 }[member]!;

function array(shape: readonly number[], value: number): Uint8Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return scope(() => encodeNpy(tensor(new Float32Array(count).fill(value), { shape: [...shape] }).to("float16")));
}

/** Members of a sample as the published preparation writes them; `changes` replaces or (null) leaves out some. */
export function sampleFields(
  sample: number,
  changes: Record<string, Uint8Array | null> = {},
): Record<string, Uint8Array> {
  const fields: Record<string, Uint8Array | null> = {
    [TEXT]: array([tokensOf(sample), WIDTH], numberIn(sample, TEXT)),
    jpg: Buffer.alloc(1000 + (sample % 600), sample),
    json: Buffer.from(`{"clip_score": ${sample / 8}, "width": 300, "caption": "x", "vqa_score": NaN}`),
    [SYNTHETIC]: array([tokensOf(sample) + 1, WIDTH], numberIn(sample, SYNTHETIC)),
    txt: Buffer.from(`caption ${sample}`),
    [MEAN]: array(LATENT, numberIn(sample, MEAN)),
    ...changes,
  };
  return Object.fromEntries(Object.entries(fields).flatMap(([name, bytes]) => (bytes === null ? [] : [[name, bytes]])));
}

/** Writes samples `first` … `first + count - 1`. */
export async function writeShard(
  path: string,
  first: number,
  count: number,
  changes: (sample: number) => Record<string, Uint8Array | null> = () => ({}),
): Promise<void> {
  const writer = await TarWriter.create(path);
  for (let sample = first; sample < first + count; sample++)
    await writer.addSample(String(sample).padStart(6, "0"), sampleFields(sample, changes(sample)));
  await writer.finish();
}
