import { getEventListeners } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, type Tensor, tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../register.js";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { divideRows } from "../../training/batches/batch-slices.js";
import { runTraining } from "../../training/loop/run.js";
import { parseRecipe, type Recipe } from "../../training/recipes/recipe.js";
import { prepareTestbed } from "../../training/samples/testbed.js";
import { EmojiScenes } from "../scenes/scenes.js";
import { EmojiBatches } from "./emoji-batches.js";
import type { EmojiData } from "./emoji-data.js";
import { makeTinyParts, TINY_SCENES, type TinyParts, tinyEmojiJson } from "./testing/tiny-emoji.js";

const root = mkdtempSync(join(tmpdir(), "miro-emoji-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const scenes = TINY_SCENES;
let parts: TinyParts;
let autoencoder: string;
let textEncoder: string;

function recipe(data: object = {}, rest: object = {}): Recipe {
  return parseRecipe(tinyEmojiJson(parts, join(root, "cache"), { data, rest }));
}

beforeAll(async () => {
  parts = await makeTinyParts(root);
  ({ autoencoder, textEncoder } = parts);
});

/** Opens the batches, takes one, closes them. */
async function take<T>(data: object, step: number, look: (batch: ReturnType<EmojiBatches["batch"]>) => T): Promise<T> {
  const source = await EmojiBatches.open({
    data: data as EmojiData,
    seed: 1,
    batchSize: 8,
    device: "cpu",
    sigmaData: 0.5,
  });
  try {
    await source.ready(step);
    return scope(() => look(source.batch(step)));
  } finally {
    await source.close();
  }
}

const list = (t: Tensor) => t.flatten().toList() as number[];

describe("EmojiBatches", { timeout: 120_000 }, () => {
  it("end the threads that draw when opening them is stopped, and let go of the signal", async () => {
    const data = recipe({ cache: join(root, "stopped"), samples: 4000, shard_size: 40, workers: 2 }).data;
    const stop = new AbortController();
    const threads = () => (process.report.getReport() as unknown as { workers: unknown[] }).workers.length;
    const before = threads();
    const opening = EmojiBatches.open({
      data: data as unknown as EmojiData,
      seed: 1,
      batchSize: 8,
      device: "cpu",
      sigmaData: 0.5,
      signal: stop.signal,
      onProgress: () => stop.abort(),
    });
    expect(await opening.catch((error: unknown) => error)).toBe(stop.signal.reason);
    expect(threads()).toBe(before);
    expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  });

  it("tell how many of the scenes that training waits for are drawn", async () => {
    const data = recipe({ cache: join(root, "told"), samples: 60, shard_size: 40 }).data as unknown as EmojiData;
    const told: unknown[] = [];
    const onProgress = (...args: unknown[]) => told.push(args);
    const source = await EmojiBatches.open({ data, seed: 1, batchSize: 8, device: "cpu", sigmaData: 0.5, onProgress });
    await source.close();
    expect(told).toEqual([16, 32, 40].map((done) => ["drawing the first scenes", done, 40, "scenes"]));
  });

  it("are divided among processes, of which one makes the scenes", async () => {
    const data = recipe({ cache: join(root, "shared-cache") }).data as unknown as EmojiData;
    const common = { data, seed: 1, batchSize: 8, device: "cpu", sigmaData: 0.5 };
    const [first, second] = divideRows(8, 2);
    const [maker, other] = await Promise.all([
      EmojiBatches.open({ ...common, rows: first }),
      EmojiBatches.open({ ...common, rows: second, makesScenes: false }),
    ]);
    const parts: number[][] = [];
    for (const source of [maker, other]) {
      await source.ready(1);
      parts.push(scope(() => list(source.batch(1).x0)));
      await source.close();
    }
    await take(data, 1, (batch) => expect(parts.flat()).toEqual(list(batch.x0)));
  });

  it("gives the scenes in order, encoded, normalised, with their rewards and the states of their captions", async () => {
    const all = await EmojiScenes.load(scenes);
    const expected = all.batch(8, 8);
    const vae = loadAutoencoder(autoencoder);
    await take(recipe().data, 1, (batch) => {
      expect(batch.x0.shape).toEqual([8, 4, 4, 4]);
      // One scale for all channels and a bias for each: x0 is an affine function of the latents.
      const z = vae.encode(tensor(expected.pixels, { shape: [8, 3, 32, 32] })).mean;
      const centred = (t: Tensor) => t.sub(t.mean([0, 2, 3], true));
      const [a, b] = [centred(batch.x0), centred(z)];
      const scale = a.mul(b).sum().div(b.square().sum());
      expect(a.sub(b.mul(scale)).abs().max().item()).toBeLessThan(5e-3); // stored as float16
      for (const [key, values] of Object.entries(expected.rewards))
        expect(list(batch.rewards[key]!)).toEqual([...values]);
      expect(batch.textEmbeddings.shape).toEqual([8, batch.textMask.size(1), 16]);
      // no column of padding only
      expect(Math.max(...list(batch.textMask.float().sum(1)))).toBe(batch.textMask.size(1));
    });
    vae.dispose();
  });

  it("shuffles later passes and gives a step the same batch whenever it is asked", async () => {
    const x0 = (step: number) => take(recipe().data, step, (batch) => list(batch.x0));
    expect(await x0(4)).toEqual(await x0(4));
    const passes = await Promise.all([0, 5].map(x0)); // 20 scenes, 8 a batch: step 5 begins the third pass
    expect(passes[0]).not.toEqual(passes[1]);
  });

  it("keeps the latents on the disk, makes what is missing, and knows other data from these", async () => {
    const [folder] = readdirSync(join(root, "cache"));
    const shard = (i: number) => join(root, "cache", folder!, `shard-0000${i}.safetensors`);
    expect([0, 1, 2].map((i) => existsSync(shard(i)))).toEqual([true, true, true]);
    const made = statSync(shard(0)).mtimeMs;
    const latents = () => scope(() => list(readSafetensors(shard(1)).get("latents")!));
    const before = latents();
    rmSync(shard(1));
    await take(recipe().data, 2, () => {});
    expect(latents()).toEqual(before);
    expect(statSync(shard(0)).mtimeMs).toBe(made);
    await take(recipe({ scenes: { ...scenes, tint: 0.5 } }).data, 0, () => {});
    expect(readdirSync(join(root, "cache")).length).toBe(2);
  });

  it("names a folder without an autoencoder", async () => {
    const output = join(root, "nothing");
    await expect(runTraining({ recipe: recipe({ autoencoder: join(root, "no") }), output })).rejects.toThrow(
      /data\.autoencoder: .*no is not there/,
    );
  });

  it("refuses rewards that emoji scenes do not have", () => {
    const network = { ...recipe().network, coherence_keys: ["aesthetic_score"] };
    expect(() => recipe({}, { network })).toThrow(/network\.coherence_keys: emoji scenes have no aesthetic_score/);
  });
});

describe("training on emoji", { timeout: 120_000 }, () => {
  it("draws sheets, and exports a model that the pipeline loads and draws with", async () => {
    const output = join(root, "run");
    const samples = {
      every_n_steps: 2,
      prompts: ["a red apple", "a penguin", "a rocket"],
      steps: 2,
      columns: 3,
      shift: 0.5,
    };
    const result = await runTraining({ recipe: recipe({}, { samples }), output });
    expect(result).toMatchObject({ finished: true, exported: join(output, "export") });
    const sheet = await sharp(join(output, "samples", "step-00000002.png"))
      .raw()
      .toBuffer({ resolveWithObject: true });
    // Three cells, and a title above them.
    expect(sheet.info.width).toBeGreaterThan(3 * 128);
    expect(sheet.info.height).toBeGreaterThan(128 + 2 * 11);
    const foot = sheet.data.subarray(sheet.data.length - sheet.info.width * 3 * 24);
    expect(Math.min(...foot), "captions below the pictures").toBeLessThan(128);
    const log = readFileSync(join(output, "log.jsonl"), "utf8");
    expect(log).not.toContain("warning");

    const pipe = await MiroPipeline.fromPretrained(result.exported!, { dtype: "float32" });
    const { images } = await pipe.generate("a red apple", { steps: 2, seed: 1 });
    expect([images[0]!.width, images[0]!.height]).toEqual([32, 32]);
    expect([...pipe.coherenceKeys]).toEqual(["clip_score", "sharpness", "colorfulness"]);
    const [exported, averaged] = scope(() => {
      const weights = readSafetensors(join(result.exported!, "model.safetensors")).get("network.latents")!;
      const ema = readSafetensors(join(result.checkpoint!, "ema.safetensors")).get("latents")!;
      return [list(weights.float()), list(ema.half().float())];
    });
    expect(exported).toEqual(averaged);
  });

  it("draws the prompt testbed as grids at upstream's steps, to its folder and for TensorBoard", async () => {
    const testbed = join(root, "testbed");
    mkdirSync(testbed);
    writeFileSync(
      join(testbed, "metadata.csv"),
      "file_name,text\n00-apple,a red apple\n01-fox.npy,a fox\n02-bell,a bell\n",
    );
    await prepareTestbed({ folder: testbed, textEncoder, embeddingsName: "tiny", count: 3 });
    const output = join(root, "testbed-run");
    const samples = {
      every_n_steps: 2,
      offset: 1,
      testbed,
      testbed_count: 3,
      embeddings_name: "tiny",
      steps: 2,
      columns: 2,
    };
    await runTraining({ recipe: recipe({}, { samples }), output });
    expect(readdirSync(join(output, "samples"))).toEqual(["step-00000001.png", "step-00000003.png"]);
    const [file] = readdirSync(join(output, "tensorboard"));
    const events = readFileSync(join(output, "tensorboard", file!)).toString("latin1");
    for (const tag of ["val/Images/00-apple", "val/Images/01-fox", "val/Images/02-bell", "samples/sheet"])
      expect(events.split(tag).length - 1, tag).toBe(2);
    expect(readFileSync(join(output, "log.jsonl"), "utf8")).not.toContain("warning");
    await expect(
      runTraining({ recipe: recipe({}, { samples: { ...samples, embeddings_name: "other" } }), output: `${output}-2` }),
    ).rejects.toThrow(/other_embeddings\/00-apple\.npy: is not there; run miro testbed/);
  });
});
