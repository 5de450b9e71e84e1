/**
 * Shards that are still to be made. `miro preprocess` puts a manifest that says `writing` beside a tar that it begins;
 * where the tar is not there, it was stopped or is at work.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { byCodePoint } from "../../files/code-point-order.js";
import { readJson } from "../../files/whole-files.js";
import { counted, plural } from "../../numbers.js";
import { listed } from "../../printable.js";

const begunSchema = z.object({
  format: z.literal("miro-shard-manifest"),
  state: z.literal("writing"),
  stage: z.literal("vae"),
});
const MANIFEST = ".manifest.json";
/** Shards that a warning names. */
const LISTED = 3;

/** What makes them. */
export const FINISH = "run the same miro preprocess again, or wait for its end";

/** Warns of shards that were begun and are missing: nothing else tells that the data are not whole. */
export function warnUnfinished(folder: string, onMessage: ((message: string) => void) | undefined): void {
  const found = unfinishedShards(folder);
  if (found !== null) onMessage?.(`warning: ${folder}: ${found}; ${FINISH}`);
}

/** Says of which shards of a folder that is so; null where there are none. */
export function unfinishedShards(folder: string): string | null {
  const names = readdirSync(folder);
  const tars = new Set(names.filter((name) => name.endsWith(".tar")));
  const missing = names
    .filter((name) => name.endsWith(MANIFEST) && !name.startsWith("."))
    .map((name) => name.slice(0, -MANIFEST.length))
    .filter((stem) => !tars.has(`${stem}.tar`) && isBegun(join(folder, stem + MANIFEST)))
    .sort(byCodePoint);
  if (missing.length === 0) return null;
  const begun = counted(missing.length, "shard was", "shards were");
  return `${begun} begun and ${plural(missing.length, "is", "are")} missing (${listed(missing, LISTED)})`;
}

function isBegun(manifest: string): boolean {
  try {
    return begunSchema.safeParse(readJson(manifest)).success;
  } catch {
    return false; // it is none, or has just been replaced
  }
}
