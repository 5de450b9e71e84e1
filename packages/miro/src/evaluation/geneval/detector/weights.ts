/**
 * The detector's weights in the three layouts that are published:
 *
 *   mmdet 3.x      OpenMMLab's file, the weights that GenEval prescribes, under the names of today's mmdet
 *   mmdet 2.x      the same weights under the names of the mmdet that GenEval was written for
 *   Hugging Face   Meta's weights, another training run
 *
 * Loading is strict: every tensor is there in its shape, and nothing else but buffers that hold no weights.
 */
import { type DType, empty, noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { TensorFile } from "@miro-t2i/torch/io";
import { MiroError } from "../../../errors.js";
import { loadStrictly, type PublishedLayout, type Stored } from "../../../rewards/strict-weights.js";
import { Mask2Former } from "./mask2former.js";
import type { Mask2FormerShape } from "./shape.js";
import { relativePositions } from "./swin.js";

/** How the weights stand in a file. */
export type DetectorLayout = "mmdet-3" | "mmdet-2" | "hugging-face";

/** Where the weights go. The dtype is the backbone's; all behind it is float32. */
export interface DetectorPlace {
  device: string;
  dtype: DType;
}

const HEAD = "panoptic_head";
const PIXELS = `${HEAD}.pixel_decoder`;
const QUERIES = `${HEAD}.transformer_decoder`;
const HF_SWIN = "model.pixel_level_module.encoder";
const HF_PIXELS = "model.pixel_level_module.decoder";
const HF_QUERIES = "model.transformer_module";

/**
 * Beginnings of names: the network's, mmdet 3.x's and Hugging Face's. A # is a number, the same in all three; words in
 * brackets are the parts of which a tensor is stacked.
 */
const NAMES: readonly (readonly [own: string, mmdet: string, huggingFace: string])[] = [
  ["backbone.patch.", "backbone.patch_embed.projection.", `${HF_SWIN}.embeddings.patch_embeddings.projection.`],
  ["backbone.patch_norm.", "backbone.patch_embed.norm.", `${HF_SWIN}.embeddings.norm.`],
  ...(
    [
      ["norm1.", "norm1.", "layernorm_before."],
      ["qkv.", "attn.w_msa.qkv.", "attention.self.[query,key,value]."],
      ["bias_table", "attn.w_msa.relative_position_bias_table", "attention.self.relative_position_bias_table"],
      ["proj.", "attn.w_msa.proj.", "attention.output.dense."],
      ["norm2.", "norm2.", "layernorm_after."],
      ["fc1.", "ffn.layers.0.0.", "intermediate.dense."],
      ["fc2.", "ffn.layers.1.", "output.dense."],
    ] as const
  ).map(
    ([own, mmdet, hf]) =>
      [
        `backbone.stages.#.blocks.#.${own}`,
        `backbone.stages.#.blocks.#.${mmdet}`,
        `${HF_SWIN}.encoder.layers.#.blocks.#.${hf}`,
      ] as const,
  ),
  ["backbone.stages.#.merge.", "backbone.stages.#.downsample.", `${HF_SWIN}.encoder.layers.#.downsample.`],
  ...[0, 1, 2, 3].map(
    (s) => [`backbone.norms.${s}.`, `backbone.norm${s}.`, `${HF_SWIN}.hidden_states_norms.stage${s + 1}.`] as const,
  ),
  ["pixel_decoder.level_embed", `${PIXELS}.level_encoding.weight`, `${HF_PIXELS}.level_embed`],
  ["pixel_decoder.inputs.#.conv.", `${PIXELS}.input_convs.#.conv.`, `${HF_PIXELS}.input_projections.#.0.`],
  ["pixel_decoder.inputs.#.norm.", `${PIXELS}.input_convs.#.gn.`, `${HF_PIXELS}.input_projections.#.1.`],
  ...(
    [
      ["norm1.", "norms.0.", "self_attn_layer_norm."],
      ["fc1.", "ffn.layers.0.0.", "fc1."],
      ["fc2.", "ffn.layers.1.", "fc2."],
      ["norm2.", "norms.1.", "final_layer_norm."],
      ["", "self_attn.", "self_attn."],
    ] as const
  ).map(
    ([own, mmdet, hf]) =>
      [
        `pixel_decoder.layers.#.${own}`,
        `${PIXELS}.encoder.layers.#.${mmdet}`,
        `${HF_PIXELS}.encoder.layers.#.${hf}`,
      ] as const,
  ),
  ["pixel_decoder.lateral.conv.", `${PIXELS}.lateral_convs.0.conv.`, `${HF_PIXELS}.adapter_1.0.`],
  ["pixel_decoder.lateral.norm.", `${PIXELS}.lateral_convs.0.gn.`, `${HF_PIXELS}.adapter_1.1.`],
  ["pixel_decoder.output.conv.", `${PIXELS}.output_convs.0.conv.`, `${HF_PIXELS}.layer_1.0.`],
  ["pixel_decoder.output.norm.", `${PIXELS}.output_convs.0.gn.`, `${HF_PIXELS}.layer_1.1.`],
  ["pixel_decoder.mask_feature.", `${PIXELS}.mask_feature.`, `${HF_PIXELS}.mask_projection.`],
  ["decoder.query_feat", `${HEAD}.query_feat.weight`, `${HF_QUERIES}.queries_features.weight`],
  ["decoder.query_embed", `${HEAD}.query_embed.weight`, `${HF_QUERIES}.queries_embedder.weight`],
  ["decoder.level_embed", `${HEAD}.level_embed.weight`, `${HF_QUERIES}.level_embed.weight`],
  ...(
    [
      ["cross_attn.", "cross_attn.attn.", "cross_attn."],
      ["self_attn.in_proj_weight", "self_attn.attn.in_proj_weight", "self_attn.[q,k,v]_proj.weight"],
      ["self_attn.in_proj_bias", "self_attn.attn.in_proj_bias", "self_attn.[q,k,v]_proj.bias"],
      ["self_attn.out_proj.", "self_attn.attn.out_proj.", "self_attn.out_proj."],
      ["norm1.", "norms.0.", "cross_attn_layer_norm."],
      ["norm2.", "norms.1.", "self_attn_layer_norm."],
      ["fc1.", "ffn.layers.0.0.", "fc1."],
      ["fc2.", "ffn.layers.1.", "fc2."],
      ["norm3.", "norms.2.", "final_layer_norm."],
    ] as const
  ).map(
    ([own, mmdet, hf]) =>
      [`decoder.layers.#.${own}`, `${QUERIES}.layers.#.${mmdet}`, `${HF_QUERIES}.decoder.layers.#.${hf}`] as const,
  ),
  ["decoder.norm.", `${QUERIES}.post_norm.`, `${HF_QUERIES}.decoder.layernorm.`],
  ["decoder.classes.", `${HEAD}.cls_embed.`, "class_predictor."],
  ...[0, 1, 2].map(
    (i) =>
      [
        `decoder.mask.${i}.`,
        `${HEAD}.mask_embed.${2 * i}.`,
        `${HF_QUERIES}.decoder.mask_predictor.mask_embedder.${i}.0.`,
      ] as const,
  ),
];

const PATTERNS = NAMES.map(([own]) => new RegExp(`^${own.replaceAll(".", "\\.").replaceAll("#", "(\\d+)")}`));

/** A tensor's names in a layout: several where it is stacked of parts. */
export function storedKeys(name: string, layout: DetectorLayout): string[] {
  const at = PATTERNS.findIndex((pattern) => pattern.test(name));
  const [own, ...numbers] = PATTERNS[at]!.exec(name)!;
  const of = NAMES[at]![layout === "hugging-face" ? 2 : 1];
  const key = of.replaceAll("#", () => numbers.shift()!) + name.slice(own.length);
  const parts = /\[([^[\]]+)\]/.exec(key);
  if (parts !== null) return parts[1]!.split(",").map((part) => key.replace(parts[0], part));
  return [layout === "mmdet-2" ? version2(key) : key];
}

/** What mmdet 2.x calls a tensor of mmdet 3.x. */
function version2(key: string): string {
  if (key.startsWith(`${QUERIES}.layers.`))
    return key
      .replace(".cross_attn.attn.", ".attentions.0.attn.")
      .replace(".self_attn.attn.", ".attentions.1.attn.")
      .replace(".ffn.layers", ".ffns.0.layers");
  if (key.startsWith(`${PIXELS}.encoder.layers.`))
    return key.replace(".self_attn.", ".attentions.0.").replace(".ffn.layers", ".ffns.0.layers");
  return key;
}

/** Which layout a file has. @throws MiroError when it has none of them */
export function layoutOf(file: TensorFile): DetectorLayout {
  if (file.has(storedKeys("backbone.patch.weight", "hugging-face")[0]!)) return "hugging-face";
  if (file.has(storedKeys("backbone.patch.weight", "mmdet-3")[0]!)) {
    const old = file.keys().some((key) => key.startsWith(`${HEAD}.`) && key.includes(".attentions."));
    return old ? "mmdet-2" : "mmdet-3";
  }
  throw new MiroError(
    `${file.path}: holds no Mask2Former with Swin: neither backbone.patch_embed.projection.weight (OpenMMLab) nor ` +
      `${HF_SWIN}.embeddings.patch_embeddings.projection.weight (Hugging Face) is in it; it begins with ` +
      file.keys().slice(0, 3).join(", "),
  );
}

const TABLE = /\.relative_position_index$/;
/** Buffers of a loss, and a norm that transformers makes and does not use. */
const UNUSED =
  /^(?:panoptic_head\.loss_\w+\.class_weight|criterion\.empty_weight|model\.pixel_level_module\.encoder\.swin\.layernorm\.(?:weight|bias))$/;

/**
 * The network with the weights of a file.
 *
 * @throws MiroError naming the file and the tensors that do not fit; FormatError for values that are not finite; the
 *   signal's reason when it is aborted
 */
export async function loadMask2Former(
  file: TensorFile,
  shape: Mask2FormerShape,
  place: DetectorPlace,
  signal?: AbortSignal,
): Promise<Mask2Former> {
  const layout = layoutOf(file);
  const published: PublishedLayout = {
    what: "this Mask2Former",
    size: parameterCount(shape),
    stored: (name) => storedIn(name, layout),
    ignored: (key) => UNUSED.test(key) || TABLE.test(key),
  };
  checkTables(file, shape.backbone.window);
  const make = () => new Mask2Former(shape);
  const network = await loadStrictly(make, file, { device: place.device, dtype: "float32" }, published, signal);
  network.backbone.to({ dtype: place.dtype });
  return network;
}

function storedIn(name: string, layout: DetectorLayout): Stored {
  const keys = storedKeys(name, layout);
  return layout !== "hugging-face" && name.includes(".merge.") ? { keys, rearrange: fromUnfold } : { keys };
}

/**
 * Inputs of a patch merging (…, 4C), from mmdet's order to the original's: mmdet has the four neighbours of a channel
 * together, in the order (0,0), (0,1), (1,0), (1,1) of row and column; the original all channels of a neighbour, and
 * (1,0) before (0,1).
 */
export function fromUnfold(values: Tensor): Tensor {
  return scope(() => {
    const C = values.size(-1) / 4;
    const order = tensor(BigInt64Array.from([0n, 2n, 1n, 3n]), { dtype: "int64" });
    const byChannel = values.view(...values.shape.slice(0, -1), C, 4).indexSelect(-1, order);
    return byChannel.transpose(-1, -2).reshape([...values.shape]);
  });
}

/** Both layouts store which row of the bias table belongs to which pair of cells, which follows from the window. */
function checkTables(file: TensorFile, window: number): void {
  const cells = window ** 2;
  const expected = relativePositions(window);
  for (const key of file.keys()) {
    if (!TABLE.test(key)) continue;
    const { shape, dtype, formatDtype } = file.info(key);
    if (String(shape) !== String([cells, cells]) || dtype !== "int64")
      throw new MiroError(
        `${file.path}: ${key}: expected [${cells},${cells}] of int64 for windows of ${window}, found [${shape}] of ` +
          formatDtype,
      );
    const same = noGrad(() =>
      scope(() => {
        const found = empty([cells, cells], { dtype: "int64" });
        file.copyTo(key, found);
        return (found.data() as BigInt64Array).every((row, i) => row === expected[i]);
      }),
    );
    if (!same) throw new MiroError(`${file.path}: ${key}: is not the table of windows of ${window}; it may be damaged`);
  }
}

/** About: products alone. */
function parameterCount({ backbone, width: D, encoder, decoder }: Mask2FormerShape): number {
  const swin = backbone.depths.reduce((sum, depth, s) => {
    const C = backbone.width * 2 ** s;
    return sum + depth * C * C * (4 + 2 * backbone.mlpRatio);
  }, 0);
  return swin + encoder.layers * D * (2 * D + 2 * encoder.hidden) + decoder.layers * D * (8 * D + 2 * decoder.hidden);
}
