import { getEventListeners } from "node:events";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memory, scope, tensor, zeros } from "@miro-t2i/torch";
import { encodeNpy } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type RowRequest, type ShardBatch, ShardLoader, type ShardLoaderOptions } from "./loader.js";
import { ShuffledOrder, stepPosition } from "./order.js";
import { ShardError } from "./shard-error.js";
import { ShardSet } from "./shard-set.js";
import { TarFile } from "./tar-file.js";
import {
  LATENT,
  MEAN,
  numberIn,
  SYNTHETIC,
  sampleFields,
  TEXT,
  tokensOf,
  WIDTH,
  writeShard,
} from "./testing/make-shards.js";
import { WIDS_INDEX_NAME, writeWidsIndex } from "./wids-index.js";

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "loader-"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const SIZES = [40, 25, 35];
/** A new folder with samples 0 … 99 in three shards. */
async function folderOf(changes?: Parameters<typeof writeShard>[3]): Promise<string> {
  const folder = mkdtempSync(join(root, "set-"));
  let first = 0;
  for (const [i, count] of SIZES.entries()) {
    await writeShard(join(folder, `${i}.tar`), first, count, changes);
    first += count;
  }
  return folder;
}

const FIELDS: ShardLoaderOptions["fields"] = {
  latents: { kind: "array", member: MEAN },
  text: { kind: "sequence", member: [TEXT, SYNTHETIC] },
};
const BATCH = 8;
function planOf(set: ShardSet): (step: number) => RowRequest[] {
  const order = new ShuffledOrder({ shardSizes: set.shards.map(({ count }) => count), seed: 5 });
  return (step) => {
    const { epoch, position } = stepPosition(step, BATCH, order.length);
    return Array.from({ length: BATCH }, (_, i) => ({
      sample: order.index(epoch, position + i),
      variant: (step + i) % 2,
    }));
  };
}
function loaderOf(set: ShardSet, options: Partial<ShardLoaderOptions> = {}): ShardLoader {
  return new ShardLoader(set, { fields: FIELDS, columns: ["clip_score", "vqa_score"], plan: planOf(set), ...options });
}

/** Every number of a batch is what the rows say; the samples' numbers are those of their keys. */
function check({ rows, tensors, masks, lengths, columns }: ShardBatch): void {
  const latents = tensors.latents!;
  const text = tensors.text!;
  expect(latents.shape).toEqual([rows.length, ...LATENT]);
  const padded = Math.max(...rows.map(({ sample, variant }) => tokensOf(sample) + variant!));
  expect(text.shape).toEqual([rows.length, padded, WIDTH]);
  for (const [i, { sample, variant }] of rows.entries()) {
    const tokens = tokensOf(sample) + variant!;
    const [low, high] = [latents.select(0, i).amin().item(), latents.select(0, i).amax().item()];
    expect([low, high]).toEqual([numberIn(sample, MEAN), numberIn(sample, MEAN)]);
    const value = numberIn(sample, variant === 1 ? SYNTHETIC : TEXT);
    expect(text.select(0, i).to("float32").sum().item()).toBe(value * tokens * WIDTH);
    expect(text.select(0, i).narrow(0, 0, tokens).amin().item()).toBe(value);
    expect(lengths.text![i]).toBe(tokens);
    expect(masks.text!.select(0, i).toList()).toEqual(Array.from({ length: padded }, (_, t) => t < tokens));
    expect(columns.clip_score![i]).toBe(sample / 8);
    expect(columns.vqa_score![i]).toBeNaN();
  }
}
async function take(loader: ShardLoader, step: number): Promise<RowRequest[]> {
  await loader.ready(step);
  return scope(() => {
    const batch = loader.take(step);
    check(batch);
    return [...batch.rows];
  });
}

