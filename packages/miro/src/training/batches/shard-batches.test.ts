import { type ChildProcess, spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { writeNpy } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { defaultNormalization, normalize } from "../../autoencoder/normalization.js";
import { sampleLatents } from "../../data/dataset/latents.js";
import {
  COUNTS,
  copyPublished,
  edgesAsRecorded,
  recorded,
  recordedTensors,
  SHARDS,
} from "../../data/dataset/testing/published.js";
import { type ShardBatch, ShardLoader } from "../../data/shards/loader.js";
import type { BatchSpan } from "../../data/shards/order.js";
import { makeTinyParts } from "../../emoji/training/testing/tiny-emoji.js";
import { parseRinConfig } from "../../networks/config.js";
import { openRunModel } from "../../pipeline/loading/run-model.js";
import { runTraining } from "../loop/run.js";
import { parseRecipe } from "../recipes/recipe.js";
import { readTrainingState } from "../state/checkpoint.js";
import { bits, tinyRecipeJson } from "../testing/tiny.js";
import { divideRows, type Rows } from "./batch-slices.js";
import { ShardBatches } from "./shard-batches.js";
import type { ShardData } from "./shard-data.js";

const published = copyPublished();
const roots = ["cc12m", "laion"].map((name) => join(published.path, name));
const output = mkdtempSync(join(tmpdir(), "miro-shard-run-"));
const { scores, batches, keys } = recorded();
const tensors = recordedTensors();
afterAll(() => {
  published.remove();
  rmSync(output, { recursive: true, force: true });
  for (const tensor of tensors.values()) tensor.dispose();
});

/** A recipe whose network fits the recorded shards. */
function recipeJson(data: object, trainer: object = {}, network: object = {}): Record<string, unknown> {
  const json = tinyRecipeJson(trainer, { data: { kind: "shards", root: roots, max_bad_rate: 0.1, ...data } });
  const sizes = { data_size: 8, label_dim: 16, num_cond_tokens: 20, coherence_keys: scores };
  return { ...json, network: { ...(json.network as object), ...sizes, ...network }, loss: {} };
}

async function open(
  data: object,
  batchSize: number,
  seed = 7,
  onMessage?: (message: string) => void,
  rows?: Rows,
  spans?: readonly BatchSpan[],
): Promise<ShardBatches> {
  const recipe = parseRecipe(recipeJson(data));
  return ShardBatches.open({
    data: recipe.data as unknown as ShardData,
    network: parseRinConfig(recipe.network),
    seed,
    batchSize,
    rows,
    spans,
    device: "cpu",
    sigmaData: 0.5,
    onMessage,
  });
}

const values = (t: Tensor) => {
  const data = t.contiguous().data();
  return `${t.dtype} (${t.shape}) ${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64")}`;
};

const taken = vi.spyOn(ShardLoader.prototype, "take");

/** A batch, with its rows' samples in the set of all shards and which of them have the synthetic caption. */
function batchOf(source: ShardBatches, step: number) {
  const batch = source.batch(step);
  const { rows } = taken.mock.results.at(-1)!.value as ShardBatch;
  return { ...batch, samples: rows.map(({ sample }) => sample), synthetic: rows.map(({ variant }) => variant === 1) };
}

/** What a batch holds, as text. */
const dump = (batch: ReturnType<typeof batchOf>) => ({
  x0: values(batch.x0),
  text: values(batch.textEmbeddings),
  mask: values(batch.textMask),
  rewards: Object.values(batch.rewards).map(values),
  samples: batch.samples,
  synthetic: batch.synthetic,
});

async function dumpOf(source: ShardBatches, step: number) {
  await source.ready(step);
  return scope(() => dump(batchOf(source, step)));
}

describe("batches from published shards", () => {
  it.each(Object.keys(batches))("%s hold what the published code reads, to the bit", async (name) => {
    const { options: o, max_length, indices, passing, bins } = batches[name]!;
    const source = await open(
      {
        ...o,
        bin_coherence: o.bin_coherence ?? false,
        distinct: true,
        upstream_levels: true,
        score_mode: "original",
        require_picture_and_caption: true,
        sampler: "sequential",
        max_text_len: max_length,
        text_padding: "fixed",
        vae_sample: false,
      },
      passing.length,
    );
    try {
      await source.ready(0);
      scope(() => {
        const batch = batchOf(source, 0);
        expect(batch.samples).toEqual(passing);
        const rows = tensor(BigInt64Array.from(indices.map((i) => BigInt(passing.indexOf(i)))), { dtype: "int64" });
        const same = (mine: Tensor, key: string) =>
          expect(values(mine.indexSelect(0, rows))).toBe(values(tensors.get(`${name}/${key}`)!));
        same(batch.textEmbeddings, "flan_t5_xl_embeddings");
        same(batch.textMask, "flan_t5_xl_mask");
        for (const score of scores) same(batch.rewards[score]!, `${score}_coherence`);
        const mean = tensors.get(`${name}/vae_embeddings_mean_256`)!;
        const expected = name === "plain" ? tensors.get("x_0/mean")! : normalize(mean.float(), sdxl());
        expect(values(batch.x0.indexSelect(0, rows))).toBe(values(expected));
      });
      for (const [score, edges] of Object.entries(bins))
        expect(edgesAsRecorded(source.set.bins!.get(score)!, edges)).toEqual(edges);
    } finally {
      await source.close();
    }
  });

  const sdxl = () => defaultNormalization({ channel_wise_normalisation: true });

  it("number samples as Python's wids does", async () => {
    const source = await open({ min_image_size: 0 }, 4);
    const { shards } = source.set;
    expect(
      Array.from({ length: shards.length }, (_, i) => {
        const { shard, local } = shards.locate(i);
        return shards.table(shard).key(local);
      }),
    ).toEqual(keys);
    await source.close();
  });

  it("draw latents as the published preprocessing does, given its noise", () => {
    scope(() => {
      const [mean, std, noise] = ["plain/vae_embeddings_mean_256", "plain/vae_embeddings_std_256", "x_0/noise"].map(
        (key) => tensors.get(key)!,
      );
      expect(values(normalize(sampleLatents(mean!, std!, noise!, "stored"), sdxl()))).toBe(
        values(tensors.get("x_0/sample")!),
      );
      const exact = mean!.double().add(std!.double().mul(noise!.double()));
      const error = (dtype: "float32" | "stored") =>
        sampleLatents(mean!, std!, noise!, dtype).double().sub(exact).abs().max().item();
      expect(error("float32")).toBeLessThan(1e-5);
      expect(error("stored")).toBeGreaterThan(1e-4);
    });
  });
});

describe("batches from shards", () => {
  const data = { synthetic_embedding_prob: 0.5, num_bins: 8 };

  it("are a function of seed and step, wherever the run begins", async () => {
    const all = await open(data, 5);
    const steps = 3 * Math.floor(all.set.length / 5);
    const dumps: Awaited<ReturnType<typeof dumpOf>>[] = [];
    for (let step = 0; step < steps; step++) dumps.push(await dumpOf(all, step));
    await all.close();
    const later = await open({ ...data, prefetch_factor: 1 }, 5);
    for (const step of [7, 8, 2, steps - 1]) expect(await dumpOf(later, step)).toEqual(dumps[step]);
    await later.close();
    const other = await open(data, 5, 8);
    expect(await dumpOf(other, 0)).not.toEqual(dumps[0]);
    await other.close();
    const epochs = [0, 1, 2].map((e) =>
      dumps.slice((e * steps) / 3, ((e + 1) * steps) / 3).flatMap(({ samples }) => samples),
    );
    for (const epoch of epochs) expect(new Set(epoch).size).toBe(epoch.length);
    expect(epochs[0]).not.toEqual(epochs[1]);
  });

  it("do not depend, sample by sample, on the size of the batch", async () => {
    const rows = async (batchSize: number) => {
      const source = await open({ ...data, text_padding: "fixed", max_text_len: 40 }, batchSize);
      const found: string[] = [];
      for (let step = 0; step * batchSize < 24; step++) {
        await source.ready(step);
        scope(() => {
          const { x0, textEmbeddings, rewards } = source.batch(step);
          for (let i = 0; i < batchSize; i++)
            found.push([x0, textEmbeddings, ...Object.values(rewards)].map((t) => values(t.select(0, i))).join());
        });
      }
      await source.close();
      return found;
    };
    expect(await rows(8)).toEqual(await rows(3));
  });

  it("are divided among processes without a gap and without a sample twice", async () => {
    const read = async (world: number) => {
      const parts = divideRows(12, world);
      const sources = await Promise.all(parts.map((rows) => open({ ...data }, 12, 7, undefined, rows)));
      const steps: number[][] = [];
      for (const step of [0, 1, 5]) {
        await Promise.all(sources.map((source) => source.ready(step)));
        steps.push(scope(() => sources.flatMap((source) => batchOf(source, step).samples)));
      }
      await Promise.all(sources.map((source) => source.close()));
      return steps;
    };
    const whole = await read(1);
    expect(whole.map((samples) => samples.length)).toEqual([12, 12, 12]);
    for (const world of [2, 3, 5]) expect(await read(world)).toEqual(whole);
  });

  it("have the scores of the caption that they have", async () => {
    const source = await open({ ...data, bin_coherence: false }, 28);
    const { shards } = source.set;
    await source.ready(0);
    scope(() => {
      const batch = batchOf(source, 0);
      expect(new Set(batch.synthetic)).toEqual(new Set([true, false]));
      batch.samples.forEach((sample, row) => {
        const { shard, local } = shards.locate(sample);
        for (const score of scores) {
          const value = shards.table(shard).value(local, batch.synthetic[row] ? `synthetic_${score}` : score);
          expect(batch.rewards[score]!.select(0, row).item()).toBe(Math.fround(value));
          expect(Number.isNaN(batch.rewards[score]!.select(0, row).item())).toBe(Number.isNaN(value));
        }
      });
      expect(Object.values(batch.rewards).some((t) => Number.isNaN(t.sum().item()))).toBe(true);
    });
    await source.close();
  });

  it("have their rewards from the fields that the recipe names, whatever those are called", async () => {
    const [first, second, ...others] = scores as string[];
    const columns = { coherence_scores: undefined, score_columns: [second, first, ...others] };
    const rewardsOf = async (data: object) => {
      const source = await open({ ...data, bin_coherence: false }, 28);
      await source.ready(0);
      const rewards = scope(() =>
        Object.fromEntries(Object.entries(source.batch(0).rewards).map(([key, t]) => [key, values(t)])),
      );
      await source.close();
      return rewards;
    };
    const { [first!]: a, [second!]: b, ...rest } = await rewardsOf(data);
    expect(await rewardsOf({ ...data, ...columns })).toEqual({ ...rest, [first!]: b, [second!]: a });
    expect(a).not.toEqual(b);
    await expect(open({ ...data, score_columns: [first] }, 4)).rejects.toThrow(
      /data\.score_columns: expected a field for each of the \d network\.coherence_keys \(received 1\)/,
    );
  });

  it("say why synthetic captions are not trained with, where a score of theirs is nowhere", async () => {
    const messages: string[] = [];
    const columns = { coherence_scores: undefined, score_columns: ["height", ...scores.slice(1)] };
    const synthetic = async (data: object) => {
      const source = await open({ synthetic_embedding_prob: 1, bin_coherence: false, ...data }, 28, 7, (message) =>
        messages.push(message),
      );
      const { synthetic } = await dumpOf(source, 0);
      await source.close();
      return synthetic.filter(Boolean).length;
    };
    expect(await synthetic({})).toBeGreaterThan(0);
    expect(messages).toEqual([]);
    expect(await synthetic(columns)).toBe(1); // the one sample without a height
    expect(messages).toEqual([
      expect.stringMatching(/no sample has synthetic_height, so .* height keep .* data\.score_mode=original/),
    ]);
    expect(await synthetic({ ...columns, score_mode: "original" })).toBeGreaterThan(0);
    expect(messages.length).toBe(1);
  });

  it("are padded to the batch's longest text and cut at the limit", async () => {
    const source = await open({ max_text_len: 9 }, 6);
    await source.ready(0);
    scope(() => {
      const { textEmbeddings, textMask } = source.batch(0);
      const lengths = (textMask.sum(1).toList() as unknown[]).map(Number);
      expect(textEmbeddings.shape).toEqual([6, Math.max(...lengths), 16]);
      expect(Math.max(...lengths)).toBe(9);
      expect(textEmbeddings.mul(textMask.logicalNot().unsqueeze(2)).abs().sum().item()).toBe(0);
    });
    expect(source.stats.truncated.text).toBeGreaterThan(0);
    await source.close();
  });

  it("are brought to the wanted deviation by their own statistics", async () => {
    const source = await open({ latent_normalization: "data", vae_sample: false }, 28);
    await source.ready(0);
    scope(() => {
      const { x0 } = source.batch(0);
      expect(x0.std().item()).toBeCloseTo(0.5, 1);
      expect(Math.max(...(x0.mean([0, 2, 3]).abs().toList() as number[]))).toBeLessThan(0.02);
    });
    await source.close();
  });

  it.each(["chunked", "shard_exclusive"])("come in the order %s, each sample once an epoch", async (sampler) => {
    const source = await open({ sampler, sampler_chunksize: 6, streams: 2 }, 4);
    const seen: number[] = [];
    for (let step = 0; step < Math.floor(source.set.length / 4); step++)
      seen.push(...(await dumpOf(source, step)).samples);
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).not.toEqual([...seen].sort((a, b) => a - b));
    await source.close();
  });

  it("of several streams come once an epoch, too, when the size of the batch changes in mid-epoch", async () => {
    const order = { sampler: "shard_exclusive", streams: 3 };
    const seen: number[] = [];
    const first = await open(order, 4);
    for (const step of [0, 1]) seen.push(...(await dumpOf(first, step)).samples);
    const spans = [
      { from: 0, batchSize: 4 },
      { from: 2, batchSize: 3 },
    ];
    const second = await open(order, 3, 7, undefined, undefined, spans);
    const rest = Math.floor((second.set.length - 8) / 3);
    for (let step = 2; step < 2 + rest; step++) seen.push(...(await dumpOf(second, step)).samples);
    expect(seen).toHaveLength(8 + 3 * rest);
    expect(new Set(seen).size).toBe(seen.length);
    for (const source of [first, second]) await source.close();
  });

  it("come from each root by its weight", async () => {
    const source = await open({ weights: [1, 3] }, 8);
    const seen: number[] = [];
    for (let step = 0; step < 90; step++) seen.push(...(await dumpOf(source, step)).samples);
    const laion = seen.filter((sample) => sample >= COUNTS[0]! + COUNTS[1]!).length / seen.length;
    expect(Math.abs(laion - 0.75)).toBeLessThan(0.05);
    await source.close();
  });

  it("that do not fit the network are refused with the member's name", async () => {
    const refused = (network: object, message: RegExp) =>
      expect(
        runTraining({ recipe: parseRecipe(recipeJson({}, {}, network)), output: join(output, "none") }),
      ).rejects.toThrow(message);
    await refused(
      { data_size: 4 },
      /vae_embeddings_mean_256\.npy": expected the shape \(4, 4, 4\) of network\.num_input.*found \(4, 8, 8\)/,
    );
    await refused(
      { label_dim: 12 },
      /flan_t5_xl_embeddings\.npy": expected the shape \(tokens, 12\) of network\.label_dim, found \(\d+, 16\)/,
    );
    await refused({ coherence_keys: ["beauty_score"] }, /beauty_score: no bins can be made, no sample has one/);
    // one sample has no size
    await expect(open({ min_image_size: 5000 }, 2)).rejects.toThrow(/^trainer\.batch_size: expected at most 1,/);
    await expect(open({ min_image_size: 5000, root: roots[1] }, 2)).rejects.toThrow(
      /none of 8 samples passes the filters/,
    );
    await expect(open({ root: join(published.path, "none") }, 2)).rejects.toThrow(/none: no such file or directory/);
    await expect(open({}, 33)).rejects.toThrow(
      /^trainer\.batch_size: expected at most 31, .* that pass the filters \(received 33\)/,
    );
  });

  it("replace samples of a shard that went bad and say so; by policy they end", async () => {
    const copy = copyPublished();
    const root = ["cc12m", "laion"].map((name) => join(copy.path, name));
    const messages: string[] = [];
    const patient = await open({ root }, 8, 7, (message) => messages.push(message));
    const strict = await open({ root, on_bad_sample: "error" }, 8);
    const shard = join(copy.path, SHARDS[2]!);
    truncateSync(shard, statSync(shard).size / 2);
    const samples: number[] = [];
    for (let step = 0; step < 3; step++) samples.push(...(await dumpOf(patient, step)).samples);
    expect(samples).toHaveLength(24);
    expect(Math.max(...samples)).toBeLessThan(COUNTS[0]! + COUNTS[1]!);
    await expect(
      (async () => {
        for (let step = 0; step < 3; step++) await dumpOf(strict, step);
      })(),
    ).rejects.toThrow(/00002\.tar.*changed/);
    await Promise.all([patient.close(), strict.close()]);
    expect(messages.join()).toMatch(
      /^\d+ samples could not be used and were replaced; the last: .*00002\.tar: .*changed/,
    );
    copy.remove();
  });
});

