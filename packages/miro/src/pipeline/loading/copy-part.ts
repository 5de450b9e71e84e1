/** Copies a frozen model, a text encoder or an autoencoder, into the release that needs it. */
import { statSync } from "node:fs";
import { copyFile, readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { scope, type Tensor } from "@miro-t2i/torch";
import { type DeferredTensor, readSafetensors, writeSafetensorsInPieces } from "@miro-t2i/torch/io";
import { MiroError } from "../../errors.js";
import { createFolder } from "../../files/make-folder.js";
import { release } from "../../flow/release.js";
import { inPieces } from "../../pieces.js";
import { checkLinks } from "./hub-cache.js";

/** A link that leads nowhere is none of its files. */
const NONE = { throwIfNoEntry: false } as const;

/** How {@link copyPart} copies. */
export interface CopyPartOptions {
  /** What links must not lead out of (default: the folder that is copied). */
  root?: string;
  /** Whether float32 tensors become float16 (default false). */
  half?: boolean;
  /** Stops between two files, and between two tensors that are converted. */
  signal?: AbortSignal | undefined;
}

/**
 * Copies a folder's files, those that links lead to as well: the Hub's cache holds nothing but links.
 * @param to made where it is missing
 * @throws InvalidInputError for a link out of the folder; the signal's reason
 */
export async function copyPart(
  from: string,
  to: string,
  { root = from, half = false, signal }: CopyPartOptions = {},
): Promise<void> {
  const names = (await readdir(from)).filter((name) => statSync(join(from, name), NONE)?.isFile());
  const paths = names.map((name) => relative(root, join(from, name)));
  checkLinks(root, paths, "source");
  createFolder(to);
  for (const name of names) {
    signal?.throwIfAborted();
    const [source, target] = [join(from, name), join(to, name)];
    if (half && name.endsWith(".safetensors")) await halve(source, target, signal);
    else await copyFile(source, target);
  }
}

/** In float16. @throws MiroError where a value is too large for it */
function halved(path: string, name: string, tensor: Tensor): Tensor {
  const half = tensor.half();
  if (scope(() => half.isfinite().all().item()) || !scope(() => tensor.isfinite().all().item())) return half;
  half.dispose();
  throw new MiroError(`${path}: ${name}: holds values that do not fit float16; keep the release in float32`);
}

async function halve(source: string, target: string, signal: AbortSignal | undefined): Promise<void> {
  const stored = readSafetensors(source); // over the file's map: nothing is in memory yet
  const tensors = [...stored].map(([name, tensor]): [string, Tensor | DeferredTensor] => {
    const { dtype, shape } = tensor;
    return [name, dtype === "float32" ? { dtype: "float16", shape, read: () => halved(source, name, tensor) } : tensor];
  });
  try {
    await inPieces(writeSafetensorsInPieces(target, new Map(tensors), { format: "pt" }), signal);
  } finally {
    release(stored.values());
  }
}
