/**
 * Several shards as one numbered list of samples: tables loaded when needed and given back when many are, files opened
 * when read and closed when others need their place.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { z } from "zod";
import { checkName, checkObject } from "../../arguments.js";
import { describe, InvalidInputError, systemReason } from "../../errors.js";
import { byCodePoint } from "../../files/code-point-order.js";
import { message } from "../../message.js";
import { counted } from "../../numbers.js";
import { field, type OptionsOf, parseOptions, readOnly } from "../../options.js";
import { compressedTars } from "./compressed.js";
import { sums, upperBound } from "./order.js";
import { PositionalFile, sameFingerprint } from "./positional-file.js";
import { prepareTables } from "./prepare-tables.js";
import { CUT_REMEDY, cutProblem, noneWhole, problemText, ShardError, type ShardProblem } from "./shard-error.js";
import { ShardTable } from "./shard-table.js";
import type { TableHeader, TableProblem } from "./table-file.js";
import { readWidsIndex } from "./wids-index.js";

/** What a bad sample or shard does. */
const BAD_SAMPLE_POLICIES = ["error", "skip"] as const;
/** What happens to a sample that cannot be read: an error, or it is left out. */
export type BadSamplePolicy = (typeof BAD_SAMPLE_POLICIES)[number];

const shardSetOptions = z.strictObject({
  /** Tar files, folders of tar files, and index files (wids-index.json). */
  sources: field(z.union([z.string().min(1), readOnly(z.array(z.string().min(1)).min(1))]), {
    expected: "a path or an array of paths",
    help: "tar files, folders of tar files, and index files (wids-index.json)",
  }),
  /** What a shard or sample that cannot be read does: end with an error, or be counted and left out. Default: error. */
  onBadSample: field(z.enum(BAD_SAMPLE_POLICIES).default("error"), {
    expected: '"error" or "skip"',
    help: "what a shard or sample that cannot be read does: end with an error, or be counted and left out",
  }),
  /** With skip: the share of bad samples above which it ends with an error all the same. Default: 0.01. */
  maxBadRate: field(z.number().min(0).max(1).default(0.01), {
    expected: "a number from 0 to 1",
    help: "with skip: the share of bad samples above which it ends with an error all the same",
  }),
  /** What a shard that was cut does: end with an error, be left out, or be read as far as it goes. Default: error. */
  brokenShards: field(z.enum(["error", "skip", "read"]).default("error"), {
    expected: '"error", "skip" or "read"',
    help: "what a shard that was cut does: end with an error, be left out, or be read as far as it goes",
  }),
  /** Memory for tables of shards; those not used for longest are read again when needed. Default: 512 MiB. */
  maxTableBytes: field(
    z
      .int()
      .positive()
      .default(512 * 2 ** 20),
    {
      expected: "a positive number of bytes",
      help: "memory for tables of shards; those not used for longest are read again when needed",
    },
  ),
  /** Shards that are kept open. Default: 256. */
  maxOpenFiles: field(z.int().positive().default(256), {
    expected: "a positive integer",
    help: "shards that are kept open",
  }),
});

/** Options of {@link ShardSet.open}. */
export type ShardSetOptions = OptionsOf<typeof shardSetOptions>;

/** A shard of a set. */
export interface ShardInfo {
  readonly path: string;
  /** Which of the set's sources names it, counted from 0. */
  readonly source: number;
  /** Number of samples. */
  readonly count: number;
  readonly header: TableHeader;
}

/** An open shard; closed when it is no longer in use. */
export interface ShardLease {
  readonly file: PositionalFile;
  release(): void;
}

/** Ends the opening of a set whatever the policy for bad samples is. */
class BrokenShard extends ShardError {}

/** The shards of a data set and all their samples, by index. */
export class ShardSet {
  /** Number of the first sample of each shard, and of all behind the last. */
  readonly starts: Float64Array;
  readonly #tables = new Map<number, ShardTable>();
  #tableBytes = 0;
  readonly #files = new Map<number, { file: PositionalFile; users: number }>();
  readonly #options: z.output<typeof shardSetOptions>;