describe("training from shards", { timeout: 180_000 }, () => {
  const json = recipeJson(
    { synthetic_embedding_prob: 0.5, num_bins: 8 },
    { max_steps: 20, batch_size: 6, checkpoint_every_n_steps: 3, log_every_n_steps: 1, threads: 1 },
  );
  const recipe = join(output, "recipe.yaml");
  const whole = join(output, "whole");
  beforeAll(async () => {
    writeFileSync(recipe, JSON.stringify(json));
    expect(await runTraining({ recipe: parseRecipe(json), output: whole })).toMatchObject({ finished: true, step: 20 });
  });

  it("ends with the same weights after kill -9 in mid-epoch", async () => {
    const miro = join(import.meta.dirname, "../../../bin/miro.mjs");
    const folder = join(output, "killed");
    const log = join(folder, "log.jsonl");
    const train = (...args: string[]): ChildProcess =>
      spawn(process.execPath, [miro, "train", recipe, "--output", folder, ...args], { stdio: "ignore" });
    const killed = train();
    const ended = new Promise<string | null>((resolve) => killed.on("close", (_, signal) => resolve(signal)));
    const watch = setInterval(() => {
      if (existsSync(log) && readFileSync(log, "utf8").split("\n").length > 7) killed.kill("SIGKILL");
    }, 2);
    expect(await ended).toBe("SIGKILL");
    clearInterval(watch);
    const code = await new Promise((resolve) => train("--resume").on("close", resolve));
    expect(code).toBe(0);
    expect(bits(folder)).toEqual(bits(whole));
  });

  it("goes on behind the last sample when the batch changes, also from a checkpoint that states no batches", async () => {
    const folder = join(output, "larger");
    const seen = vi.spyOn(ShardLoader.prototype, "take");
    const samplesOf = async (batch_size: number, max_steps: number, resume: boolean) => {
      seen.mockClear();
      const recipe = parseRecipe(recipeJson({ num_bins: 8 }, { max_steps, batch_size }));
      await runTraining({ recipe, output: folder, resume, allowChanges: resume });
      const taken = seen.mock.results.flatMap(({ value }) => (value as ShardBatch).rows.map(({ sample }) => sample));
      return { taken, state: readTrainingState(join(folder, `checkpoints/step-0000000${max_steps}`)) };
    };
    const first = await samplesOf(3, 2, false);
    const second = await samplesOf(4, 4, true);
    expect(new Set([...first.taken, ...second.taken]).size).toBe(6 + 8);
    expect(second.state.batches).toEqual([
      { from: 0, batchSize: 3 },
      { from: 2, batchSize: 4 },
    ]);
    expect(second.state.origin).toMatchObject({ globalBatch: 4, samplesSeen: 14 });
    const lines = readFileSync(join(folder, "log.jsonl"), "utf8").trim().split("\n");
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ step: 4, images: 14 });

    const path = join(folder, "checkpoints/step-00000004");
    const { batches: _, ...early } = second.state;
    writeFileSync(join(path, "state.json"), JSON.stringify(early));
    rmSync(join(path, "SHA256SUMS"));
    const third = await samplesOf(2, 5, true);
    const source = await open({ num_bins: 8 }, 2, parseRecipe(recipeJson({})).seed);
    // Such a version counted all steps by the last size: 4 steps of 4.
    await source.ready(8);
    expect(scope(() => batchOf(source, 8).samples)).toEqual(third.taken);
    await source.close();
  });

  it("says so when it goes on with other data", async () => {
    const copy = copyPublished();
    const root = ["cc12m", "laion"].map((name) => join(copy.path, name));
    const folder = join(output, "moved");
    const messages: string[] = [];
    const train = (data: object, max_steps: number, allowChanges = false) =>
      runTraining({
        allowChanges,
        recipe: parseRecipe(recipeJson({ ...data, num_bins: 8 }, { max_steps, batch_size: 4 })),
        output: folder,
        resume: max_steps > 1,
        onMessage: (message) => messages.push(message),
      });
    const said = () => messages.filter((message) => message.includes("other samples than")).length;
    await train({ root: roots }, 1);
    await train({ root }, 2); // copied elsewhere: the same data
    expect(said()).toBe(0);
    const reordered = { root: root.toReversed() };
    await expect(train(reordered, 3)).rejects.toThrow(
      /the data are not those of the run so far; from step 2 on .* `allowChanges: true`/,
    );
    await train(reordered, 3, true);
    expect(said()).toBe(1);
    const { since } = JSON.parse(readFileSync(join(folder, "data.json"), "utf8"));
    expect(since.map(({ step }: { step: number }) => step)).toEqual([0, 2]);
    copy.remove();
  });

  it("refuses to go on without a shard, names it, and goes on when it is back", async () => {
    const copy = copyPublished();
    const root = ["cc12m", "laion"].map((name) => join(copy.path, name));
    const folder = join(output, "incomplete");
    const train = (resume: boolean, signal?: AbortSignal, onProgress?: (progress: { step: number }) => void) =>
      runTraining({
        recipe: parseRecipe({ ...json, data: { ...(json.data as object), root } }),
        output: folder,
        resume,
        signal,
        onProgress,
      });
    const stop = new AbortController();
    await train(false, stop.signal, ({ step }) => step === 7 && stop.abort());
    const stored = bits(folder);
    const shard = readdirSync(root[0]!).find((name) => name.endsWith(".tar"))!;
    renameSync(join(root[0]!, shard), join(copy.path, "away.tar"));
    await expect(train(true)).rejects.toThrow(
      `1 of the run's ${COUNTS.length} shards is missing: cc12m/${shard}; from step 7 on it would see other samples`,
    );
    expect(bits(folder)).toEqual(stored);
    renameSync(join(copy.path, "away.tar"), join(root[0]!, shard));
    expect(await train(true)).toMatchObject({ finished: true, step: 20 });
    expect(bits(folder)).toEqual(bits(whole));
    copy.remove();
  });

  it("exports a release where the empty prompt is known", async () => {
    const empty = join(output, "empty.npy");
    scope(() => writeNpy(empty, zeros([1, 1, 16])));
    const withEmpty = recipeJson({ uncond_embedding: empty, num_bins: 8 }, { max_steps: 1, batch_size: 2 });
    const result = await runTraining({ recipe: parseRecipe(withEmpty), output: join(output, "exported") });
    expect(result.exported).toBe(join(output, "exported", "export"));
    const config = JSON.parse(readFileSync(join(result.exported!, "config.json"), "utf8"));
    expect(JSON.stringify(config)).toContain('"img_resolution":64');
    expect(existsSync(join(result.exported!, "text_encoder"))).toBe(false);
  });
});

