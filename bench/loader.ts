/**
 * `npm run bench -- loader`: samples a second out of shards of the published sizes, this loader against Python's `wids`
 * and `webdataset` on the same shards in the same run: text embeddings (77 × 2048 float16), latents' mean and std at
 * 256, one score.
 *
 * All three get two workers (ours: two threads of libuv's pool) and the same batch size; Python's workers read ahead as
 * many batches as ours. "Per core" divides by the processor time of all threads and processes. Warm: the shards are in
 * the page cache. Cold: they were dropped from it (posix_fadvise) before each run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { aten, empty, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { encodeNpy } from "@miro-t2i/torch/io";
import { ShardSet, TarWriter, tarsIn, writeWidsIndex } from "miro-t2i/data";
import { BenchError, type BenchOptions, columns, runOurs, runReference, spread, store } from "./harness.js";
import type { LoaderFigures, LoaderRun } from "./loader-run.js";

const WORKERS = 2;
const BATCH = 64;
const TOKENS = 77;
const WIDTH = 2048;
const TEXT = "flan_t5_xl_embeddings.npy";
const JPEG_BYTES = 50_000;

interface Figures {
  samples: number;
  seconds: number;
  cpuSeconds: number;
  sum: number;
  versions?: Record<string, string>;
}

export async function loader(options: BenchOptions): Promise<void> {
  const [shards, perShard] = options.size === "full" ? [8, 512] : [4, 64];
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-loader-"));
  try {
    const bytes = await makeShards(folder, shards, perShard);
    const tars = tarsIn(folder);
    const indexing = performance.now();
    await writeWidsIndex(join(folder, "wids-index.json"), { shards: tars });
    const indexSeconds = (performance.now() - indexing) / 1000;
    const samples = shards * perShard;
    const epochs = 1;
    const { python } = options;

    // Ours is over in a second where Python takes ten: more epochs, for runs of similar length.
    const ours =
      (changes: Partial<LoaderRun> = {}) =>
      () =>
        run({
          folder,
          batch: BATCH,
          steps: (samples / BATCH) * epochs * 8,
          prefetch: 4,
          windowShards: "all",
          ...changes,
        });
    const theirs =
      (reader: string, workers = WORKERS) =>
      () =>
        runReference<Figures>(python!, "loader.py", [
          reader,
          folder,
          ...["--batch", BATCH, "--workers", workers, "--epochs", epochs].map(String),
        ]);
    const cold = (work: () => Figures) => () => {
      runReference(python!, "loader.py", ["evict", folder]);
      return work();
    };
    const once = { steps: samples / BATCH };
    const variants: [name: string, work: () => Figures][] = [["miro-t2i, whole set shuffled", ours()]];
    if (python !== null) {
      variants.push(
        ["wids, shuffled", theirs("wids")],
        ["webdataset, in order", theirs("webdataset")],
        ["wids, no workers", theirs("wids", 0)],
        ["webdataset, no workers", theirs("webdataset", 0)],
        ["miro-t2i, cold, whole set", cold(ours(once))],
        ["miro-t2i, cold, 2 shards at a time", cold(ours({ ...once, windowShards: 2 }))],
        ["wids, cold", cold(theirs("wids"))],
      );
    }
    const rows: { name: string; perSecond: ReturnType<typeof spread>; perCoreSecond: ReturnType<typeof spread> }[] = [];
    const versions: Record<string, string> = {};
    let expected: number | null = null;
    for (const [name, work] of variants) {
      const runs = Array.from({ length: options.rounds }, work);
      for (const { samples: seen, sum, versions: found } of runs) {
        Object.assign(versions, found);
        // Whole epochs: every reader must have seen every sample equally often.
        expected ??= sum / seen;
        if (seen % samples !== 0 || Math.abs(sum / seen - expected) > 1e-6)
          throw new BenchError(`${name}: ${seen} samples with a mean score of ${sum / seen}, expected ${expected}`);
      }
      rows.push({
        name,
        perSecond: spread(runs.map((r) => r.samples / r.seconds)),
        perCoreSecond: spread(runs.map((r) => r.samples / r.cpuSeconds)),
      });
      console.error(`${name}: ${rows.at(-1)!.perSecond.median.toFixed(0)} samples/s`);
    }
    const maps = await mapAgainstPread(folder);
    console.log(
      columns([
        ["", "samples/s", "per core-second", "times wids, per core"],
        ...rows.map(({ name, perSecond, perCoreSecond }) => {
          const wids = rows.find((row) => row.name === "wids, shuffled")?.perCoreSecond.median;
          return [
            name,
            perSecond.median.toFixed(0),
            perCoreSecond.median.toFixed(0),
            wids === undefined ? "-" : (perCoreSecond.median / wids).toFixed(1),
          ];
        }),
      ]),
    );
    console.log(
      `copying rows on one thread: pread ${maps.preadGBps.toFixed(1)} GB/s, memory map ${maps.mapGBps.toFixed(1)} GB/s, mapped anew each time ${maps.mapAgainGBps.toFixed(1)} GB/s`,
    );
    console.log(`index and tables of ${samples} samples: ${indexSeconds.toFixed(2)} s`);
    const config = {
      shards,
      samples,
      bytesPerSample: Math.round(bytes / samples),
      tokens: TOKENS,
      width: WIDTH,
      batch: BATCH,
      workers: WORKERS,
      epochs,
    };
    console.log(`written: ${store(options, config, { runs: rows, indexSeconds, ...maps }, versions)}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(settings: LoaderRun): LoaderFigures {
  return runOurs("loader", settings, { UV_THREADPOOL_SIZE: String(WORKERS), OMP_NUM_THREADS: "1" });
}

/** What in shards is as a network has it; as published by default. */
export interface ShardShapes {
  /** Of a text state. */
  width: number;
  /** Of the latents at 256. */
  side: number;
  /** Fields with scores. */
  scores: readonly string[];
}

