import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { manualSeed, noGrad, type Tensor, tensor } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { AdamW } from "@miro-t2i/torch/optim";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { T5Encoder } from "./t5.js";
import { relativeBuckets } from "./t5-stack.js";
import { Tokenizer } from "./tokenizer.js";

const TINY = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny/", import.meta.url));
const FOLDER = join(TINY, "text_encoder");
const SMALL = { vocabSize: 50, dModel: 24, dKv: 8, dFf: 48, numLayers: 2, numHeads: 3 };

/** Largest difference relative to the largest value. */
const relativeError = (a: Tensor, b: Tensor) =>
  a.detach().float().sub(b.detach().float()).abs().max().item() / b.detach().float().abs().max().item();

describe("T5Encoder", () => {
  let reference: Map<string, Tensor>;
  let folder: string;
  beforeAll(async () => {
    reference = readSafetensors(join(TINY, "reference.safetensors"));
    folder = await mkdtemp(join(tmpdir(), "t5-"));
  });
  afterAll(() => rm(folder, { recursive: true }));
  const inputs = () => [reference.get("text.ids")!, reference.get("text.mask")!] as const;

  it("computes the reference's states to 1e-5, tokenizer included", async () => {
    const tokenizer = await Tokenizer.fromFile(FOLDER);
    const { prompts } = JSON.parse(await readFile(join(TINY, "reference.json"), "utf8")) as { prompts: string[] };
    const [ids, mask] = inputs();
    const batch = tokenizer.encodeBatch(prompts, { maxLength: ids.size(1) });
    expect(batch.ids.toList()).toEqual(ids.toList());
    expect(batch.mask.toList()).toEqual(mask.toList());

    const encoder = await T5Encoder.fromPretrained(FOLDER);
    expect(relativeError(encoder.forward(ids, mask), reference.get("text.embeddings")!)).toBeLessThan(1e-5);
    noGrad(() => {
      for (
        let i = 0;
        i < 2;
        i++ // computed, then from the cache
      )
        expect(relativeError(encoder.forward(ids, mask), reference.get("text.embeddings")!)).toBeLessThan(1e-5);
    });
  });

  it("comes close in bfloat16, with float32 states", async () => {
    const encoder = await T5Encoder.fromPretrained(FOLDER, { dtype: "bfloat16" });
    for (const parameter of encoder.parameters()) expect(parameter.dtype).toBe("bfloat16");
    const states = noGrad(() => encoder.forward(...inputs()));
    expect(states.dtype).toBe("float32");
    const wanted = reference.get("text.embeddings")!;
    // what transformers in bfloat16 is off
    expect(states.sub(wanted).norm().item() / wanted.norm().item()).toBeLessThan(0.0194);
  });

  it("gives tokens the same states whatever the padding and the other texts", async () => {
    const encoder = await T5Encoder.fromPretrained(FOLDER);
    const [ids, mask] = inputs();
    const whole = noGrad(() => encoder.forward(ids, mask));
    const lengths = (mask.toList() as boolean[][]).map((row) => row.filter(Boolean).length);
    for (const [b, length] of lengths.entries()) {
      const cut = (t: Tensor) => t.narrow(0, b, 1).narrow(1, 0, length);
      const alone = noGrad(() => encoder.forward(cut(ids), cut(mask)));
      expect(relativeError(alone, cut(whole))).toBeLessThan(1e-5);
    }
  });

  it("gives finite states to a text without tokens", async () => {
    const encoder = await T5Encoder.fromPretrained(FOLDER);
    const states = encoder.forward(tensor([[0, 0]], { dtype: "int64" }), tensor([[false, false]], { dtype: "bool" }));
    expect(states.isfinite().all().item()).toBeTruthy();
  });

  it("follows the weights: the kept bias is dropped when its table changes", async () => {
    const encoder = await T5Encoder.fromPretrained(FOLDER);
    encoder.requiresGrad_(false);
    const states = () => noGrad(() => encoder.forward(...inputs()));
    const before = states();
    const table = encoder.stateDict().get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")!;
    noGrad(() => table.mul_(2));
    const changed = states();
    expect(relativeError(changed, before)).toBeGreaterThan(1e-3);
    encoder.loadStateDict(readSafetensors(join(FOLDER, "model.safetensors")), { assign: true });
    expect(states().toList()).toEqual(before.toList());
  });

  it("gives the states of its present weights between steps of training", () => {
    manualSeed(0);
    const encoder = new T5Encoder(SMALL).eval();
    const ids = tensor([[3, 4, 5, 1]], { dtype: "int64" });
    const mask = ids.ne(0);
    const states = (of: T5Encoder) => noGrad(() => of.forward(ids, mask)).toList();
    states(encoder);
    const optimizer = new AdamW(encoder.parameters(), { lr: 0.1 });
    encoder.forward(ids, mask).square().mean().backward();
    optimizer.step();
    const copy = new T5Encoder(SMALL).eval();
    copy.loadStateDict(Object.fromEntries(encoder.stateDict()));
    expect(states(encoder)).toEqual(states(copy));
  });

  it("gives every weight a gradient and learns", () => {
    manualSeed(0);
    const encoder = new T5Encoder(SMALL);
    const ids = tensor(
      [
        [3, 4, 5, 1],
        [6, 7, 1, 0],
      ],
      { dtype: "int64" },
    );
    const mask = tensor(
      [
        [true, true, true, true],
        [true, true, true, false],
      ],
      { dtype: "bool" },
    );
    const loss = () => encoder.forward(ids, mask).select(2, 0).sub(1).square().mean();
    const first = loss();
    first.backward();
    for (const [name, parameter] of encoder.namedParameters()) {
      expect(parameter.grad, name).not.toBeNull();
      expect(parameter.grad!.abs().sum().item(), name).toBeGreaterThan(0);
    }
    for (let step = 0; step < 20; step++) {
      encoder.zeroGrad();
      loss().backward();
      noGrad(() => {
        for (const parameter of encoder.parameters()) parameter.sub_(parameter.grad!.mul(0.05));
      });
    }
    expect(loss().item()).toBeLessThan(first.item() / 2);
  });

  it.each([1, 0.5])("draws initial weights of transformers' spread, for a factor of %s", (initializerFactor) => {
    manualSeed(1);
    const sizes = { vocabSize: 2000, dModel: 256, dKv: 32, dFf: 512, numLayers: 1, numHeads: 8 };
    const encoder = new T5Encoder({ ...sizes, initializerFactor });
    const wanted: Record<string, number> = {
      "shared.weight": 1,
      "encoder.block.0.layer.0.SelfAttention.q.weight": (256 * 32) ** -0.5,
      "encoder.block.0.layer.0.SelfAttention.k.weight": 256 ** -0.5,
      "encoder.block.0.layer.0.SelfAttention.v.weight": 256 ** -0.5,
      "encoder.block.0.layer.0.SelfAttention.o.weight": 256 ** -0.5,
      "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": 256 ** -0.5,
      "encoder.block.0.layer.1.DenseReluDense.wi_1.weight": 256 ** -0.5,
      "encoder.block.0.layer.1.DenseReluDense.wo.weight": 512 ** -0.5,
    };
    const state = encoder.stateDict();
    for (const [name, ofFactorOne] of Object.entries(wanted)) {
      const std = ofFactorOne * initializerFactor;
      const weight = state.get(name)!.detach();
      expect(weight.std().item() / std, name).toBeCloseTo(1, 1);
      expect(Math.abs(weight.mean().item()) / std, name).toBeLessThan(0.02);
    }
  });

  it("drops out in training only", () => {
    const encoder = new T5Encoder({ ...SMALL, dropoutRate: 0.5 });
    const ids = tensor([[3, 4, 1]], { dtype: "int64" });
    const mask = tensor([[true, true, true]], { dtype: "bool" });
    expect(encoder.forward(ids, mask).toList()).not.toEqual(encoder.forward(ids, mask).toList());
    encoder.eval();
    expect(encoder.forward(ids, mask).toList()).toEqual(encoder.forward(ids, mask).toList());
  });

  it("writes what it and transformers read", async () => {
    const encoder = await T5Encoder.fromPretrained(FOLDER);
    await encoder.save(join(folder, "saved"));
    const again = await T5Encoder.fromPretrained(join(folder, "saved"));
    expect(again.config).toEqual(encoder.config);
    expect(noGrad(() => again.forward(...inputs())).toList()).toEqual(
      noGrad(() => encoder.forward(...inputs())).toList(),
    );
    const original = readSafetensors(join(FOLDER, "model.safetensors"));
    const written = readSafetensors(join(folder, "saved", "model.safetensors"));
    for (const [name, t] of written) expect(original.get(name)?.toList(), name).toEqual(t.toList());
  });

  it("reads shards, the embedding under its other name, and passes over a decoder", async () => {
    const target = join(folder, "sharded");
    await mkdir(target);
    await copyFile(join(FOLDER, "config.json"), join(target, "config.json"));
    const entries = [...readSafetensors(join(FOLDER, "model.safetensors"))].map(
      ([name, t]) => [name === "shared.weight" ? "encoder.embed_tokens.weight" : name, t] as const,
    );
    const decoder = tensor([1, 2, 3]);
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    const halves = [entries.slice(0, 9), [...entries.slice(9), ["decoder.final_layer_norm.weight", decoder] as const]];
    halves.forEach((half, i) => {
      writeSafetensors(join(target, names[i]!), new Map(half));
    });
    const map = halves.flatMap((half, i) => half.map(([name]) => [name, names[i]]));
    // a shard that only the decoder needs is not opened
    map.push(["lm_head.weight", "model-00003-of-00002.safetensors"]);
    await writeFile(
      join(target, "model.safetensors.index.json"),
      JSON.stringify({ weight_map: Object.fromEntries(map) }),
    );
    const encoder = await T5Encoder.fromPretrained(target);
    const states = noGrad(() => encoder.forward(...inputs()));
    expect(relativeError(states, reference.get("text.embeddings")!)).toBeLessThan(1e-5);
  });

  describe("refuses", () => {
    const config = async (change: Record<string, unknown>) => {
      const target = await mkdtemp(join(folder, "config-"));
      const json = { ...JSON.parse(await readFile(join(FOLDER, "config.json"), "utf8")), ...change };
      await writeFile(join(target, "config.json"), JSON.stringify(json));
      await copyFile(join(FOLDER, "model.safetensors"), join(target, "model.safetensors"));
      return T5Encoder.fromPretrained(target);
    };
    it.each([
      [{ feed_forward_proj: "relu" }, /config\.json: feed_forward_proj: expected "gated-gelu".*received "relu"/],
      [{ model_type: "umt5" }, /config\.json: model_type: expected "t5".*received "umt5"/],
      [{ dense_act_fn: "silu" }, /dense_act_fn: expected "gelu_new"/],
      [{ d_model: undefined, num_heads: 0 }, /config\.json: d_model: .*; num_heads: /],
      [{ d_model: 65_536, vocab_size: 4_000_000 }, /config\.json: describes \d+ weights, .* holds \d+ of an encoder/],
      [
        { relative_attention_max_distance: 8 },
        /config\.json: relative_attention_max_distance: expected more than a quarter of the 32 buckets, received 8/,
      ],
      [{ num_layers: 3 }, /missing.*encoder\.block\.2\.layer\.0/s],
      [{ num_layers: 1 }, /unexpected.*encoder\.block\.1\.layer\.0/s],
      [{ d_ff: 95 }, /wrong shape.*wi_0\.weight: expected \[95,48\], got \[96,48\]/s],
    ])("a configuration with %j", async (change, message) => {
      await expect(config(change)).rejects.toThrow(message);
    });

    it("missing files, naming them", async () => {
      await expect(T5Encoder.fromPretrained(join(folder, "none"))).rejects.toThrow(
        /none\/config\.json: .*no such file/,
      );
      const target = join(folder, "no-weights");
      await mkdir(target);
      await copyFile(join(FOLDER, "config.json"), join(target, "config.json"));
      await expect(T5Encoder.fromPretrained(target)).rejects.toThrow(/neither model\.safetensors nor/);
    });

    it("an index that points outside its folder", async () => {
      const target = join(folder, "outside");
      await mkdir(target);
      await copyFile(join(FOLDER, "config.json"), join(target, "config.json"));
      const index = join(target, "model.safetensors.index.json");
      for (const file of ["../x.safetensors", "/etc/passwd", 3, "a/b.safetensors"]) {
        await writeFile(index, JSON.stringify({ weight_map: { "shared.weight": file } }));
        await expect(T5Encoder.fromPretrained(target)).rejects.toThrow(
          /weight_map\["shared\.weight"\]: expected the name/,
        );
      }
      await writeFile(index, "[]");
      await expect(T5Encoder.fromPretrained(target)).rejects.toThrow(/weight_map: expected an object/);
    });

    it("inputs of wrong shapes", () => {
      const encoder = new T5Encoder(SMALL);
      const ids = tensor([[3, 4, 1]], { dtype: "int64" });
      expect(() => encoder.forward(ids, tensor([[true, true]], { dtype: "bool" }))).toThrow(
        /mask: expected bool of shape \(1,3\)/,
      );
      expect(() => encoder.forward(ids.select(0, 0), ids)).toThrow(/ids: expected shape/);
    });
  });
});

describe("relativeBuckets", () => {
  it("begins T5's wide buckets at distances 8, 12, 16, 23, 32, 46, 64, 91", () => {
    const length = 300;
    const buckets = relativeBuckets(length, 32, 128);
    const starts = [...Array(8).keys(), 8, 12, 16, 23, 32, 46, 64, 91];
    for (let distance = 0; distance < length; distance++) {
      const wanted = starts.findLastIndex((start) => distance >= start);
      expect(Number(buckets[distance])).toBe(distance === 0 ? 0 : 16 + wanted); // first query, later keys
      expect(Number(buckets[distance * length])).toBe(wanted); // first key, later queries
    }
  });
});
