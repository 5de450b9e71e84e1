// The committed recording of the detector: a small network with OpenMMLab's file; the other layouts are made of it.
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { empty, noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Detection } from "../../packages/miro/src/evaluation/geneval/detection.js";
import {
  type LoadDetectorOptions,
  loadDetector,
} from "../../packages/miro/src/evaluation/geneval/detector/load-detector.js";
import { fromUnfold } from "../../packages/miro/src/evaluation/geneval/detector/weights.js";
import { openTensors } from "../../packages/miro/src/files/tensor-files.js";
import { decodeImage } from "../../packages/miro/src/pictures/decode.js";
import type { RgbImage } from "../../packages/miro/src/pictures/rgb.js";
import { scorerFolder } from "../reference/fixture.js";

const FILE = "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth";
const home = join(scorerFolder(), "detector");
const scratch = mkdtempSync(join(tmpdir(), "miro-detector-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const SCALE = [96, 64] as const;
const load = (source: string, options: LoadDetectorOptions = {}) => loadDetector(source, { scale: SCALE, ...options });
const picture = (name: string) => decodeImage(readFileSync(join(scorerFolder(), "pictures", `${name}.png`)), {});
const flat = (width: number, height: number): RgbImage => ({
  width,
  height,
  data: new Uint8Array(width * height * 3).fill(90),
});

/** Tensors of a weight file, in its dtypes. */
function tensorsOf(path: string): Map<string, Tensor> {
  using file = openTensors(join(path, ".."), [path.slice(path.lastIndexOf("/") + 1)]);
  return new Map(
    file.keys().map((key) => {
      const { shape, dtype } = file.info(key);
      const values = empty([...shape], { dtype: dtype! });
      file.copyTo(key, values);
      return [key, values];
    }),
  );
}

/** A folder with weights in safetensors and the recorded shape. */
function folderOf(name: string, tensors: ReadonlyMap<string, Tensor>): string {
  const folder = join(scratch, name);
  cpSync(join(home, "config.json"), join(folder, "config.json"), { recursive: true });
  writeSafetensors(join(folder, "model.safetensors"), Object.fromEntries(tensors));
  return folder;
}

/** From mmdet's names to Hugging Face's, written from the published names alone. */
function toHuggingFace(mmdet: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const swin = "model.pixel_level_module.encoder";
  const pixels = "model.pixel_level_module.decoder";
  const queries = "model.transformer_module";
  const rules: [RegExp, string][] = [
    [/^backbone\.patch_embed\.projection/, `${swin}.embeddings.patch_embeddings.projection`],
    [/^backbone\.patch_embed\.norm/, `${swin}.embeddings.norm`],
    [/^backbone\.norm(\d)/, `${swin}.hidden_states_norms.stage<$1>`],
    [/^backbone\.stages/, `${swin}.encoder.layers`],
    [/(blocks\.\d+)\.norm1/, "$1.layernorm_before"],
    [/(blocks\.\d+)\.norm2/, "$1.layernorm_after"],
    [/(blocks\.\d+)\.attn\.w_msa\.proj/, "$1.attention.output.dense"],
    [/(blocks\.\d+)\.attn\.w_msa/, "$1.attention.self"],
    [/(blocks\.\d+)\.ffn\.layers\.0\.0/, "$1.intermediate.dense"],
    [/(blocks\.\d+)\.ffn\.layers\.1/, "$1.output.dense"],
    [/^panoptic_head\.pixel_decoder\.level_encoding\.weight/, `${pixels}.level_embed`],
    [/^panoptic_head\.pixel_decoder\.mask_feature/, `${pixels}.mask_projection`],
    [/^panoptic_head\.pixel_decoder\.input_convs\.(\d)\.conv/, `${pixels}.input_projections.$1.0`],
    [/^panoptic_head\.pixel_decoder\.input_convs\.(\d)\.gn/, `${pixels}.input_projections.$1.1`],
    [/^panoptic_head\.pixel_decoder\.lateral_convs\.0\.conv/, `${pixels}.adapter_1.0`],
    [/^panoptic_head\.pixel_decoder\.lateral_convs\.0\.gn/, `${pixels}.adapter_1.1`],
    [/^panoptic_head\.pixel_decoder\.output_convs\.0\.conv/, `${pixels}.layer_1.0`],
    [/^panoptic_head\.pixel_decoder\.output_convs\.0\.gn/, `${pixels}.layer_1.1`],
    [/^panoptic_head\.pixel_decoder\.encoder/, `${pixels}.encoder`],
    [/^(model\.pixel.*encoder\.layers\.\d+)\.norms\.0/, "$1.self_attn_layer_norm"],
    [/^(model\.pixel.*encoder\.layers\.\d+)\.norms\.1/, "$1.final_layer_norm"],
    [/^panoptic_head\.transformer_decoder\.post_norm/, `${queries}.decoder.layernorm`],
    [/^panoptic_head\.transformer_decoder/, `${queries}.decoder`],
    [/(_attn)\.attn\./, "$1."],
    [/^(model\.transformer.*)\.norms\.0/, "$1.cross_attn_layer_norm"],
    [/^(model\.transformer.*)\.norms\.1/, "$1.self_attn_layer_norm"],
    [/^(model\.transformer.*)\.norms\.2/, "$1.final_layer_norm"],
    [/^(model\..*)\.ffn\.layers\.0\.0/, "$1.fc1"],
    [/^(model\..*)\.ffn\.layers\.1/, "$1.fc2"],
    [/^panoptic_head\.query_embed/, `${queries}.queries_embedder`],
    [/^panoptic_head\.query_feat/, `${queries}.queries_features`],
    [/^panoptic_head\.level_embed/, `${queries}.level_embed`],
    [/^panoptic_head\.cls_embed/, "class_predictor"],
    [/^panoptic_head\.mask_embed\.(\d)/, `${queries}.decoder.mask_predictor.mask_embedder.<$1>`],
  ];
  const renamed = (key: string) =>
    rules
      .reduce((name, [pattern, to]) => name.replace(pattern, to), key)
      .replace(/stage<(\d)>/, (_, s) => `stage${Number(s) + 1}`)
      .replace(/mask_embedder\.<(\d)>/, (_, i) => `mask_embedder.${Number(i) / 2}.0`);
  const out = new Map<string, Tensor>();
  for (const [key, values] of mmdet) {
    const name = renamed(key);
    const thirds = () => values.chunk(3, 0).map((part) => part.contiguous());
    if (/attention\.self\.qkv\./.test(name))
      for (const [i, part] of thirds().entries()) out.set(name.replace("qkv", ["query", "key", "value"][i]!), part);
    else if (/^model\.transformer.*self_attn\.in_proj_/.test(name))
      for (const [i, part] of thirds().entries()) out.set(name.replace("in_proj_", `${"qkv"[i]}_proj.`), part);
    else out.set(name, name.includes(".downsample.") ? fromUnfold(values) : values);
  }
  return out;
}

const digest = (values: Tensor) => {
  const { buffer, byteOffset, byteLength } = values.data();
  return createHash("sha256")
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest("hex")
    .slice(0, 16);
};

describe("a detector's weights", () => {
  let images: RgbImage[];
  let expected: Detection[][];
  let mmdet: Map<string, Tensor>;
  beforeAll(async () => {
    images = [await picture("noise"), await picture("strip")];
    using detector = await load(home);
    expected = await detector.detect(images);
    mmdet = tensorsOf(join(home, FILE));
  });
  afterAll(() => {
    for (const values of mmdet.values()) values.dispose();
  });

  it("of OpenMMLab's two layouts and of the port give the same detections, each under its training run", async () => {
    const old = JSON.parse(readFileSync(join(home, "mmdet2_keys.json"), "utf8")) as Record<string, string>;
    const version2 = new Map([...mmdet].map(([key, values]) => [old[key] ?? key, values]));
    const port = toHuggingFace(mmdet);
    const folders = { "mmdet 2.x": folderOf("mmdet2", version2), "Hugging Face": folderOf("port", port) };
    for (const [run, folder] of Object.entries(folders)) {
      using detector = await load(folder);
      expect(detector.trainingRun).toContain(run);
      expect(await detector.detect(images)).toEqual(expected);
    }
    using detector = await load(join(home, FILE));
    expect(detector.trainingRun).toMatch(/^OpenMMLab \(mmdet 3\.x file\)/);
    expect((await load(folders["Hugging Face"])).trainingRun).toMatch(/another training run/);
  });

  it("make the recorded file of the port, tensor for tensor", () => {
    scope(() => {
      const recorded = JSON.parse(readFileSync(join(home, "hugging_face.json"), "utf8")) as Record<string, string>;
      delete recorded["criterion.empty_weight"];
      const made = [...toHuggingFace(mmdet)].map(([key, values]) => [key, digest(values)] as const);
      expect(Object.fromEntries(made)).toEqual(recorded);
    });
  });

  it("may come with buffers that hold none, and with nothing else", async () => {
    const loss = new Map(mmdet).set("panoptic_head.loss_cls.class_weight", mmdet.get("panoptic_head.cls_embed.bias")!);
    using detector = await load(folderOf("loss", loss));
    expect(detector.name).toContain("Mask2Former");
    const foreign = new Map(mmdet).set("neck.weight", mmdet.get("panoptic_head.cls_embed.bias")!);
    await expect(load(folderOf("foreign", foreign))).rejects.toThrow(/not part of it \(1\): neck\.weight/);
  });

  it("that are missing, misshapen, of another window or no numbers are refused by file and tensor", async () => {
    const key = "backbone.stages.2.blocks.1.attn.w_msa.qkv.weight";
    const without = new Map(mmdet);
    without.delete(key);
    await expect(load(folderOf("missing", without))).rejects.toThrow(`missing/model.safetensors: not the weights`);
    await expect(load(folderOf("missing", without))).rejects.toThrow(`missing (1): ${key}`);
    const other = mmdet.get("panoptic_head.cls_embed.bias")!;
    await expect(load(folderOf("shape", new Map(mmdet).set(key, other)))).rejects.toThrow(
      `${key}: expected [72,24], found [81]`,
    );
    const table = "backbone.stages.0.blocks.0.attn.w_msa.relative_position_index";
    const shifted = mmdet.get(table)!.add(1);
    await expect(load(folderOf("table", new Map(mmdet).set(table, shifted)))).rejects.toThrow(
      `${table}: is not the table of windows of 5`,
    );
    const infinite = other.clone();
    noGrad(() => infinite.select(0, 3).fill_(Number.POSITIVE_INFINITY));
    await expect(
      load(folderOf("infinite", new Map(mmdet).set("panoptic_head.cls_embed.bias", infinite))),
    ).rejects.toThrow(/model\.safetensors.*panoptic_head\.cls_embed\.bias/);
  });

  it("that are cut off, of another model or of another shape are refused by name", async () => {
    const cut = join(scratch, "cut");
    cpSync(join(home, "config.json"), join(cut, "config.json"), { recursive: true });
    for (const bytes of [0, 100, 400_000]) {
      copyFileSync(join(home, FILE), join(cut, FILE));
      truncateSync(join(cut, FILE), bytes);
      await expect(load(cut)).rejects.toThrow(join(cut, FILE));
    }
    await expect(load(join(scorerFolder(), "clip_openai", "model.safetensors"))).rejects.toThrow(/config\.json/);
    const clip = join(scratch, "clip.safetensors");
    copyFileSync(join(scorerFolder(), "clip_openai", "model.safetensors"), clip);
    await expect(load(clip)).rejects.toThrow(/clip\.safetensors: holds no Mask2Former with Swin/);
    copyFileSync(join(home, FILE), join(scratch, FILE));
    await expect(load(join(scratch, FILE))).rejects.toThrow(/relative_position_index: .* windows of 7/);
    await expect(load(join(scratch, "none.pth"))).rejects.toThrow(/no file .*none\.pth.*download\.openmmlab\.com/);
    await expect(load(join(scorerFolder(), "pictures"))).rejects.toThrow(
      /holds no weights; expected mask2former_swin-s/,
    );
  });

  it.each([
    ["id2label", { 0: "cat" }, /id2label: expected the 80 classes of COCO, found 1/],
    ["hidden_dim", 63, /mask_feature_size|feature_size|hidden_dim/],
    ["decoder_layers", 1e9, /decoder_layers/],
    ["pre_norm", true, /pre_norm/],
    ["backbone_config", { model_type: "resnet" }, /backbone_config\.model_type.*Mask2Former with Swin/],
    [
      "backbone_config",
      { embed_dim: 24_000, window_size: 5, num_heads: [1, 2, 3, 4] },
      /\.pth: holds \d+ weights; the shape of this Mask2Former has \d+/,
    ],
    ["backbone_config", { num_heads: [5, 6, 12, 24] }, /num_heads: 5 heads do not divide 96 channels/],
  ])("are refused for a config.json whose %s is wrong", async (field, value, error) => {
    const folder = join(scratch, "config");
    cpSync(join(home, FILE), join(folder, FILE), { recursive: true });
    const config = JSON.parse(readFileSync(join(home, "config.json"), "utf8"));
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, [field]: value }));
    await expect(load(folder)).rejects.toThrow(error);
  });
});

