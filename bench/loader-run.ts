/**
 * One run of the shard loader in a process of its own: `node bench/dist/loader-run.js '{"folder": …}'`. Its last line
 * is JSON.
 *
 * Run alone, it is the soak test: `node bench/dist/loader-run.js '{"folder": DIR, "steps": 15625, "rss": 1000}'` reads
 * a million samples and prints the resident memory every 1000 steps.
 */
import { scope } from "@miro-t2i/torch";
import { ShardLoader, ShardSet, ShuffledOrder, stepPosition } from "miro-t2i/data";

export interface LoaderRun {
  folder: string;
  batch: number;
  steps: number;
  prefetch: number;
  /** Shards mixed at a time. */
  windowShards: number | "all";
  /** Print resident memory every so many steps. */
  rss?: number;
}

export interface LoaderFigures {
  samples: number;
  seconds: number;
  cpuSeconds: number;
  bytes: number;
  sum: number;
  openSeconds: number;
  maxRssMiB: number;
}

const given = JSON.parse(process.argv[2] ?? "{}") as Partial<LoaderRun>;
const { folder = ".", batch = 64, steps = 100, prefetch = 4, windowShards = "all", rss }: Partial<LoaderRun> = given;

const opening = performance.now();
const set = await ShardSet.open({ sources: folder });
for (let shard = 0; shard < set.shards.length; shard++) set.table(shard);
const openSeconds = (performance.now() - opening) / 1000;

const order = new ShuffledOrder({ shardSizes: set.shards.map(({ count }) => count), windowShards });
const loader = new ShardLoader(set, {
  fields: {
    text: { kind: "sequence", member: "flan_t5_xl_embeddings.npy" },
    mean: { kind: "array", member: "vae_embeddings_mean_256.npy" },
    std: { kind: "array", member: "vae_embeddings_std_256.npy" },
  },
  columns: ["clip_score"],
  prefetch,
  plan: (step) => {
    const { epoch, position } = stepPosition(step, batch, order.length);
    return Array.from({ length: batch }, (_, i) => ({ sample: order.index(epoch, position + i) }));
  },
});

const cpu = process.cpuUsage();
const start = performance.now();
let sum = 0;
let maxRss = 0;
for (let step = 0; step < steps; step++) {
  await loader.ready(step);
  scope(() => {
    for (const score of loader.take(step).columns.clip_score!) sum += score;
  });
  if (step % 16 === 0) maxRss = Math.max(maxRss, process.memoryUsage.rss());
  if (rss !== undefined && step % rss === rss - 1)
    console.error(`${(step + 1) * batch} samples: ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB resident`);
}
const seconds = (performance.now() - start) / 1000;
const used = process.cpuUsage(cpu);
const { samples, bytes } = loader.stats;
await loader.close();
set.close();
const cpuSeconds = (used.user + used.system) / 1e6;
const figures: LoaderFigures = { samples, seconds, cpuSeconds, bytes, sum, openSeconds, maxRssMiB: maxRss / 2 ** 20 };
console.log(JSON.stringify(figures));