/**
 * Shards with members, sizes and order of the published ones; the values are random: normal numbers in float16.
 * @returns their size
 */
export async function makeShards(
  folder: string,
  shards: number,
  perShard: number,
  { width = WIDTH, side = 32, scores = ["clip_score"] }: Partial<ShardShapes> = {},
): Promise<number> {
  const noise = scope(() => {
    const values = randn([4 * 2 ** 20], { dtype: "float32" })
      .to("float16")
      .data();
    return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  });
  const filled = (template: Uint8Array, header: number, seed: number): Uint8Array => {
    const start = 2 * ((seed * 104_729) % ((noise.length - template.length) / 2)); // a whole number of values
    const bytes = Buffer.from(noise.subarray(start, start + template.length));
    bytes.set(template.subarray(0, header));
    return bytes;
  };
  const template = (shape: number[]) => scope(() => encodeNpy(zeros(shape, { dtype: "float16" })));
  const [text, small, large] = [
    template([TOKENS, width]),
    template([4, side, side]),
    template([4, 2 * side, 2 * side]),
  ];
  const jpg = new Uint8Array(JPEG_BYTES);
  let bytes = 0;
  for (let shard = 0; shard < shards; shard++) {
    const writer = await TarWriter.create(join(folder, `${String(shard).padStart(5, "0")}.tar`));
    for (let i = 0; i < perShard; i++) {
      const n = shard * perShard + i;
      await writer.addSample(String(n).padStart(9, "0"), {
        [TEXT]: filled(text, 128, n),
        jpg: filled(jpg, 0, n + 1),
        json: Buffer.from(
          JSON.stringify({
            width: 512,
            height: 384,
            caption: `caption ${n}`,
            ...Object.fromEntries(scores.map((score) => [score, (n % 1024) / 1024])),
          }),
        ),
        txt: Buffer.from(`caption ${n}`),
        "vae_embeddings_mean_256.npy": filled(small, 128, n + 2),
        "vae_embeddings_mean_512.npy": filled(large, 128, n + 3),
        "vae_embeddings_std_256.npy": filled(small, 128, n + 4),
        "vae_embeddings_std_512.npy": filled(large, 128, n + 5),
      });
    }
    bytes += (await writer.finish()).bytes;
  }
  return bytes;
}

/** The copy of text rows into a batch, by positional reads and from a memory map, both on this thread. */
async function mapAgainstPread(folder: string): Promise<{
  preadGBps: number;
  mapGBps: number;
  mapAgainGBps: number;
}> {
  const { openSync, readSync, closeSync, statSync } = await import("node:fs");
  const [path] = tarsIn(folder);
  const set = await ShardSet.open({ sources: path! });
  const table = set.table(0);
  const places = Array.from({ length: table.count }, (_, i) => table.array((i * 37) % table.count, TEXT)!);
  const rowBytes = places[0]!.sizeBytes;
  const rounds = 4;
  const rate = (work: () => void): number => {
    work();
    const start = performance.now();
    for (let i = 0; i < rounds; i++) work();
    return (rounds * places.length * rowBytes) / ((performance.now() - start) / 1000) / 1e9;
  };
  const row = Buffer.alloc(BATCH * rowBytes);
  const descriptor = openSync(path!, "r");
  const preadGBps = rate(() => {
    for (const [i, { offset }] of places.entries()) readSync(descriptor, row, (i % BATCH) * rowBytes, rowBytes, offset);
  });
  closeSync(descriptor);
  const [mapGBps, mapAgainGBps] = scope(() => {
    const target = empty([BATCH, rowBytes], { dtype: "uint8" });
    const map = () => aten.from_file(path!, false, statSync(path!).size, "uint8");
    const copy = (from: Tensor): void => {
      for (const [i, { offset }] of places.entries())
        target.select(0, i % BATCH).copy_(from.narrow(0, offset, rowBytes));
    };
    const kept = map();
    return [rate(() => scope(() => copy(kept))), rate(() => scope(() => copy(map())))] as const;
  });
  set.close();
  return { preadGBps, mapGBps, mapAgainGBps };
}
