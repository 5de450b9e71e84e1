/** Copies a frozen model, a text encoder or an autoencoder, into the release that needs it. */
import { statSync } from "node:fs";
import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Tensor } from "@miro-t2i/torch";
import { type DeferredTensor, readSafetensors, writeSafetensorsInPieces } from "@miro-t2i/torch/io";
import { createFolder } from "../../files/make-folder.js";
import { release } from "../../flow/release.js";
import { inPieces } from "../../pieces.js";

/** How {@link copyPart} copies. */
export interface CopyPartOptions {
  /** Whether float32 tensors become float16 (default false). */
  half?: boolean;
  /** Stops between two files, and between two tensors that are converted. */
  signal?: AbortSignal | undefined;
}

/**
 * Copies a folder's files, those that links lead to as well: the Hub's cache holds nothing but links.
 * @param to made where it is missing
 * @throws the signal's reason
 */
export async function copyPart(
  from: string,
  to: string,
  { half = false, signal }: CopyPartOptions = {},
): Promise<void> {
  createFolder(to);
  for (const name of await readdir(from)) {
    signal?.throwIfAborted();
    const [source, target] = [join(from, name), join(to, name)];
    if (!statSync(source).isFile()) continue;
    if (half && name.endsWith(".safetensors")) await halve(source, target, signal);
    else await copyFile(source, target);
  }
}

async function halve(source: string, target: string, signal: AbortSignal | undefined): Promise<void> {
  const stored = readSafetensors(source); // over the file's map: nothing is in memory yet
  const tensors = [...stored].map(([name, tensor]): [string, Tensor | DeferredTensor] => {
    const { dtype, shape } = tensor;
    return [name, dtype === "float32" ? { dtype: "float16", shape, read: () => tensor.half() } : tensor];
  });
  try {
    await inPieces(writeSafetensorsInPieces(target, new Map(tensors), { format: "pt" }), signal);
  } finally {
    release(stored.values());
  }
}