  private constructor(
    readonly shards: readonly ShardInfo[],
    /** What was left out, with the policy `skip`. */
    readonly problems: ShardProblem[],
    /** Of each shard that is not among these because it was cut or cannot be read, what is wrong with it. */
    readonly leftOut: readonly ShardProblem[],
    options: z.output<typeof shardSetOptions>,
  ) {
    this.#options = options;
    this.starts = sums(shards.map(({ count }) => count));
  }

  /**
   * Opens shards. Those that have no table yet are read through once, many of them in worker threads; the event loop
   * runs on between shards.
   *
   * @param options of the set; `onShard` is called for each finished shard, those with new tables first
   * @throws ShardError for the first bad shard, and with the policy `skip` when more than `maxBadRate` of all are bad
   */
  static async open(
    options: ShardSetOptions & {
      signal?: AbortSignal | undefined;
      onShard?: ((done: number, all: number) => void) | undefined;
    },
  ): Promise<ShardSet> {
    checkObject("options", options, "{ sources, … }");
    const { signal, onShard, ...rest } = options;
    const checked = parseOptions(shardSetOptions, rest);
    const problems: ShardProblem[] = [];
    const leftOut: ShardProblem[] = [];
    const shards: ShardInfo[] = [];
    const sources = typeof checked.sources === "string" ? [checked.sources] : checked.sources;
    const listed = sources.flatMap((name, source) => shardsOf(name).map((shard) => ({ ...shard, source })));
    await prepareTables(
      listed.map(({ path }) => path),
      { signal, onTable: onShard },
    );
    let bad = 0;
    const give = (problem: ShardProblem): void => {
      if (checked.onBadSample === "error") throw new ShardError(problem);
      problems.push(problem);
    };
    for (const [i, { path, nsamples, source }] of listed.entries()) {
      signal?.throwIfAborted();
      try {
        const header = ShardTable.header(path);
        const cut = cutProblem(header.problems);
        if (cut !== undefined && checked.brokenShards !== "read") {
          const problem = { ...cut, path };
          if (checked.brokenShards === "error") throw new BrokenShard(problem, { remedy: CUT_REMEDY });
          problems.push(problem);
          leftOut.push(problem);
          onShard?.(i + 1, listed.length);
          continue;
        }
        for (const problem of header.problems) if (problem.extension === undefined) give(problem);
        if (nsamples !== undefined && nsamples !== header.count) {
          const message = `the index says ${counted(nsamples, "sample")}, the shard has ${header.count}; make the index anew`;
          give({ path, rule: "SampleCount", message });
        }
        shards.push({ path, source, count: header.count, header });
      } catch (error) {
        if (!(error instanceof ShardError) || error instanceof BrokenShard) throw error;
        if (checked.onBadSample === "error" && checked.brokenShards !== "skip") throw error;
        problems.push(error.problem);
        if (checked.brokenShards === "skip") leftOut.push(error.problem);
        else bad++;
      }
      onShard?.(i + 1, listed.length);
      if (i % 16 === 15) await nextTurn();
    }
    if (shards.length === 0 && checked.brokenShards === "skip") throw noneWhole(problems[0]!);
    if (bad > checked.maxBadRate * listed.length) {
      throw new ShardError({
        path: problems.at(-1)!.path,
        rule: "TooManyBad",
        message: `${bad} of ${counted(listed.length, "shard")} cannot be read; the last: ${problems.at(-1)!.message}`,
      });
    }
    return new ShardSet(shards, problems, leftOut, checked);
  }

  /** Number of samples. */
  get length(): number {
    return this.starts[this.shards.length]!;
  }

  get onBadSample(): BadSamplePolicy {
    return this.#options.onBadSample;
  }

  get maxBadRate(): number {
    return this.#options.maxBadRate;
  }

  /** Shard of a sample, and its number in there. */
  locate(sample: number): { shard: number; local: number } {
    if (!(Number.isInteger(sample) && sample >= 0 && sample < this.length))
      throw new InvalidInputError(
        `sample: expected an integer from 0 to ${this.length - 1}, received ${describe(sample)}`,
      );
    const shard = upperBound(this.starts, sample);
    return { shard, local: sample - this.starts[shard]! };
  }