describe("detections", () => {
  it("do not depend on what else is in the call", async () => {
    using detector = await load(home);
    const images = await Promise.all(["noise", "strip", "square"].map(picture));
    const together = await detector.detect(images, { minScore: 0.1 });
    expect(together.flat().length).toBeGreaterThan(10);
    for (const [i, image] of images.entries())
      expect(await detector.detect([image], { minScore: 0.1 })).toEqual([together[i]]);
  });

  it("of pictures of one pixel and of extreme shapes are detections of that size", async () => {
    using detector = await load(home);
    const shapes = [
      [1, 1],
      [1, 4000],
      [4000, 1],
      [97, 3],
    ] as const;
    const found = await detector.detect(shapes.map(([width, height]) => flat(width, height)));
    found.forEach((detections, i) => {
      const [width, height] = shapes[i]!;
      expect(detections.length).toBe(100);
      for (const { box, mask, score } of detections) {
        expect(score >= 0 && score <= 1).toBe(true);
        expect(box[2] <= width && box[3] <= height).toBe(true);
        expect(mask).toMatchObject({ width, height });
      }
    });
  });

  it("with a backbone in bfloat16 find what float32 finds", async () => {
    using exact = await load(home);
    using half = await load(home, { dtype: "bfloat16" });
    const images = [await picture("square")];
    const [expected] = await exact.detect(images, { minScore: 0.5 });
    const [found] = await half.detect(images, { minScore: 0.4 });
    expect(expected!.length).toBeGreaterThan(2);
    for (const { classIndex, score } of expected!)
      expect(found!.some((other) => other.classIndex === classIndex && Math.abs(other.score - score) < 0.1)).toBe(true);
  });

  it("stop when they are told to, and refuse what is no picture", async () => {
    using detector = await load(home);
    const controller = new AbortController();
    controller.abort(new Error("enough"));
    await expect(detector.detect([flat(8, 8)], { signal: controller.signal })).rejects.toThrow("enough");
    const wrong = { ...flat(8, 8), width: 9 };
    const says = /^images\.0: expected .*, received {"width":9,"height":8,"data":"Uint8Array\(192\)"}$/;
    await expect(detector.detect([wrong])).rejects.toThrow(says);
  });
});