describe("ShardLoader", () => {
  test("gives each sample of an epoch once, every number in its place", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const loader = loaderOf(set);
    const seen = new Set<number>();
    for (let step = 0; step < 12; step++) for (const { sample } of await take(loader, step)) seen.add(sample);
    expect(seen.size).toBe(96);
    expect(loader.stats).toMatchObject({ batches: 12, samples: 96, bad: 0, truncated: { text: 0 } });
    await loader.close();
    set.close();
  });

  test("begins anywhere, goes back, and gives the same batches whatever is read ahead", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const straight = loaderOf(set);
    const expected = [];
    for (let step = 0; step < 20; step++) expected.push(await take(straight, step));
    const jumping = loaderOf(set, { prefetch: 3 });
    for (const step of [17, 18, 2, 3, 9, 19, 0]) expect(await take(jumping, step)).toEqual(expected[step]);
    await straight.close();
    await jumping.close();
    set.close();
  });

  test("pads to a multiple or to a fixed length, and counts what it cuts", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const text = async (spec: object) => {
      const loader = loaderOf(set, { fields: { text: { kind: "sequence", member: TEXT, ...spec } } });
      await loader.ready(0);
      const { shape, lengths } = scope(() => {
        const batch = loader.take(0);
        expect(batch.masks.text!.to("float32").sum().item()).toBe(batch.lengths.text!.reduce((a, b) => a + b, 0));
        return { shape: batch.tensors.text!.shape, lengths: [...batch.lengths.text!] };
      });
      const { truncated } = loader.stats;
      await loader.close();
      return { shape, lengths, truncated: truncated.text };
    };
    const rows = planOf(set)(0).map(({ sample }) => tokensOf(sample));
    expect(await text({ multipleOf: 16 })).toEqual({ shape: [BATCH, 16, WIDTH], lengths: rows, truncated: 0 });
    expect(await text({ padTo: 256 })).toEqual({ shape: [BATCH, 256, WIDTH], lengths: rows, truncated: 0 });
    const cut = rows.map((n) => Math.min(n, 3));
    const truncated = rows.filter((n) => n > 3).length;
    expect(await text({ padTo: 3 })).toEqual({ shape: [BATCH, 3, WIDTH], lengths: cut, truncated });
    expect(await text({ maxLength: 3 })).toEqual({ shape: [BATCH, Math.max(...cut), WIDTH], lengths: cut, truncated });
    set.close();
  });

  test("reads no more ahead than it is told, and frees what is dropped", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const planned: number[] = [];
    const plan = planOf(set);
    const before = memory.stats().liveTensors;
    const loader = loaderOf(set, { prefetch: 3, plan: (step) => plan(planned[planned.push(step) - 1]!) });
    await loader.ready(0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(planned).toEqual([0, 1, 2]);
    scope(() => void loader.take(0));
    expect(planned).toEqual([0, 1, 2, 3]);
    await loader.ready(50);
    expect(planned).toEqual([0, 1, 2, 3, 50, 51, 52]);
    await loader.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(memory.stats().liveTensors).toBe(before);
    await expect(loader.ready(0)).rejects.toThrow(/closed/);
    set.close();
  });

  test("stops waiting when the signal says so, and misuse is refused", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const loader = loaderOf(set);
    const stop = new AbortController();
    await loader.ready(0, stop.signal);
    expect(getEventListeners(stop.signal, "abort"), "listeners of a step that is ready").toEqual([]);
    const waiting = loader.ready(50, stop.signal);
    stop.abort();
    await expect(waiting).rejects.toThrow(/abort/i);
    await expect(loader.ready(1, stop.signal)).rejects.toThrow(/abort/i);
    expect(() => loader.take(7)).toThrow(/not ready/);
    await expect(loader.ready(-1)).rejects.toThrow(/step/);
    await expect(loaderOf(set, { plan: () => [{ sample: 1e9 }] }).ready(0)).rejects.toThrow(/sample: expected/);
    await expect(loaderOf(set, { plan: () => [] }).ready(0)).rejects.toThrow(/no rows/);
    await loader.close();
    set.close();
  });

  test("works with fewer open files and tables than shards", async () => {
    const set = await ShardSet.open({ sources: await folderOf(), maxOpenFiles: 1, maxTableBytes: 1 });
    const loader = loaderOf(set);
    for (let step = 0; step < 12; step++) await take(loader, step);
    await loader.close();
    set.close();
  });

  test("holds constant memory over many steps", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const loader = loaderOf(set);
    const after = async (from: number, to: number): Promise<number> => {
      for (let step = from; step < to; step++) {
        await loader.ready(step);
        scope(() => void loader.take(step));
      }
      return memory.stats().liveTensors;
    };
    const tensors = await after(0, 200);
    expect(await after(200, 2000)).toBe(tensors);
    await loader.close();
    set.close();
  });
});

/** The rule of the first error, and what was seen before it. */
async function failure(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof ShardError) return error.rule;
    throw error;
  }
  return "none";
}
async function epoch(loader: ShardLoader, from = 0): Promise<number[]> {
  const seen: number[] = [];
  for (let step = from; step < from + 12; step++) for (const { sample } of await take(loader, step)) seen.push(sample);
  return seen;
}