  /** The table of a shard. @throws ShardError `Changed` when the shard is another one than when the set was opened */
  table(shard: number): ShardTable {
    let table = this.#tables.get(shard);
    if (table !== undefined) {
      this.#tables.delete(shard);
      this.#tables.set(shard, table);
      return table;
    }
    const { path, header } = this.shards[shard]!;
    table = ShardTable.load(path);
    if (!sameFingerprint(table.fingerprint, header.fingerprint) || table.header.probe !== header.probe)
      throw new ShardError({
        path,
        rule: "Changed",
        message: "the shard has changed since the set was opened; open it again",
      });
    this.#tables.set(shard, table);
    this.#tableBytes += table.sizeBytes;
    for (const [other, { sizeBytes, stored }] of this.#tables) {
      if (this.#tableBytes <= this.#options.maxTableBytes || other === shard) break;
      if (!stored) continue; // making it again would take a second
      this.#tables.delete(other);
      this.#tableBytes -= sizeBytes;
    }
    return table;
  }

  /** Opens a shard for reading; the caller releases it. @throws ShardError `Changed` or `Unreadable` */
  lease(shard: number): ShardLease {
    let entry = this.#files.get(shard);
    if (entry === undefined) {
      const { path, header } = this.shards[shard]!;
      const file = PositionalFile.open(path);
      if (!sameFingerprint(file.fingerprint, header.fingerprint)) {
        file.close();
        throw new ShardError({
          path,
          rule: "Changed",
          message: "the shard has changed since the set was opened; open it again",
        });
      }
      entry = { file, users: 0 };
    } else this.#files.delete(shard);
    this.#files.set(shard, entry);
    const held = entry;
    held.users++;
    for (const [other, { file, users }] of this.#files) {
      if (this.#files.size <= this.#options.maxOpenFiles) break;
      if (users > 0) continue;
      file.close();
      this.#files.delete(other);
    }
    let released = false;
    return {
      file: held.file,
      release: () => {
        if (released) return;
        released = true;
        held.users--;
        if (held.users === 0 && this.#files.get(shard) !== held) held.file.close();
      },
    };
  }

  /** A copy of a member's bytes, null when the sample has none. */
  read(sample: number, extension: string): Uint8Array | null {
    const { shard, local } = this.locate(sample);
    const member = this.table(shard).member(local, extension);
    if (member === null) return null;
    const lease = this.lease(shard);
    try {
      const bytes = lease.file.read(member.offset, member.size);
      if (lease.file.isStale()) throw this.#changed(shard);
      return bytes;
    } finally {
      lease.release();
    }
  }

  /**
   * The samples that have all these members and pass a test, in order.
   *
   * With the policy `error` a sample that lacks a member ends with an error that names it; with `skip` it is counted.
   * @param where decides with the sample's table and its number there
   */
  select({ members = [], where }: SelectOptions): Selection {
    const lists: (Uint32Array | null)[] = [];
    const counts: number[] = [];
    let missing = 0;
    for (const [shard, { path, count, header }] of this.shards.entries()) {
      const complete = members.every((name) => header.extensions.find((e) => e.name === name)?.present === count);
      if (complete && where === undefined) {
        lists.push(null);
        counts.push(count);
        continue;
      }
      const table = this.table(shard);
      const list: number[] = [];
      for (let i = 0; i < count; i++) {
        const lacking = complete ? undefined : members.find((name) => !table.has(i, name));
        if (lacking !== undefined) {
          missing++;
          this.#report(missingMember(table, path, i, lacking));
        } else if (where === undefined || where(table, i)) list.push(i);
      }
      lists.push(list.length === count ? null : Uint32Array.from(list));
      counts.push(list.length);
    }
    if (missing > this.#options.maxBadRate * this.length) {
      const last = this.problems.at(-1)!;
      throw new ShardError({
        ...last,
        rule: "TooManyBad",
        message: `${missing} of ${counted(this.length, "sample")}; the last: ${problemText(last)}`,
      });
    }
    return new Selection(this.starts, lists, counts);
  }

  /** Closes all files. Nothing may be reading. */
  close(): void {
    for (const { file } of this.#files.values()) file.close();
    this.#files.clear();
    this.#tables.clear();
    this.#tableBytes = 0;
  }

  /** A problem met after opening: an error, or one more that was skipped. */
  #report(problem: ShardProblem): void {
    if (this.#options.onBadSample === "error") throw new ShardError(problem);
    if (this.problems.length < 1000) this.problems.push(problem);
    else this.problems[999] = problem;
  }

  /**
   * Has the next lease open a shard's file anew: what it is read through may be dead, as after a network folder was
   * away.
   * @internal
   */
  reopen(shard: number): void {
    const entry = this.#files.get(shard);
    this.#files.delete(shard);
    if (entry !== undefined && entry.users === 0) entry.file.close();
  }

  /** The error about a file that changes under an open descriptor, which is looked at anew next time. */
  #changed(shard: number): ShardError {
    this.reopen(shard);
    const { path } = this.shards[shard]!;
    return new ShardError({
      path,
      rule: "Changed",
      message: "the shard has changed while it was read; open the set again",
    });
  }
}

/** Why a sample lacks a member: what was found wrong with it, or that it is not there. */
function missingMember(table: ShardTable, path: string, sample: number, extension: string): TableProblem {
  const member = `${table.key(sample)}.${extension}`;
  const known = table.problems.find((problem) => problem.member === member);
  return (
    known ?? {
      path,
      rule: "MissingMember",
      message: `the sample ${JSON.stringify(table.key(sample))} has no such member`,
      member,
      extension,
    }
  );
}

/** Options of {@link ShardSet.select}. */
export interface SelectOptions {
  /** Extensions that each sample must have. */
  members?: readonly string[] | undefined;
  /** Whether a sample of a shard belongs to the selection. */
  where?: ((table: ShardTable, sample: number) => boolean) | undefined;
}

/** Some samples of a set, in its order. */
export class Selection {
  /** How many samples of each shard are in it: what an order is made from. */
  readonly shardSizes: readonly number[];
  readonly #starts: Float64Array;
  readonly #setStarts: Float64Array;
  readonly #lists: readonly (Uint32Array | null)[];

  /** @internal */
  constructor(setStarts: Float64Array, lists: readonly (Uint32Array | null)[], counts: readonly number[]) {
    this.#setStarts = setStarts;
    this.#lists = lists;
    this.shardSizes = counts;
    this.#starts = sums(counts);
  }

  get length(): number {
    return this.#starts[this.shardSizes.length]!;
  }

  /** Number in the set of the i-th selected sample. */
  at(i: number): number {
    if (!(Number.isInteger(i) && i >= 0 && i < this.length))
      throw new InvalidInputError(
        `selected sample: expected an integer from 0 to ${this.length - 1}, received ${describe(i)}`,
      );
    const shard = upperBound(this.#starts, i);
    const local = i - this.#starts[shard]!;
    return this.#setStarts[shard]! + (this.#lists[shard]?.[local] ?? local);
  }
}

/** The shards that a source names. */
function shardsOf(source: string): { path: string; nsamples?: number }[] {
  let isFolder: boolean;
  try {
    isFolder = statSync(source).isDirectory();
  } catch (error) {
    if (/^[a-z][a-z0-9+.-]*:/i.test(source))
      throw new InvalidInputError(`${source}: only local shards are read; download them first`);
    throw new ShardError({ path: source, rule: "Unreadable", message: systemReason(error) }, { cause: error });
  }
  if (isFolder) return tarsIn(source).map((path) => ({ path }));
  if (source.endsWith(".json")) return readWidsIndex(source).shards;
  return [{ path: source }];
}

/**
 * The tar files directly in a folder, sorted by name as upstream sorts them.
 * @throws ShardError when there are none
 */
export function tarsIn(folder: string): string[] {
  checkName("folder", folder, "the name of a folder");
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    throw new ShardError({ path: folder, rule: "Unreadable", message: systemReason(error) }, { cause: error });
  }
  const tars = names.filter((name) => name.endsWith(".tar") && !name.startsWith("."));
  if (tars.length === 0) {
    const [compressed] = compressedTars(names);
    const remedy =
      compressed === undefined
        ? message`miro preprocess makes shards of pictures and captions`
        : message`${compressed} is compressed: unpack such files`;
    throw new ShardError({ path: folder, rule: "NoShards", message: "no *.tar in this folder" }, { remedy });
  }
  return tars.sort(byCodePoint).map((name) => join(folder, name));
}
