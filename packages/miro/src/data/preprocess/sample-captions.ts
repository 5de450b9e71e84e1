/**
 * The captions of a shard's samples as models are given them: resolved once, stored with the scores, and taken from
 * there by later stages.
 */
import { MiroError } from "../../errors.js";
import { cleanCaption } from "../dataset/clean-caption.js";
import type { ScoreTable } from "./scores-csv.js";
import type { RawSample } from "./sources/raw-sample.js";
import {
  captionsOfJson,
  captionsOfRow,
  type SyntheticCaptions,
  type SyntheticSource,
  type SyntheticTable,
} from "./synthetic-captions.js";

/** The columns of the score files that hold synthetic captions. */
export const LONG_COLUMN = "synthetic_caption";
export const SHORT_COLUMN = "short_synthetic_caption";

/** A sample's texts. */
export interface SampleCaptions {
  /** Cleaned. */
  original: string;
  /** null for a sample without a real synthetic caption. */
  synthetic: SyntheticCaptions | null;
  source: SyntheticSource;
}

/** The captions of a shard's samples. */
export interface ShardCaptions {
  captions: Map<string, SampleCaptions>;
  /** Samples for which a table has several different rows: none of them is taken. */
  ambiguous: ReadonlySet<string>;
}

/**
 * Resolves the captions of samples.
 *
 * @param table synthetic captions by file name, or null for those in the samples' JSON
 * @param stored scores of an earlier stage; captions that they hold are taken, so that all stages score and embed the
 *   same text
 * @param scoresPath for errors
 * @throws MiroError when the table and the stored captions differ
 */
export async function resolveCaptions(
  samples: readonly RawSample[],
  {
    table,
    stored,
    scoresPath,
    use,
  }: { table: SyntheticTable | null; stored: ScoreTable; scoresPath: string; use: boolean },
): Promise<ShardCaptions> {
  const ambiguous = new Set<string>();
  const captions = new Map<string, SampleCaptions>();
  const rows = use && table !== null ? await table.forKeys(samples.map(({ key }) => key)) : null;
  for (const { key, caption, metadata } of samples) {
    const original = cleanCaption(caption);
    let synthetic: SyntheticCaptions | null = null;
    let source: SyntheticSource = "none";
    if (use) {
      const row = rows?.get(key);
      if (row === "ambiguous") ambiguous.add(key);
      const given = rows === null ? captionsOfJson(metadata) : row && row !== "ambiguous" ? captionsOfRow(row) : null;
      const long = stored.get(key)?.get(LONG_COLUMN);
      if (typeof long === "string") {
        const short = stored.get(key)!.get(SHORT_COLUMN);
        // The published preparation stores the original caption where there is no synthetic one.
        synthetic =
          long === original && given === null ? null : { long, short: typeof short === "string" ? short : long };
        if (synthetic !== null) source = "scores";
        if (rows !== null && given !== null && given.long !== long) {
          throw new MiroError(
            `${scoresPath}, key ${key}: ${LONG_COLUMN} was scored as ${JSON.stringify(long)}, but ${table!.path} has ` +
              `${JSON.stringify(given.long)}; score again with this table, or leave it out here`,
          );
        }
      } else if (given !== null) {
        synthetic = given;
        source = rows === null ? "json" : "table";
      }
    }
    captions.set(key, { original, synthetic, source });
  }
  return { captions, ambiguous };
}
