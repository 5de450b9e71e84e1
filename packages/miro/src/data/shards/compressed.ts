/** Tars that were compressed as a whole, as `tar -czf` does: nothing in them can be read by its position. */

/** Programs by the first bytes that they write, in hexadecimal digits. */
const MAGIC = [
  ["gzip", "1f8b"],
  ["zstd", "28b52ffd"],
  ["bzip2", "425a68"],
  ["xz", "fd377a585a00"],
] as const;

/** The program that a file was compressed with, by its first bytes; null where it was not. */
export function compressorOf(start: Uint8Array): string | null {
  const digits = Buffer.from(start.subarray(0, 8)).toString("hex");
  return MAGIC.find(([, magic]) => digits.startsWith(magic))?.[0] ?? null;
}

/** Those names that are of compressed tars, sorted. */
export function compressedTars(names: readonly string[]): string[] {
  return names.filter((name) => /^[^.].*\.(?:tar\.(?:gz|zst|bz2|xz)|tgz)$/i.test(name)).sort();
}
