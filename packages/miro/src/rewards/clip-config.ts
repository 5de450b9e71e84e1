/**
 * Shapes of the published CLIPs, and those that a folder states for itself: transformers' `config.json` or open_clip's
 * `open_clip_config.json`. What a file leaves out is as in the published model.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkName } from "../arguments.js";
import { MiroError } from "../errors.js";
import { parseJsonFile } from "../files/json-file.js";
import type { ClipConfig } from "../networks/clip.js";

const EPS = 1e-5;
const TEXT = { vocabulary: 49_408, context: 77, eps: EPS };

/** OpenAI's ViT-L/14 at 224 pixels. */
export const CLIP_L: ClipConfig = {
  joint: 768,
  vision: {
    width: 1024,
    layers: 24,
    heads: 16,
    hidden: 4096,
    image: 224,
    patch: 14,
    activation: "quick_gelu",
    eps: EPS,
  },
  text: { width: 768, layers: 12, heads: 12, hidden: 3072, activation: "quick_gelu", ...TEXT },
};

/** LAION's ViT-H/14: PickScore, HPSv2 and SciScore. */
export const CLIP_H: ClipConfig = {
  joint: 1024,
  vision: { width: 1280, layers: 32, heads: 16, hidden: 5120, image: 224, patch: 14, activation: "gelu", eps: EPS },
  text: { width: 1024, layers: 24, heads: 16, hidden: 4096, activation: "gelu", ...TEXT },
};

/** The image side of OpenAI's ViT-L/14 at 336 pixels: VQAScore. */
export const CLIP_L_336: ClipConfig = { ...CLIP_L, vision: { ...CLIP_L.vision, image: 336 } };

const size = z.int().min(1).max(65_536);
const layers = z.int().min(1).max(512);
const vocabulary = z.int().min(3).max(1_000_000);
const activation = z.enum(["quick_gelu", "gelu"]);
const eps = z.number().positive().max(1);

const huggingFaceTower = {
  hidden_size: size.optional(),
  num_hidden_layers: layers.optional(),
  num_attention_heads: size.optional(),
  intermediate_size: size.optional(),
  hidden_act: activation.optional(),
  layer_norm_eps: eps.optional(),
};
const huggingFaceSchema = z.looseObject({
  model_type: z.literal("clip").optional(),
  projection_dim: size.optional(),
  vision_config: z
    .looseObject({ ...huggingFaceTower, image_size: size.optional(), patch_size: size.optional() })
    .optional(),
  text_config: z
    .looseObject({ ...huggingFaceTower, vocab_size: vocabulary.optional(), max_position_embeddings: size.optional() })
    .optional(),
});

const openClipSchema = z.looseObject({
  model_cfg: z.looseObject({
    embed_dim: size,
    quick_gelu: z.boolean().default(false),
    vision_cfg: z.looseObject({
      image_size: size,
      layers,
      width: size,
      head_width: size.default(64),
      mlp_ratio: z.number().positive().max(64).default(4),
      patch_size: size,
    }),
    text_cfg: z.looseObject({
      context_length: size.default(TEXT.context),
      vocab_size: vocabulary.default(TEXT.vocabulary),
      width: size,
      heads: size,
      layers,
      mlp_ratio: z.number().positive().max(64).default(4),
    }),
  }),
});

/** The shape of a folder's CLIP. @throws MiroError naming the file and the field */
export function readClipConfig(folder: string, published: ClipConfig): ClipConfig {
  checkName("folder", folder, "the name of a folder");
  const openClip = join(folder, "open_clip_config.json");
  if (existsSync(openClip)) return checked(openClip, fromOpenClip(parseJsonFile(openClip, openClipSchema)));
  const huggingFace = join(folder, "config.json");
  if (existsSync(huggingFace))
    return checked(huggingFace, fromHuggingFace(parseJsonFile(huggingFace, huggingFaceSchema), published));
  return published;
}

function fromOpenClip({ model_cfg }: z.output<typeof openClipSchema>): ClipConfig {
  const { embed_dim: joint, quick_gelu, vision_cfg: v, text_cfg: t } = model_cfg;
  const activation = quick_gelu ? "quick_gelu" : "gelu";
  return {
    joint,
    vision: {
      width: v.width,
      layers: v.layers,
      heads: v.width / v.head_width,
      hidden: Math.trunc(v.width * v.mlp_ratio),
      image: v.image_size,
      patch: v.patch_size,
      activation,
      eps: EPS,
    },
    text: {
      width: t.width,
      layers: t.layers,
      heads: t.heads,
      hidden: Math.trunc(t.width * t.mlp_ratio),
      vocabulary: t.vocab_size,
      context: t.context_length,
      activation,
      eps: EPS,
    },
  };
}

function fromHuggingFace(config: z.output<typeof huggingFaceSchema>, published: ClipConfig): ClipConfig {
  const { vision_config: v = {}, text_config: t = {} } = config;
  const tower = (given: typeof v, known: ClipConfig["vision"] | ClipConfig["text"]) => ({
    width: given.hidden_size ?? known.width,
    layers: given.num_hidden_layers ?? known.layers,
    heads: given.num_attention_heads ?? known.heads,
    hidden: given.intermediate_size ?? known.hidden,
    activation: given.hidden_act ?? known.activation,
    eps: given.layer_norm_eps ?? known.eps,
  });
  return {
    joint: config.projection_dim ?? published.joint,
    vision: {
      ...tower(v, published.vision),
      image: v.image_size ?? published.vision.image,
      patch: v.patch_size ?? published.vision.patch,
    },
    text: {
      ...tower(t, published.text),
      vocabulary: t.vocab_size ?? published.text.vocabulary,
      context: t.max_position_embeddings ?? published.text.context,
    },
  };
}

function checked(path: string, config: ClipConfig): ClipConfig {
  for (const side of ["vision", "text"] as const) {
    const { width, heads } = config[side];
    if (!Number.isInteger(heads) || width % heads !== 0)
      throw new MiroError(`${path}: ${side}: ${heads} heads do not divide a width of ${width}`);
  }
  const { image, patch } = config.vision;
  if (image % patch !== 0) throw new MiroError(`${path}: vision: patches of ${patch} pixels do not divide ${image}`);
  return config;
}
