/**
 * Batches straight from shards into tensors.
 *
 * The caller says which samples a step has (a pure function of the step); the loader keeps the next few steps being
 * read on libuv's threads, each row by one positional read from the shard into its place in the batch tensor. Nothing
 * is copied in JavaScript, and no more than `prefetch` batches exist at a time, however slow the reader of them is.
 *
 * Before a row counts, the file's size and time are compared with those that its table was made from, so that a shard
 * that is cut, rewritten or still growing gives an error, or a sample that is replaced by another and counted; never a
 * wrong batch. A shard that the system refuses to open or to read, as those of a network folder that is away, is tried
 * again for a minute first.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type DType, empty, isFloatingPoint, itemSize, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { ROW_STATUS, readRows } from "@miro-t2i/torch/io";
import { z } from "zod";
import { InvalidInputError, invalid } from "../../errors.js";
import { counted } from "../../numbers.js";
import { field, type OptionsOf, parseOptions, readOnly } from "../../options.js";
import { Permutation } from "../../random/permutation.js";
import { isAway, problemText, ShardError, type ShardProblem } from "./shard-error.js";
import type { ShardLease, ShardSet } from "./shard-set.js";
import type { ArrayPlace, ShardTable } from "./shard-table.js";

const arrayField = z.strictObject({
  kind: z.literal("array"),
  /** Extension of the member; of several, each row says which one (its `variant`). */
  member: z.union([z.string(), readOnly(z.array(z.string()).min(1))]),
  /** Whether a sample with a value that is not finite is a bad one. */
  finite: z.boolean().default(false),
});
const sequenceField = z.strictObject({
  kind: z.literal("sequence"),
  member: z.union([z.string(), readOnly(z.array(z.string()).min(1))]),
  /** Length of the padded rows: that of the batch's longest, or a fixed one. */
  padTo: z.union([z.literal("longest"), z.int().positive()]).default("longest"),
  /** Rounds the length of the batch's longest up. */
  multipleOf: z.int().positive().default(1),
  /** Longer rows are cut, and counted; never more than a fixed `padTo`. */
  maxLength: z.int().positive().default(Number.MAX_SAFE_INTEGER),
});
const loaderOptions = z.strictObject({
  /** What a batch has: arrays of one shape, or sequences (rows of one width) that are padded. */
  fields: field(z.record(z.string(), z.discriminatedUnion("kind", [arrayField, sequenceField])), {
    expected: 'an object of fields, each { kind: "array" | "sequence", member }',
    help: "what a batch has: arrays of one shape, or sequences (rows of one width) that are padded",
  }),
  /** Numbers of the samples' metadata that a batch has. */
  columns: field(readOnly(z.array(z.string())).default([]), {
    expected: "an array of names",
    help: "numbers of the samples' metadata that a batch has",
  }),
  /** Batches read ahead. Default: 4. */
  prefetch: field(z.int().positive().max(256).default(4), {
    expected: "an integer from 1 to 256",
    help: "batches read ahead",
  }),
});

/** One row of a batch. */
export interface RowRequest {
  /** Number of the sample in the set. */
  sample: number;
  /** Which member fields of several members are read from. */
  variant?: number;
}

/** Options of {@link ShardLoader}. */
export type ShardLoaderOptions = OptionsOf<typeof loaderOptions> & {
  /** The rows of a step; called once for each, ahead of time. */
  plan: (step: number) => readonly RowRequest[];
  /** The row that takes the place of one that cannot be read; by default a random sample that has the same members. */
  replace?: ((row: RowRequest, attempt: number) => RowRequest) | undefined;
  /** Told of a shard that cannot be opened or read and is tried again; not of others that are away meanwhile. */
  onWaiting?: ((problem: ShardProblem) => void) | undefined;
};

