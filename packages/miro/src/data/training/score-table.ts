/**
 * What training needs of every sample's metadata, as columns, read once for each shard and kept beside it: `00000.tar` →
 * `00000.scores.safetensors`.
 *
 *   flags           (n,) uint8      sum of METADATA, UNREADABLE, IMAGE, CAPTION
 *   width, height   (n,) float64    NaN where unknown
 *   <name>_score    (n,) float64    every numeric field whose name ends so, `synthetic_…` included; NaN where a sample has none
 *
 * Sample i is the i-th of `groupSamples`. The file says size and time of the archive it was made from and is made anew when they differ.
 */
import { statSync } from "node:fs";
import { FormatError, SafetensorsFile, scope, TorchError, tensor, writeSafetensors } from "@miro-t2i/torch";
import { groupSamples } from "../shards/index.js";
import { TarFile } from "../shards/tar-file.js";
import { numberField, parseMetadata } from "./metadata.js";

/** Changed whenever what a table holds changes its meaning. */
const FORMAT = "1";

/** Bits of a sample's flags. */
export const FLAG = { METADATA: 1, UNREADABLE: 2, IMAGE: 4, CAPTION: 8 } as const;

const IMAGE_EXTENSIONS = ["jpg", "jpeg", "png", "webp"];

/** The columns of one shard. */
export interface ScoreTable {
  /** Samples. */
  readonly count: number;
  /** See {@link FLAG}. */
  readonly flags: Uint8Array;
  readonly width: Float64Array;
  readonly height: Float64Array;
  /** By field name. */
  readonly scores: ReadonlyMap<string, Float64Array>;
}

/** Where a shard's table is kept. */
export function scoreTablePath(shard: string): string {
  return shard.replace(/(?:\.tar)?$/, ".scores.safetensors");
}

/**
 * The table of a shard: the kept one where it belongs to the archive as it is, else made anew and kept. In a folder that cannot be
 * written, it is made each time.
 *
 * @param onMessage told when a table cannot be kept
 * @throws ShardError when the archive cannot be read
 */
export function scoreTable(shard: string, onMessage: (message: string) => void = () => {}): ScoreTable {
  const path = scoreTablePath(shard);
  const kept = readTable(path, shard);
  if (kept !== null) return kept;
  const { table, identity } = makeScoreTable(shard);
  try {
    scope(() => {
      const columns = { width: table.width, height: table.height, ...Object.fromEntries(table.scores) };
      writeSafetensors(
        path,
        {
          flags: tensor(table.flags, { dtype: "uint8" }),
          ...Object.fromEntries(
            Object.entries(columns).map(([name, values]) => [name, tensor(values, { dtype: "float64" })]),
          ),
        },
        identity,
      );
    });
  } catch (error) {
    onMessage(`${(error as Error).message}; the scores of this shard will be read again next time`);
  }
  return table;
}

/** Reads the metadata of a shard. */
function makeScoreTable(shard: string): { table: ScoreTable; identity: Record<string, string> } {
  const tar = TarFile.open(shard);
  try {
    const samples = groupSamples(tar.members);
    const count = samples.length;
    const unknown = () => new Float64Array(count).fill(Number.NaN);
    const table = {
      count,
      flags: new Uint8Array(count),
      width: unknown(),
      height: unknown(),
      scores: new Map<string, Float64Array>(),
    };
    samples.forEach(({ members }, i) => {
      let flags = members.has("txt") ? FLAG.CAPTION : 0;
      if (IMAGE_EXTENSIONS.some((extension) => members.has(extension))) flags |= FLAG.IMAGE;
      const json = members.get("json");
      if (json !== undefined) {
        flags |= FLAG.METADATA;
        try {
          const metadata = parseMetadata(tar.read(json));
          table.width[i] = numberField(metadata, "width");
          table.height[i] = numberField(metadata, "height");
          for (const name of Object.keys(metadata)) {
            if (!name.endsWith("_score")) continue;
            const value = numberField(metadata, name);
            if (Number.isNaN(value)) continue;
            const column = table.scores.get(name) ?? unknown();
            column[i] = value;
            table.scores.set(name, column);
          }
        } catch (error) {
          if (!(error instanceof SyntaxError)) throw error;
          flags |= FLAG.UNREADABLE;
        }
      }
      table.flags[i] = flags;
    });
    return { table, identity: identityOf(tar.fingerprint.sizeBytes, tar.fingerprint.mtimeUs) };
  } finally {
    tar.close();
  }
}

function identityOf(sizeBytes: number, mtimeUs: number): Record<string, string> {
  return { format: FORMAT, tar_size_bytes: String(sizeBytes), tar_mtime_us: String(mtimeUs) };
}

/** The kept table, or null where there is none, it is damaged, or it belongs to another state of the archive. */
function readTable(path: string, shard: string): ScoreTable | null {
  let expected: Record<string, string>;
  let file: SafetensorsFile;
  try {
    const { size, mtimeMs } = statSync(shard);
    expected = identityOf(size, Math.round(mtimeMs * 1000));
    file = SafetensorsFile.open(path);
  } catch (error) {
    if (
      error instanceof FormatError ||
      error instanceof TorchError ||
      (error as NodeJS.ErrnoException).code !== undefined
    )
      return null;
    throw error;
  }
  try {
    if (Object.entries(expected).some(([key, value]) => file.metadata.get(key) !== value)) return null;
    return scope(() => {
      const column = (name: string, formatDtype: string) => {
        const info = file.info(name);
        return info.formatDtype === formatDtype && info.shape.length === 1 ? file.get(name).data() : null;
      };
      const flags = column("flags", "U8") as Uint8Array | null;
      const columns = new Map<string, Float64Array>();
      for (const name of file.keys()) {
        if (name === "flags") continue;
        const values = column(name, "F64") as Float64Array | null;
        if (values === null || values.length !== flags?.length) return null;
        columns.set(name, values);
      }
      const [width, height] = [columns.get("width"), columns.get("height")];
      if (flags === null || width === undefined || height === undefined) return null;
      columns.delete("width");
      columns.delete("height");
      return { count: flags.length, flags, width, height, scores: columns };
    });
  } catch (error) {
    if (error instanceof TorchError) return null;
    throw error;
  } finally {
    file.close();
  }
}
