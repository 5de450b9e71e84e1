/** Sizes as people write them (`5GB`, `500MB`, `2GiB`, `1000000`) and as they read them (`1.4 GB`). */

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

/** Bytes for people: `1.4 GB`, `12.0 MB`, `512 B`. */
export function formatSize(bytes: number): string {
  return inUnits(bytes, 1000, ["B", "kB", "MB", "GB", "TB"]);
}

/** Memory for people: `1.4 GiB`, `12.0 MiB`, `512 B`. */
export function formatMemory(bytes: number): string {
  return inUnits(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
}

function inUnits(bytes: number, step: number, units: readonly string[]): string {
  let value = bytes;
  let unit = 0;
  // What would round to a whole next unit is written in that unit.
  while (unit < units.length - 1 && Number(value.toFixed(unit === 0 ? 0 : 1)) >= step) {
    value /= step;
    unit++;
  }
  return `${value.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}