/** A batch of B rows. */
export interface ShardBatch {
  step: number;
  /** The rows that it has: those of the plan, except replaced ones. */
  rows: readonly RowRequest[];
  /** By field: arrays (B, …), sequences (B, T, …) with zeros behind each row's own, in the dtype of the files. */
  tensors: Record<string, Tensor>;
  /** By sequence field: true at what is no padding, (B, T) bool. */
  masks: Record<string, Tensor>;
  /** By sequence field: length of each row. */
  lengths: Record<string, Int32Array>;
  /** Numbers of the samples' metadata by name, NaN where a sample has none, one a row. */
  columns: Record<string, Float64Array>;
}

/** What a loader has done so far. */
export interface LoaderStats {
  batches: number;
  samples: number;
  /** Bytes of sample content that were read into batches. */
  bytes: number;
  /** Samples that could not be read and were replaced. */
  bad: number;
  /** Sequences that were cut, by field. */
  truncated: Record<string, number>;
  /** The last problems, at most a hundred. */
  problems: readonly ShardProblem[];
}

type Field = { name: string; members: readonly string[] } & (
  | { kind: "array"; finite: boolean }
  | { kind: "sequence"; padTo: "longest" | number; multipleOf: number; maxLength: number }
);

/** A batch that is being read. */
interface Pending {
  step: number;
  done: Promise<void>;
  cancelled: Int32Array;
  /** Ends a wait for a shard. */
  stop: AbortController;
  /** Waits for shards so far. */
  waits: number;
  result: Loaded | null;
  error: unknown;
}

/** A batch that has been read; the tensors belong to no scope. */
interface Loaded {
  rows: RowRequest[];
  tensors: Map<string, Tensor>;
  lengths: Map<string, Int32Array>;
  columns: Record<string, Float64Array>;
  bytes: number;
  truncated: Map<string, number>;
}

/** Before a shard that is away is tried again: a minute in all. */
const WAITS_MS = [1000, 2000, 4000, 8000, 15_000, 30_000];
/** Tries to replace a sample before giving up. */
const MAX_ATTEMPTS = 20;
/** Samples seen before the share of bad ones is checked. */
const RATE_WINDOW = 1000;

/** Reads batches of samples ahead of their use, in threads of its own. Close it after use. */
export class ShardLoader {
  readonly #fields: readonly Field[];
  readonly #columns: readonly string[];
  readonly #prefetch: number;
  readonly #plan: ShardLoaderOptions["plan"];
  readonly #replace: NonNullable<ShardLoaderOptions["replace"]>;
  readonly #onWaiting: NonNullable<ShardLoaderOptions["onWaiting"]>;
  /** Shards that have been waited for in vain. */
  readonly #lost = new Set<string>();
  /** Batches that wait for shards. */
  #waiting = 0;
  readonly #pending = new Map<number, Pending>();
  /** dtype and shape of each field's rows, learnt from the first sample. */
  readonly #shapes = new Map<string, { dtype: DType; row: readonly number[] }>();
  readonly #problems: ShardProblem[] = [];
  #counts = { batches: 0, samples: 0, bytes: 0, bad: 0 };
  readonly #truncated: Record<string, number> = {};
  #closed = false;
  readonly #set: ShardSet;

