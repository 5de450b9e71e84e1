/** Digests by which models are told apart without reading gigabytes. */
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "../../files/sha256.js";

/** Bytes at the beginning and at the end of a file of weights that stand for it. */
const ENDS_BYTES = 2 ** 20;

/**
 * A digest of a folder's models: configurations and tokenizers whole, of each file of weights its size and both ends.
 */
export function modelFingerprint(
  folder: string,
  weights = /\.safetensors$/,
  whole = /^(config|tokenizer)\.json$/,
): string {
  const parts: unknown[] = [];
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    const size = statSync(path).size;
    if (whole.test(name)) parts.push([name, sha256(readFileSync(path))]);
    else if (weights.test(name)) parts.push([name, size, sha256(ends(path, size))]);
  }
  return sha256(JSON.stringify(parts));
}

function ends(path: string, size: number): Uint8Array {
  const length = Math.min(ENDS_BYTES, size);
  const bytes = Buffer.alloc(2 * length);
  const descriptor = openSync(path, "r");
  try {
    readSync(descriptor, bytes, 0, length, 0);
    readSync(descriptor, bytes, length, length, size - length);
  } finally {
    closeSync(descriptor);
  }
  return bytes;
}