describe("the text encoder of the paper's recipes, a repository", { timeout: 60_000 }, () => {
  const cache = join(output, "hub");
  const data = { text_encoder: "google/flan-t5-xl", autoencoder: "stabilityai/sdxl-vae", num_bins: 8 };
  beforeAll(() => {
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    vi.stubEnv("HF_HUB_CACHE", cache);
  });
  afterAll(() => vi.unstubAllEnvs());

  const train = async (name: string, loss: object = {}) => {
    const messages: string[] = [];
    const json = { ...recipeJson(data, { max_steps: 1, batch_size: 2 }), loss };
    const result = await runTraining({
      recipe: parseRecipe(json),
      output: join(output, name),
      onMessage: (message) => messages.push(message),
    });
    return { ...result, messages: messages.join("\n") };
  };

  it("is done without where it cannot be had, which is told; not where steps need it", async () => {
    const { finished, exported, messages } = await train("without");
    expect({ finished, exported }).toEqual({ finished: true, exported: null });
    expect(messages).toMatch(/google\/flan-t5-xl: HF_HUB_OFFLINE is set.*there will be no release at the end/);
    using model = openRunModel(join(output, "without"));
    expect(() => model.readUncondEmbedding()).toThrow(/it could not have its text encoder, google\/flan-t5-xl; /);
    await expect(train("needed", { cond_drop_rate: 0.5 })).rejects.toThrow(/google\/flan-t5-xl: HF_HUB_OFFLINE is set/);
  });

  it("of the cache gives the release its empty prompt; the release names the repositories and copies nothing", async () => {
    const parts = await makeTinyParts(mkdtempSync(join(output, "parts-")));
    const repository = join(cache, "models--google--flan-t5-xl");
    mkdirSync(join(repository, "refs"), { recursive: true });
    writeFileSync(join(repository, "refs", "main"), "0".repeat(40));
    cpSync(parts.textEncoder, join(repository, "snapshots", "0".repeat(40)), { recursive: true });
    const { exported, messages } = await train("within");
    expect(exported, messages).toBe(join(output, "within", "export"));
    expect(readdirSync(exported!).sort()).toEqual(["config.json", "model.safetensors", "uncond_embedding.npy"]);
    expect(JSON.parse(readFileSync(join(exported!, "config.json"), "utf8"))).toMatchObject({
      text_encoder_repo: "google/flan-t5-xl",
      vae_repo: "stabilityai/sdxl-vae",
    });
  });
});

describe("a recipe of shards", () => {
  const refuses = (data: object, loss: object, message: RegExp) =>
    expect(() => parseRecipe({ ...recipeJson(data), loss })).toThrow(message);

  it("is checked as a whole", () => {
    refuses({ num_bin: 3 }, {}, /unknown key data\.num_bin; did you mean num_bins/);
    refuses(
      { coherence_scores: ["clip_score"] },
      {},
      /data\.coherence_scores: lacks aesthetic_score, .* of network\.coherence_keys/,
    );
    refuses({}, { cond_drop_rate: 0.1 }, /data\.uncond_embedding: dropping texts .* needs the empty prompt/);
    refuses({ root: ["a", "b"], weights: [1] }, {}, /data\.weights: expected a number for each of the 2 of data\.root/);
    refuses({ vae_embedding_name_std: null }, {}, /data\.vae_sample: expected false/);
    refuses(
      { bin_strategy: "refined_quantile", num_bins: 4, refine_last_n_bins: 4 },
      {},
      /refine_last_n_bins: expected fewer than the 4 bins/,
    );
  });
});