  constructor(set: ShardSet, options: ShardLoaderOptions) {
    this.#set = set;
    const { plan, replace, onWaiting = () => {}, ...rest } = options;
    const { fields, columns, prefetch } = parseOptions(loaderOptions, rest);
    this.#fields = Object.entries(fields).map(([name, { member, ...value }]) => ({
      name,
      members: typeof member === "string" ? [member] : member,
      ...value,
    }));
    for (const f of this.#fields) if (f.kind === "sequence") this.#truncated[f.name] = 0;
    this.#columns = columns;
    this.#prefetch = prefetch;
    this.#plan = plan;
    this.#onWaiting = onWaiting;
    this.#replace = replace ?? ((row, attempt) => this.#anotherSample(row, attempt));
  }

  /**
   * Resolves when the batch of a step can be taken. Steps are meant to be asked for one after the other; asking for
   * another one drops what was read ahead and goes on from there.
   * @throws ShardError when a sample cannot be read (policy `error`) or too many cannot (`skip`); the signal's reason
   */
  async ready(step: number, signal?: AbortSignal): Promise<void> {
    if (this.#closed) throw new InvalidInputError("the loader is closed");
    if (!(Number.isInteger(step) && step >= 0)) throw invalid("step", "a non-negative integer", step);
    signal?.throwIfAborted();
    this.#readAhead(step);
    const pending = this.#pending.get(step)!;
    if (signal === undefined) await pending.done;
    else {
      let stop: (() => void) | undefined;
      const aborted = new Promise<void>((resolve) => {
        stop = resolve;
        signal.addEventListener("abort", stop, { once: true });
      });
      await Promise.race([pending.done, aborted]);
      signal.removeEventListener("abort", stop!);
      signal.throwIfAborted();
    }
    if (pending.error !== undefined) throw pending.error;
  }

  /** The batch of a step that is ready; each is given out once. Its tensors belong to the caller's scope. */
  take(step: number): ShardBatch {
    const pending = this.#pending.get(step);
    const loaded = pending?.result;
    if (pending === undefined || loaded == null)
      throw new InvalidInputError(
        `the batch of step ${step} is not ready: await ready(${step}) first, and take it once`,
      );
    this.#pending.delete(step);
    this.#counts.batches++;
    this.#counts.samples += loaded.rows.length;
    this.#counts.bytes += loaded.bytes;
    for (const [name, count] of loaded.truncated) this.#truncated[name]! += count;
    this.#readAhead(step + 1);
    const tensors: Record<string, Tensor> = {};
    const masks: Record<string, Tensor> = {};
    for (const [name, kept] of loaded.tensors) {
      const { shape } = kept;
      tensors[name] = kept.view(...shape); // a name in the caller's scope for the same memory
      kept.dispose();
      const lengths = loaded.lengths.get(name);
      if (lengths !== undefined) masks[name] = maskOf(lengths, shape[1]!);
    }
    return {
      step,
      rows: loaded.rows,
      tensors,
      masks,
      lengths: Object.fromEntries(loaded.lengths),
      columns: loaded.columns,
    };
  }

  /** Batches from a step on, without end unless `to` (exclusive) is given. Each belongs to the caller's scope. */
  async *batches(
    from: number,
    { to = Number.POSITIVE_INFINITY, signal }: { to?: number | undefined; signal?: AbortSignal | undefined } = {},
  ) {
    for (let step = from; step < to; step++) {
      await this.ready(step, signal);
      yield this.take(step);
    }
  }

  get stats(): LoaderStats {
    return { ...this.#counts, truncated: { ...this.#truncated }, problems: [...this.#problems] };
  }

  /** Stops reading and frees what was read ahead. The set stays open. */
  async close(): Promise<void> {
    this.#closed = true;
    const pending = [...this.#pending.values()];
    for (const one of pending) this.#drop(one);
    await Promise.all(pending.map(({ done }) => done));
  }

  /** Keeps the steps from `step` on being read, and no others. */
  #readAhead(step: number): void {
    if (this.#closed) return;
    for (const one of this.#pending.values()) if (one.step < step || one.step >= step + this.#prefetch) this.#drop(one);
    for (let next = step; next < step + this.#prefetch; next++) {
      const known = this.#pending.get(next);
      if (known === undefined) this.#pending.set(next, this.#start(next));
      if (this.#pending.get(next)!.error !== undefined) break; // reading on would meet the same again
    }
  }

  #drop(pending: Pending): void {
    this.#pending.delete(pending.step);
    pending.cancelled[0] = 1;
    pending.stop.abort();
    void pending.done.then(() => free(pending.result));
  }

  #start(step: number): Pending {
    const pending: Pending = {
      step,
      done: Promise.resolve(),
      cancelled: new Int32Array(1),
      stop: new AbortController(),
      waits: 0,
      result: null,
      error: undefined,
    };
    pending.done = this.#load(pending).then(
      (result) => {
        pending.result = result;
      },
      (error: unknown) => {
        pending.error = error;
      },
    );
    return pending;
  }

  async #load(pending: Pending): Promise<Loaded | null> {
    const { step, cancelled } = pending;
    const rows = await this.#planned(pending);
    if (rows.length === 0) throw new InvalidInputError(`plan: step ${step} has no rows`);
    const attempts = new Uint8Array(rows.length);
    for (;;) {
      const { loaded, bad } = await this.#read(rows, cancelled);
      if (cancelled[0] === 0 && bad.size === 0) return loaded;
      free(loaded);
      if (cancelled[0] !== 0) return null;
      if (await this.#outlasts([...bad.values()], pending)) continue;
      for (const [row, problem] of bad) {
        this.#reportBad(problem);
        if (attempts[row]! >= MAX_ATTEMPTS)
          throw new ShardError({
            ...problem,
            message: `${problem.message}; ${MAX_ATTEMPTS} other samples could not be read either`,
          });
        rows[row] = this.#replace(rows[row]!, attempts[row]!++);
      }
    }
  }

  /** The rows of the plan, which may look at tables of shards. */
  async #planned(pending: Pending): Promise<RowRequest[]> {
    for (;;) {
      try {
        return [...this.#plan(pending.step)];
      } catch (error) {
        if (!(error instanceof ShardError && (await this.#outlasts([error], pending)))) throw error;
      }
    }
  }

  /**
   * Waits, if shards are away that have not been waited for in vain.
   * @returns whether they are to be tried again
   */
  async #outlasts(problems: readonly ShardProblem[], pending: Pending): Promise<boolean> {
    const away = problems.filter((problem) => !this.#lost.has(problem.path) && isAway(problem));
    if (away.length === 0 || pending.cancelled[0] !== 0) return false;
    const wait = WAITS_MS[pending.waits];
    if (wait === undefined) {
      for (const { path } of away) this.#lost.add(path);
      return false;
    }
    if (pending.waits++ === 0 && this.#waiting === 0) this.#onWaiting(away[0]!);
    this.#waiting++;
    await delay(wait, undefined, { signal: pending.stop.signal }).catch(() => {}); // aborted: the batch is not wanted
    this.#waiting--;
    return true;
  }

  /** Reads rows; those that cannot be read are told. */
  async #read(
    rows: readonly RowRequest[],
    cancelled: Int32Array,
  ): Promise<{ loaded: Loaded | null; bad: Map<number, ShardProblem> }> {
    const bad = new Map<number, ShardProblem>();
    const places = this.#fields.map(() => new Array<ArrayPlace>(rows.length));
    const leases = new Map<number, ShardLease>();
    const shardOf = new Int32Array(rows.length);
    const columns = Object.fromEntries(this.#columns.map((name) => [name, new Float64Array(rows.length)]));
    try {
      for (const [i, row] of rows.entries()) {
        try {
          const { sample } = row;
          const { shard, local } = this.#set.locate(sample);
          const table = this.#set.table(shard);
          if (!leases.has(shard)) leases.set(shard, this.#set.lease(shard));
          shardOf[i] = shard;
          for (const [f, spec] of this.#fields.entries()) places[f]![i] = this.#placeOf(spec, row, table, local);
          for (const name of this.#columns) columns[name]![i] = table.value(local, name);
        } catch (error) {
          if (!(error instanceof ShardError)) throw error;
          bad.set(i, error.problem);
        }
      }
      if (bad.size > 0) return { loaded: null, bad };

      const loaded: Loaded = {
        rows: [...rows],
        tensors: new Map(),
        lengths: new Map(),
        columns,
        bytes: 0,
        truncated: new Map(),
      };
      const reads = this.#fields.map((spec, f) => {
        const { shape, bytes } = layOut(spec, this.#shapes.get(spec.name)!, places[f]!, loaded);
        const target = scope(() => empty(shape, { dtype: this.#shapes.get(spec.name)!.dtype }).keep());
        loaded.tensors.set(spec.name, target);
        const descriptors = new Int32Array(rows.length);
        const wanted = new Float64Array(4 * rows.length);
        for (let i = 0; i < rows.length; i++) {
          const { file } = leases.get(shardOf[i]!)!;
          descriptors[i] = file.descriptor;
          wanted.set([places[f]![i]!.offset, bytes[i]!, file.fingerprint.sizeBytes, file.fingerprint.mtimeUs], 4 * i);
        }
        return readRows(target, { descriptors, places: wanted, cancelled });
      });
      const statuses = await Promise.all(reads);
      for (const [f, status] of statuses.entries()) {
        for (let i = 0; i < rows.length; i++) {
          if (status[i] === ROW_STATUS.read || status[i] === ROW_STATUS.skipped || bad.has(i)) continue;
          const { path, key } = this.#sampleOf(rows[i]!);
          const byteOffset = places[f]![i]!.offset;
          if (status[i] === ROW_STATUS.failed) this.#set.reopen(shardOf[i]!);
          bad.set(i, { path, member: key, byteOffset, ...STATUS_PROBLEMS[status[i]!]! });
        }
      }
      this.#checkFinite(loaded, bad);
      return { loaded, bad };
    } finally {
      for (const lease of leases.values()) lease.release();
    }
  }

  /** Where the array of a field lies for a row. @throws ShardError where the sample has none that fits */
  #placeOf(spec: Field, row: RowRequest, table: ShardTable, local: number): ArrayPlace {
    const extension = memberOf(spec, row);
    if (extension === undefined)
      throw invalid("variant", `below ${spec.members.length}, the members of ${spec.name}`, row.variant);
    const place = table.array(local, extension);
    const fault = place === null ? "the sample has no such array" : this.#fault(spec, place);
    if (place !== null && fault === null) return place;
    const member = `${table.key(local)}.${extension}`;
    const known = table.problems.find((problem) => problem.member === member);
    const rule = place === null ? "MissingMember" : "ShapeMismatch";
    throw new ShardError(known ?? { path: table.path, rule, message: fault!, member });
  }

  /** Adds the rows to `bad` whose arrays have to be finite and are not. */
  #checkFinite({ rows, tensors }: Loaded, bad: Map<number, ShardProblem>): void {
    for (const spec of this.#fields) {
      if (spec.kind === "sequence" || !spec.finite) continue;
      for (const i of notFiniteRows(tensors.get(spec.name)!)) {
        if (bad.has(i)) continue;
        const { path, key } = this.#sampleOf(rows[i]!);
        const member = `${key}.${memberOf(spec, rows[i]!)}`;
        bad.set(i, { path, member, rule: "NotFinite", message: "holds values that are not finite" });
      }
    }
  }

  #sampleOf({ sample }: RowRequest): { path: string; key: string } {
    const { shard, local } = this.#set.locate(sample);
    return { path: this.#set.shards[shard]!.path, key: this.#set.table(shard).key(local) };
  }

  /** Why an array does not fit its field, null when it does. The first one that is seen decides dtype and shape. */
  #fault(spec: Field, { dtype, shape }: ArrayPlace): string | null {
    const row = spec.kind === "array" ? shape : shape.slice(1);
    if (spec.kind === "sequence" && shape.length === 0) return "a sequence needs an array of at least one dimension";
    if (!isFloatingPoint(dtype) && !dtype.startsWith("int") && dtype !== "uint8")
      return `arrays of ${dtype} are not loaded`;
    const known = this.#shapes.get(spec.name);
    if (known === undefined) {
      this.#shapes.set(spec.name, { dtype, row });
      return null;
    }
    if (known.dtype === dtype && known.row.length === row.length && known.row.every((size, i) => size === row[i]))
      return null;
    return `the field ${spec.name} has rows of ${known.dtype} (${known.row}), this one is ${dtype} (${row})`;
  }

  #reportBad(problem: ShardProblem): void {
    if (this.#set.onBadSample === "error") throw new ShardError(problem);
    this.#counts.bad++;
    this.#problems.push(problem);
    if (this.#problems.length > 100) this.#problems.shift();
    const seen = Math.max(RATE_WINDOW, this.#counts.samples + this.#counts.bad);
    if (this.#counts.bad > this.#set.maxBadRate * seen) {
      const message = `${counted(this.#counts.bad, "sample")} could not be read, more than ${100 * this.#set.maxBadRate} %; the last: ${problemText(problem)}`;
      throw new ShardError({ path: problem.path, rule: "TooManyBad", message });
    }
  }

  /** A sample of the set with the members that the row needs, chosen by the row alone. */
  #anotherSample({ sample, variant = 0 }: RowRequest, attempt: number): RowRequest {
    const order = new Permutation(this.#set.length, "unreadableSample", [sample, attempt]);
    for (let i = 0; i < Math.min(1000, this.#set.length); i++) {
      const other = order.at(i);
      const { shard, local } = this.#set.locate(other);
      let table: ReturnType<ShardSet["table"]>;
      try {
        table = this.#set.table(shard);
      } catch (error) {
        if (error instanceof ShardError) continue;
        throw error;
      }
      const fits = this.#fields.every((spec) => table.has(local, memberOf(spec, { sample, variant })!));
      if (fits && other !== sample) return { sample: other, variant };
    }
    throw new ShardError({
      path: this.#set.shards[0]!.path,
      rule: "NoReplacement",
      message: "no sample could be found that takes the place of a bad one",
    });
  }
}

/** Frees a batch that is not wanted. */
function free(loaded: Loaded | null): void {
  for (const kept of loaded?.tensors.values() ?? []) kept.dispose();
}

/** The member that a row has a field from. */
function memberOf({ members }: Field, { variant = 0 }: RowRequest): string | undefined {
  return members[members.length === 1 ? 0 : variant];
}

/** Rows of a tensor (B, …) that hold values that are not finite. */
function notFiniteRows(tensor: Tensor): number[] {
  return scope(() => {
    // A sum is finite where all of its terms are, and quicker than to look at each.
    if (Number.isFinite(tensor.sum({ dtype: "float32" }).item())) return [];
    const rows = tensor.isfinite().reshape([tensor.shape[0]!, -1]).all(1).toList() as boolean[];
    return rows.flatMap((sound, i) => (sound ? [] : [i]));
  });
}

const STATUS_PROBLEMS: Record<number, Pick<ShardProblem, "rule" | "message">> = {
  [ROW_STATUS.short]: { rule: "ShortRead", message: "the shard ends before the sample does; it was cut" },
  [ROW_STATUS.failed]: { rule: "Unreadable", message: "the operating system refused to read" },
  [ROW_STATUS.changed]: { rule: "Changed", message: "the shard has changed since the set was opened; open it again" },
};

/** The shape of a field's batch tensor, and how many bytes each row has. */
function layOut(
  spec: Field,
  { dtype, row }: { dtype: DType; row: readonly number[] },
  places: readonly ArrayPlace[],
  loaded: Loaded,
): { shape: number[]; bytes: number[] } {
  if (spec.kind === "array") {
    const bytes = places.map(({ sizeBytes }) => sizeBytes);
    loaded.bytes += bytes.reduce((a, b) => a + b, 0);
    return { shape: [places.length, ...row], bytes };
  }
  const width = row.reduce((product, size) => product * size, itemSize(dtype));
  const limit = Math.min(spec.maxLength, spec.padTo === "longest" ? Number.POSITIVE_INFINITY : spec.padTo);
  const lengths = Int32Array.from(places, ({ shape }) => Math.min(shape[0]!, limit));
  loaded.lengths.set(spec.name, lengths);
  loaded.truncated.set(spec.name, places.filter(({ shape }) => shape[0]! > limit).length);
  const longest = lengths.reduce((a, b) => Math.max(a, b), 1);
  const padded = spec.padTo === "longest" ? Math.ceil(longest / spec.multipleOf) * spec.multipleOf : spec.padTo;
  const bytes = Array.from(lengths, (length) => length * width);
  loaded.bytes += bytes.reduce((a, b) => a + b, 0);
  return { shape: [places.length, padded, ...row], bytes };
}

function maskOf(lengths: Int32Array, padded: number): Tensor {
  const mask = new Uint8Array(lengths.length * padded);
  for (const [i, length] of lengths.entries()) mask.fill(1, i * padded, i * padded + length);
  return scope(() => tensor(mask, { shape: [lengths.length, padded] }).to("bool"));
}
