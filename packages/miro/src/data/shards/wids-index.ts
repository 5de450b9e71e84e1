/**
 * The index of a folder of shards that Python's `wids` reads and writes: `wids-index.json`, version 1, a list of shards
 * with their numbers of samples. Beside it lies `.wids-index.fingerprints.json` with the size and time of each shard
 * when it was counted, so that an index that no longer fits its shards is noticed; `wids` does not look at it.
 *
 * Paths are relative to the index, as `wids` takes them. The published training code takes them relative to the folder
 * that it is started in instead; for it, write absolute ones.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { writeFileAtomically } from "@miro-t2i/torch/io";
import { z } from "zod";
import { checkName, checkObject } from "../../arguments.js";
import { systemReason } from "../../errors.js";
import { expectedAndReceived } from "../../expectations.js";
import { field, type OptionsOf, parseOptions, readOnly } from "../../options.js";
import { type FileFingerprint, PositionalFile, sameFingerprint } from "./positional-file.js";
import { prepareTables } from "./prepare-tables.js";
import { cutProblem, noneWhole, ShardError, type ShardProblem } from "./shard-error.js";
import { ShardTable } from "./shard-table.js";
import type { TableHeader } from "./table-file.js";

/** The name under which upstream looks for an index. */
export const WIDS_INDEX_NAME = "wids-index.json";

/** A shard of an index. */
export interface IndexedShard {
  /** Path of the tar, as this process can open it. */
  path: string;
  /** Number of samples. */
  nsamples: number;
  /** Weight of the shard where the index gives one. */
  weight?: number;
  /** Name of the data set that it belongs to, where the index gives one. */
  dataset?: string;
}

/** What an index says. */
export interface WidsIndex {
  name?: string;
  shards: IndexedShard[];
}

const shardSchema = z.looseObject({
  url: z.string().min(1),
  nsamples: z.int().min(0),
  weight: z.number().nullish(),
  name: z.string().nullish(),
  dataset: z.string().nullish(),
});
const componentSchema = z.looseObject({
  source_url: z.string().nullish(),
  base: z.string().nullish(),
  name: z.string().nullish(),
  weight: z.number().nullish(),
  shardlist: z.array(shardSchema).nullish(),
});
const indexSchema = z.looseObject({
  wids_version: z.literal(1),
  name: z.string().nullish(),
  base: z.string().nullish(),
  weight: z.number().nullish(),
  shardlist: z.array(shardSchema).nullish(),
  datasets: z.array(componentSchema).nullish(),
});

/**
 * Reads an index: a plain list of shards, or the fuller form with `datasets`, each a list of its own or a `source_url`
 * of another index. Paths that are not found from the index's folder are looked for by their last component there, then
 * from the working directory: upstream writes them relative to where it was started.
 * @throws ShardError naming the file and the entry; remote shards are refused
 */
export function readWidsIndex(path: string): WidsIndex {
  checkName("path", path, "the name of a file");
  const index = parse(path, indexSchema);
  const shards = (index.shardlist ?? []).map((entry) =>
    indexed(path, index.base ?? null, entry, { weight: index.weight, dataset: index.name }),
  );
  for (const component of index.datasets ?? []) {
    let { shardlist, base } = component;
    let from = path;
    if (component.source_url != null) {
      from = localPath(path, dirname(path), component.source_url);
      const other = parse(from, indexSchema);
      if (other.datasets != null && other.datasets.length > 0)
        fail(from, "Nested", "an index that another one refers to must list its shards itself");
      shardlist = other.shardlist;
      base = other.base;
    }
    if (shardlist == null) fail(path, "BadIndex", "a data set of the index has neither shardlist nor source_url");
    for (const entry of shardlist)
      shards.push(indexed(from, base ?? null, entry, { weight: component.weight, dataset: component.name }));
  }
  if (shards.length === 0) fail(path, "NoShards", "the index lists no shards");
  return { ...(index.name == null ? {} : { name: index.name }), shards };
}

function indexed(
  index: string,
  base: string | null,
  { url, nsamples, weight, name, dataset }: z.output<typeof shardSchema>,
  inherited: { weight?: number | null; dataset?: string | null },
): IndexedShard {
  const folder = base === null ? dirname(index) : localPath(index, dirname(index), base);
  const given = weight ?? inherited.weight;
  const set = dataset ?? name ?? inherited.dataset;
  return {
    path: localPath(index, folder, url),
    nsamples,
    ...(given == null ? {} : { weight: given }),
    ...(set == null ? {} : { dataset: set }),
  };
}

function localPath(index: string, folder: string, url: string): string {
  if (url.startsWith("file:")) {
    try {
      return fileURLToPath(url);
    } catch {
      return url.slice("file:".length);
    }
  }
  if (/^[a-z][a-z0-9+.-]*:/i.test(url))
    fail(index, "RemoteShard", `${JSON.stringify(url)} is not on this machine; download it and name its folder`);
  if (isAbsolute(url)) return url;
  const places = [join(folder, url), join(folder, basename(url)), resolve(url)];
  return places.find((place) => existsSync(place)) ?? places[0]!;
}

function parse<T extends z.ZodType>(path: string, schema: T): z.output<T> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const message = error instanceof SyntaxError ? `no JSON: ${error.message.split("\n")[0]}` : systemReason(error);
    return fail(path, error instanceof SyntaxError ? "BadIndex" : "Unreadable", message);
  }
  const result = schema.safeParse(value, { error: expectedAndReceived });
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  return fail(path, "BadIndex", `no index of wids version 1: ${issue.path.join(".") || "the file"}: ${issue.message}`);
}

