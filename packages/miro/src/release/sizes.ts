/** Sizes of files as people write them: `5GB`, `500MB`, `2GiB`, `1000000`. */

const UNITS: Record<string, number> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** Bytes; undefined where the text is no size. */
export function parseSize(text: string): number | undefined {
  const [, count, unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  const factor = UNITS[unit.toUpperCase()];
  if (count === undefined || factor === undefined) return undefined;
  const bytes = Math.floor(Number(count) * factor);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

/** `1.44 GB`, for people. */
export function formatSize(bytes: number): string {
  const [unit, factor] =
    bytes >= 1e9 ? ["GB", 1e9] : bytes >= 1e6 ? ["MB", 1e6] : bytes >= 1e3 ? ["kB", 1e3] : ["B", 1];
  return `${(bytes / Number(factor)).toFixed(unit === "B" ? 0 : 2)} ${unit}`;
}
