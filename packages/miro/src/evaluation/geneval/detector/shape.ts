/**
 * The shape of a Mask2Former with a Swin backbone: GenEval's, and what a folder's `config.json` of transformers states
 * for itself. What that file leaves out is as in the published model.
 */
import { z } from "zod";
import { checkName } from "../../../arguments.js";
import { MiroError } from "../../../errors.js";
import { expectedAndReceived } from "../../../expectations.js";
import { readJson } from "../../../files/json-file.js";

/** The backbone, Liu et al. 2021. */
export interface SwinShape {
  /** Channels of the first stage; each further stage has twice as many. */
  width: number;
  /** Blocks of the four stages. */
  depths: readonly number[];
  /** Attention heads of the four stages. */
  heads: readonly number[];
  /** Side of a window in cells. */
  window: number;
  /** Of the feed-forward layers, over the width. */
  mlpRatio: number;
}

/** The whole network, Cheng et al. 2022. */
export interface Mask2FormerShape {
  backbone: SwinShape;
  /** Of the pixel decoder and of the transformer decoder. */
  width: number;
  /** Attention heads of both. */
  heads: number;
  /** Layers of the pixel decoder's encoder and the width of their feed-forward layers. */
  encoder: { layers: number; hidden: number };
  /** Layers of the transformer decoder and the width of their feed-forward layers. */
  decoder: { layers: number; hidden: number };
  queries: number;
  /** Without the one that stands for no object. */
  classes: number;
}

/** The detector that GenEval prescribes: Swin-S, COCO. */
export const SWIN_S: Mask2FormerShape = {
  backbone: { width: 96, depths: [2, 2, 18, 2], heads: [3, 6, 12, 24], window: 7, mlpRatio: 4 },
  width: 256,
  heads: 8,
  encoder: { layers: 6, hidden: 1024 },
  decoder: { layers: 9, hidden: 2048 },
  queries: 100,
  classes: 80,
};

const size = z.int().min(1).max(65_536);
const layers = z.int().min(1).max(256);
const four = <T extends z.ZodType>(item: T) => z.array(item).length(4);

const schema = z.looseObject({
  model_type: z.literal("mask2former").optional(),
  backbone_config: z
    .looseObject({
      model_type: z.literal("swin").optional(),
      embed_dim: size.optional(),
      depths: four(layers).optional(),
      num_heads: four(size).optional(),
      window_size: z.int().min(2).max(64).optional(),
      mlp_ratio: z.number().positive().max(64).optional(),
      patch_size: z.literal(4).optional(),
      hidden_act: z.literal("gelu").optional(),
      qkv_bias: z.literal(true).optional(),
      use_absolute_embeddings: z.literal(false).optional(),
      layer_norm_eps: z.literal(1e-5).optional(),
    })
    .optional(),
  feature_size: size.optional(),
  mask_feature_size: size.optional(),
  hidden_dim: size.optional(),
  num_attention_heads: size.optional(),
  encoder_layers: layers.optional(),
  encoder_feedforward_dim: size.optional(),
  decoder_layers: layers.min(2).optional(),
  dim_feedforward: size.optional(),
  num_queries: z.int().min(1).max(4096).optional(),
  id2label: z.record(z.string(), z.string()).optional(),
  activation_function: z.literal("relu").optional(),
  pre_norm: z.literal(false).optional(),
  enforce_input_projection: z.literal(false).optional(),
  common_stride: z.literal(4).optional(),
  feature_strides: z.tuple([z.literal(4), z.literal(8), z.literal(16), z.literal(32)]).optional(),
});

/** Channels of one group of the group norms. */
export const GROUPS = 32;

/** The shape that a file states. @throws MiroError naming the file and the field */
export function readShape(path: string): Mask2FormerShape {
  checkName("path", path, "the name of a file");
  const parsed = schema.safeParse(readJson(path), { error: expectedAndReceived });
  if (!parsed.success) {
    const { path: field, message } = parsed.error.issues[0]!;
    throw new MiroError(
      `${path}: ${field.join(".") || "the file"}: ${message}; this detector is a Mask2Former with Swin`,
    );
  }
  const { backbone_config: b = {}, ...c } = parsed.data;
  const shape: Mask2FormerShape = {
    backbone: {
      width: b.embed_dim ?? SWIN_S.backbone.width,
      depths: b.depths ?? SWIN_S.backbone.depths,
      heads: b.num_heads ?? SWIN_S.backbone.heads,
      window: b.window_size ?? SWIN_S.backbone.window,
      mlpRatio: b.mlp_ratio ?? SWIN_S.backbone.mlpRatio,
    },
    width: c.hidden_dim ?? SWIN_S.width,
    heads: c.num_attention_heads ?? SWIN_S.heads,
    encoder: {
      layers: c.encoder_layers ?? SWIN_S.encoder.layers,
      hidden: c.encoder_feedforward_dim ?? SWIN_S.encoder.hidden,
    },
    decoder: {
      // transformers counts the prediction before the first layer as one.
      layers: c.decoder_layers === undefined ? SWIN_S.decoder.layers : c.decoder_layers - 1,
      hidden: c.dim_feedforward ?? SWIN_S.decoder.hidden,
    },
    queries: c.num_queries ?? SWIN_S.queries,
    classes: c.id2label === undefined ? SWIN_S.classes : Object.keys(c.id2label).length,
  };
  for (const field of ["feature_size", "mask_feature_size"] as const)
    if (c[field] !== undefined && c[field] !== shape.width)
      throw new MiroError(`${path}: ${field}: expected the width of the decoder, ${shape.width}, found ${c[field]}`);
  check(path, shape);
  return shape;
}

function check(path: string, { backbone, width, heads }: Mask2FormerShape): void {
  backbone.heads.forEach((count, stage) => {
    const channels = backbone.width * 2 ** stage;
    if (channels % count !== 0)
      throw new MiroError(`${path}: backbone_config.num_heads: ${count} heads do not divide ${channels} channels`);
  });
  if (!Number.isInteger(backbone.width * backbone.mlpRatio))
    throw new MiroError(`${path}: backbone_config.mlp_ratio: ${backbone.mlpRatio} gives no whole number of channels`);
  for (const [what, parts] of [
    ["attention heads", heads],
    ["groups of the norms", GROUPS],
    ["parts of the position code", 4],
  ] as const)
    if (width % parts !== 0) throw new MiroError(`${path}: hidden_dim: ${parts} ${what} do not divide ${width}`);
}