function fail(path: string, rule: string, message: string): never {
  throw new ShardError({ path, rule, message });
}

const writeOptions = z.strictObject({
  /** The shards, in the order of the index. */
  shards: field(readOnly(z.array(z.string().min(1)).min(1)), {
    expected: "an array of paths of tar files",
    help: "the shards, in the order of the index",
  }),
  /** Name of the data set. */
  name: field(z.string().optional(), { expected: "a text", help: "name of the data set" }),
  /** Leave out shards that were cut or cannot be read. */
  skipBrokenShards: field(z.boolean().default(false), {
    expected: "true or false",
    help: "leave out shards that were cut or cannot be read",
  }),
  /** How shards are named: relative to the index, or absolute for the published training code. Default: relative. */
  paths: field(z.enum(["relative", "absolute"]).default("relative"), {
    expected: '"relative" or "absolute"',
    help: "how shards are named: relative to the index, or absolute for the published training code",
  }),
});

/** Options of {@link writeWidsIndex}. */
export type WriteWidsIndexOptions = OptionsOf<typeof writeOptions>;

const FINGERPRINTS_VERSION = 1;
const fingerprintsSchema = z.object({
  version: z.literal(FINGERPRINTS_VERSION),
  shards: z.array(z.object({ url: z.string(), sizeBytes: z.int(), mtimeUs: z.int() })),
});

/**
 * Counts the samples of shards, makes their tables where they are missing, and writes the index with its fingerprints.
 *
 * @param path where to; by custom `wids-index.json` in the shards' folder
 * @param options of the index; `onShard` is called for each finished shard, those with new tables first
 * @returns what was written, and everything found wrong with the shards
 * @throws ShardError when a shard cannot be read at all, or none is left
 */
export async function writeWidsIndex(
  path: string,
  options: WriteWidsIndexOptions & {
    signal?: AbortSignal | undefined;
    onShard?: ((done: number, all: number) => void) | undefined;
  },
): Promise<{ index: WidsIndex; problems: ShardProblem[] }> {
  checkName("path", path, "the name of the index's file");
  checkObject("options", options, "{ shards, … }");
  const { signal, onShard, ...rest } = options;
  const { shards, name, paths, skipBrokenShards } = parseOptions(writeOptions, rest);
  await prepareTables(shards, { signal, onTable: onShard });
  const problems: ShardProblem[] = [];
  const entries: { url: string; nsamples: number }[] = [];
  const fingerprints: ({ url: string } & FileFingerprint)[] = [];
  for (const [i, shard] of shards.entries()) {
    signal?.throwIfAborted();
    const header = readable(shard, skipBrokenShards, problems);
    if (header === null) continue;
    problems.push(...header.problems);
    const url =
      paths === "absolute"
        ? resolve(shard)
        : relative(dirname(resolve(path)), resolve(shard))
            .split(sep)
            .join("/");
    entries.push({ url, nsamples: header.count });
    fingerprints.push({ url, ...header.fingerprint });
    onShard?.(i + 1, shards.length);
    await nextTurn();
  }
  if (entries.length === 0) throw noneWhole(problems[0]!);
  const text = (value: unknown) => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
  const index = { wids_version: 1, ...(name === undefined ? {} : { name }), shardlist: entries };
  writeFileAtomically(path, (write) => write(text(index)));
  writeFileAtomically(fingerprintsPath(path), (write) =>
    write(text({ version: FINGERPRINTS_VERSION, shards: fingerprints })),
  );
  return { index: readWidsIndex(path), problems };
}

/** What is known of a shard; null where it is broken and to be left out, which is then among the problems. */
function readable(shard: string, skipBroken: boolean, problems: ShardProblem[]): TableHeader | null {
  try {
    const header = ShardTable.header(shard);
    const cut = skipBroken ? cutProblem(header.problems) : undefined;
    if (cut === undefined) return header;
    problems.push({ ...cut, path: shard });
  } catch (error) {
    if (!skipBroken || !(error instanceof ShardError)) throw error;
    problems.push(error.problem);
  }
  return null;
}

/**
 * What no longer fits: shards that are missing, or of another size or time than when the index was made. An index
 * without fingerprints (Python's) gives only what is missing.
 */
export function checkWidsIndex(path: string): ShardProblem[] {
  const { shards } = readWidsIndex(path);
  const problems: ShardProblem[] = [];
  const known = new Map<string, FileFingerprint>();
  if (existsSync(fingerprintsPath(path))) {
    for (const { url, ...fingerprint } of parse(fingerprintsPath(path), fingerprintsSchema).shards)
      known.set(localPath(path, dirname(path), url), fingerprint);
  }
  for (const shard of shards) {
    try {
      const file = PositionalFile.open(shard.path);
      file.close();
      const before = known.get(shard.path);
      if (before !== undefined && !sameFingerprint(before, file.fingerprint)) {
        const message = "the shard has changed since it was indexed; make the index anew";
        problems.push({ path: shard.path, rule: "Changed", message });
      }
    } catch (error) {
      if (!(error instanceof ShardError)) throw error;
      problems.push(error.problem);
    }
  }
  return problems;
}

function fingerprintsPath(index: string): string {
  return join(dirname(index), `.${basename(index, ".json")}.fingerprints.json`);
}
