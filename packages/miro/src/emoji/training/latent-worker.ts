/** Worker thread of the latent cache: renders scenes, encodes them, writes shards (see latent-cache.ts). */
import { setImmediate as nextTurn } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { cat, noGrad, scope, setNumThreads, type Tensor, tensor } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { Tokenizer } from "../../text/tokenizer.js";
import { EmojiScenes } from "../scenes/scenes.js";
import { type ShardJob, type ShardProgress, shardPath } from "./latent-cache.js";

/** Scenes encoded in one pass. */
const CHUNK = 16;

const { data, folder, shards } = workerData as ShardJob;
setNumThreads(1); // beside the training, which has the others
const scenes = await EmojiScenes.load(data.scenes);
const autoencoder = loadAutoencoder(data.autoencoder, { device: "cpu", dtype: "float32" });
const tokenizer = await Tokenizer.fromFile(data.textEncoder);

for (const shard of shards) {
  makeShard(shard);
  await nextTurn();
}

function makeShard(shard: number): void {
  const start = shard * data.shardSize;
  const count = Math.min(data.shardSize, data.samples - start);
  const tell = (done: number) => parentPort!.postMessage({ shard, done, all: count } satisfies ShardProgress);
  scope(() => {
    const captions: string[] = [];
    const rewards: Record<string, number[]> = {};
    const latents: Tensor[] = [];
    for (let at = 0; at < count; at += CHUNK) {
      const batch = scenes.batch(start + at, Math.min(CHUNK, count - at));
      captions.push(...batch.captions);
      for (const [key, values] of Object.entries(batch.rewards)) rewards[key] = [...(rewards[key] ?? []), ...values];
      latents.push(
        scope(() => {
          const x = tensor(batch.pixels, { shape: [batch.captions.length, 3, scenes.size, scenes.size] });
          return noGrad(() => autoencoder.encode(x).mean.half());
        }),
      );
      if (at + CHUNK < count) tell(at + CHUNK);
    }
    writeSafetensors(shardPath(folder, shard), {
      latents: cat(latents, 0),
      ids: tokenizer.encodeBatch(captions, { maxLength: data.maxTextLen, padTo: data.maxTextLen }).ids.to("int32"),
      ...Object.fromEntries(
        Object.entries(rewards).map(([key, values]) => [`reward.${key}`, tensor(values, { dtype: "float32" })]),
      ),
    });
  });
  tell(count);
}