test("a file that is opened anew while somebody reads it is closed when nobody does", async () => {
  const set = await ShardSet.open({ sources: await folderOf() });
  const opened = () => readdirSync("/proc/self/fd").length;
  const before = opened();
  const [first, second] = [set.lease(0), set.lease(0)];
  expect(opened() - before).toBe(1);
  set.reopen(0);
  const third = set.lease(0);
  expect(third.file).not.toBe(first.file);
  expect(opened() - before).toBe(2);
  first.release();
  first.release(); // counts once
  expect(opened() - before).toBe(2);
  second.release();
  expect(opened() - before).toBe(1);
  third.release();
  set.close();
  expect(opened()).toBe(before);
});

describe("bad shards and samples", () => {
  test.each<[string, (path: string) => void, string]>([
    ["deleted", (path) => rmSync(path), "Unreadable"],
    ["empty", (path) => writeFileSync(path, ""), "MissingEnd"],
    ["no tar", (path) => writeFileSync(path, Buffer.alloc(5000, "x")), "BadNumber"],
    ["cut", (path) => truncateSync(path, endOf(path) - 400), "TruncatedMember"],
    ["growing", (path) => truncateSync(path, endOf(path)), "MissingEnd"],
  ])("a shard that is %s: a named error, or counted and left out", async (_, spoil, rule) => {
    const folder = await folderOf();
    await writeWidsIndex(join(folder, WIDS_INDEX_NAME), { shards: SIZES.map((_, i) => join(folder, `${i}.tar`)) });
    spoil(join(folder, "1.tar"));
    const sources = join(folder, WIDS_INDEX_NAME);
    expect(await failure(() => ShardSet.open({ sources }))).toBe(rule);
    const isCut = rule !== "Unreadable";
    // A policy for samples does not make a shard whole that was cut.
    if (isCut)
      await expect(ShardSet.open({ sources, onBadSample: "skip", maxBadRate: 1 })).rejects.toThrow(
        /1\.tar, .*leave such shards out with `skipBrokenShards: true`/,
      );
    const set = await ShardSet.open({
      sources,
      onBadSample: "skip",
      maxBadRate: 0.5,
      brokenShards: isCut ? "skip" : "error",
    });
    expect(set.problems.map((p) => p.rule)).toContain(rule);
    expect(set.leftOut.map((p) => p.rule)).toEqual(isCut ? [rule] : []);
    expect(set.shards.length).toBe(SIZES.length - 1);
    const selection = set.select({ members: [MEAN, TEXT, SYNTHETIC] });
    const samples = Array.from({ length: selection.length }, (_, i) => selection.at(i));
    const loader = loaderOf(set, { plan: () => samples.map((sample) => ({ sample, variant: 0 })) });
    await loader.ready(0);
    scope(() => {
      const { rows, tensors } = loader.take(0);
      for (const [i, { sample }] of rows.entries()) {
        const { shard, local } = set.locate(sample);
        const number = Number(set.table(shard).key(local));
        expect(tensors.latents!.select(0, i).amax().item()).toBe(numberIn(number, MEAN));
      }
    });
    await loader.close();
    set.close();
    if (rule === "Unreadable")
      // one of three shards is more than the default allows
      expect(await failure(() => ShardSet.open({ sources, onBadSample: "skip" }))).toBe("TooManyBad");
  });

  const spoilt = (sample: number): Record<string, Uint8Array | null> =>
    sample === 7 ? { [MEAN]: null } : sample === 50 ? { [TEXT]: Buffer.from("no array") } : {};

  test("samples without a member are an error that names them, or replaced and counted", async () => {
    const folder = await folderOf(spoilt);
    const strict = await ShardSet.open({ sources: folder });
    expect(await failure(async () => strict.select({ members: [MEAN, TEXT] }))).toBe("MissingMember");
    const loader = loaderOf(strict);
    await expect(epoch(loader)).rejects.toThrow(/"000007\.vae_embeddings_mean_256\.npy".*MissingMember|"000050\.flan/);
    await loader.close();
    strict.close();

    const set = await ShardSet.open({ sources: folder, onBadSample: "skip", maxBadRate: 0.02 });
    const selection = set.select({ members: [MEAN, TEXT] });
    expect([selection.length, selection.shardSizes]).toEqual([98, [39, 24, 35]]);
    expect(set.problems.map((p) => p.member)).toEqual([`000007.${MEAN}`, `000050.${TEXT}`]);
    const all = Array.from({ length: selection.length }, (_, i) => selection.at(i));
    expect(all).toEqual(Array.from({ length: 100 }, (_, i) => i).filter((i) => i !== 7 && i !== 50));

    const skipping = loaderOf(set, { plan: (step) => planOf(set)(step).map(({ sample }) => ({ sample, variant: 0 })) });
    const seen = await epoch(skipping);
    expect(seen).toHaveLength(96);
    expect(seen).not.toContain(7);
    expect(skipping.stats.bad).toBeGreaterThan(0);
    await skipping.close();
    set.close();
  });

  test("samples with values that are not finite are bad where a field is to be finite", async () => {
    const odd = (value: number) =>
      scope(() => {
        const values = new Float32Array(LATENT.reduce((a, b) => a * b)).fill(1);
        values[5] = value;
        return encodeNpy(tensor(values, { shape: LATENT }).to("float16"));
      });
    const folder = await folderOf((sample): Record<string, Uint8Array> => {
      return sample === 12 ? { [MEAN]: odd(Number.NaN) } : sample === 80 ? { [MEAN]: odd(-1e9) } : {};
    });
    const fields = { latents: { kind: "array", member: MEAN, finite: true } } as const;
    const strict = await ShardSet.open({ sources: folder });
    const refusing = loaderOf(strict, { fields, plan: () => [{ sample: 11 }, { sample: 12 }] });
    await expect(refusing.ready(0)).rejects.toThrow(
      /0\.tar, member "000012\.vae_embeddings_mean_256\.npy": holds values that are not finite \(NotFinite\)/,
    );
    await refusing.close();
    strict.close();
    const set = await ShardSet.open({ sources: folder, onBadSample: "skip", maxBadRate: 0.02 });
    const plan = () => [12, 13, 80].map((sample) => ({ sample }));
    const loader = loaderOf(set, { fields, plan, prefetch: 1 });
    await loader.ready(0);
    scope(() => {
      const { rows, tensors } = loader.take(0);
      const found = rows.map((_, i) => tensors.latents!.select(0, i).amin().item());
      expect(found).toEqual(rows.map(({ sample }) => numberIn(sample, MEAN)));
      expect(rows.map(({ sample }) => sample === 12 || sample === 80)).toEqual([false, false, false]);
    });
    expect(loader.stats.bad).toBeGreaterThanOrEqual(2);
    await loader.close();
    set.close();
  });

  test("the same samples take the places of bad ones in every run", async () => {
    const folder = await folderOf(spoilt);
    const run = async () => {
      const set = await ShardSet.open({ sources: folder, onBadSample: "skip", maxBadRate: 0.5 });
      const loader = loaderOf(set);
      const seen = await epoch(loader);
      await loader.close();
      set.close();
      return seen;
    };
    expect(await run()).toEqual(await run());
  });

  test("another shape or type is not mixed in", async () => {
    for (const other of [sampleFields(0)[TEXT]!, scope(() => encodeNpy(zeros(LATENT, { dtype: "float32" })))]) {
      const folder = await folderOf((sample): Record<string, Uint8Array> => (sample === 60 ? { [MEAN]: other } : {}));
      const set = await ShardSet.open({ sources: folder });
      expect(await failure(() => epoch(loaderOf(set)))).toBe("ShapeMismatch");
      set.close();
    }
  });

  test("a long run may meet more of them than a short one", async () => {
    const sources = await folderOf((sample): Record<string, null> => (sample === 7 ? { [MEAN]: null } : {}));
    const set = await ShardSet.open({ sources, onBadSample: "skip", maxBadRate: 0.01 });
    const [whole, withBad] = [8, 7].map((last) =>
      [...Array(199).fill(8), last].map((sample) => ({ sample, variant: 0 })),
    );
    const fields = { latents: FIELDS.latents! };
    // One of 200 is half of what is allowed; the share counts from 1,000 samples on.
    const loader = loaderOf(set, { fields, prefetch: 1, plan: () => withBad! });
    for (let step = 0; step < 15; step++) {
      await loader.ready(step);
      scope(() => void loader.take(step));
    }
    expect(loader.stats.bad).toBeGreaterThan(10);
    await loader.close();
    const [bad] = withBad!.slice(-1);
    const worse = loaderOf(set, { fields, prefetch: 1, plan: () => [...whole!.slice(0, 197), bad!, bad!, bad!] });
    expect(
      await failure(async () => {
        for (let step = 0; step < 15; step++) {
          await worse.ready(step);
          scope(() => void worse.take(step));
        }
      }),
    ).toBe("TooManyBad");
    await worse.close();
    set.close();
  });

  test("nothing is read ahead behind one that is an error", async () => {
    const set = await ShardSet.open({ sources: await folderOf() });
    const planned: number[] = [];
    const plan = (step: number) => {
      planned.push(step);
      if (step === 2) throw new Error("no such step");
      return [{ sample: step, variant: 0 }];
    };
    const loader = loaderOf(set, { prefetch: 3, plan });
    await loader.ready(0);
    await loader.ready(1);
    await expect(loader.ready(2)).rejects.toThrow("no such step");
    expect(planned).toEqual([0, 1, 2]);
    await loader.close();
    set.close();
  });

  test.each<[string, (path: string) => Promise<void> | void]>([
    ["cut short", (path) => truncateSync(path, 2000)],
    ["appended to", (path) => appendFileSync(path, "x")],
    ["touched", (path) => utimesSync(path, new Date(), new Date(Date.now() + 1000))],
    ["written over in its place", (path) => writeFileSync(path, Buffer.alloc(statSync(path).size))],
  ])("a shard that is %s while it is read never gives a batch", async (_, spoil) => {
    const folder = await folderOf();
    const set = await ShardSet.open({ sources: folder });
    const loader = loaderOf(set);
    await take(loader, 0);
    await spoil(join(folder, "0.tar"));
    expect(["Changed", "ShortRead"]).toContain(await failure(() => epoch(loader, 12)));
    await loader.close();
    set.close();

    const skipping = await ShardSet.open({ sources: await folderOf(), onBadSample: "skip", maxBadRate: 1 });
    const second = loaderOf(skipping);
    await take(second, 0);
    await spoil(skipping.shards[0]!.path);
    const seen = await epoch(second, 12); // every number is checked on the way
    expect(seen.every((sample) => sample >= SIZES[0]!)).toBe(true);
    expect(second.stats.bad).toBeGreaterThan(0);
    await second.close();
    skipping.close();
  });

  test("shards that are away for a while are waited for: the same samples come as if nothing had been", async () => {
    const folder = await folderOf();
    const set = await ShardSet.open({ sources: folder, onBadSample: "error" });
    const told: string[] = [];
    const loader = loaderOf(set, { onWaiting: ({ path, rule }) => told.push(`${rule} ${path}`) });
    renameSync(folder, `${folder}.away`);
    const waiting = take(loader, 0);
    await expect.poll(() => told.length).toBe(1);
    renameSync(`${folder}.away`, folder);
    expect(await waiting).toEqual(planOf(set)(0));
    expect(told[0]).toMatch(new RegExp(`^Unreadable ${folder}/\\d\\.tar$`));
    expect(loader.stats.bad).toBe(0);

    await loader.close();
    set.close();
  });

  test("a file whose descriptor is dead, as after a network folder was away, is opened anew", async () => {
    const set = await ShardSet.open({ sources: await folderOf(), onBadSample: "error" });
    const reopen = vi.spyOn(set, "reopen");
    const open = set.lease.bind(set);
    vi.spyOn(set, "lease").mockImplementation((shard) => {
      const { file, release } = open(shard);
      const isNew = reopen.mock.calls.some(([reopened]) => reopened === shard);
      return { file: isNew ? file : ({ fingerprint: file.fingerprint, descriptor: 1_000_000 } as never), release };
    });
    const loader = loaderOf(set);
    expect(await take(loader, 0)).toEqual(planOf(set)(0));
    await loader.close();
    set.close();
  });

  test("waiting for shards ends with the loader", async () => {
    const folder = await folderOf();
    const set = await ShardSet.open({ sources: folder });
    const onWaiting = vi.fn();
    const loader = loaderOf(set, { onWaiting });
    rmSync(folder, { recursive: true });
    const ready = loader.ready(0).catch(() => {});
    await expect.poll(() => onWaiting.mock.calls.length).toBe(1);
    await loader.close(); // and not after the minute, which is too long for a test
    await ready;
    set.close();
  });

  test("a shard that is replaced by renaming is read on as it was, and noticed when it is opened again", async () => {
    const folder = await folderOf();
    const set = await ShardSet.open({ sources: folder });
    const loader = loaderOf(set);
    await epoch(loader);
    await writeShard(join(folder, "new"), 1000, SIZES[0]!);
    renameSync(join(folder, "new"), join(folder, "0.tar"));
    await epoch(loader, 12); // check() sees the old numbers
    await loader.close();
    set.close();
    expect(await failure(() => epoch(loaderOf(set)))).toBe("Changed");
  });
});

/** Where the zero blocks that end an archive begin. */
function endOf(path: string): number {
  const tar = TarFile.open(path);
  const { offset, size } = tar.members.at(-1)!;
  tar.close();
  return offset + Math.ceil(size / 512) * 512;
}
