/**
 * The shape of jina-clip-v2, and the one that a folder states for itself: `config.json` (both towers, LoRA),
 * `text_model_config.json` (what the text tower takes from jina-embeddings-v3, in whose repository it is `config.json`)
 * and `preprocessor_config.json`. What a file leaves out is as in the published model. What changes the arithmetic, and
 * not the shape, must be as in the published model.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkName } from "../arguments.js";
import { MiroError } from "../errors.js";
import { checkContent } from "../expectations.js";
import { readJson } from "../files/json-file.js";
import type { JinaClipConfig } from "../networks/jina-clip.js";
import { CLIP_MEAN, CLIP_STD } from "./clip-pixels.js";

/** How low-rank updates (LoRA, Hu et al. 2021) stand beside the text tower's weights. */
export interface LoraConfig {
  rank: number;
  /** W + (alpha / rank) B A */
  alpha: number;
}

/** A jina-clip as a folder describes it. */
export interface JinaConfig extends JinaClipConfig {
  lora: LoraConfig;
  /** Most tokens of a text. */
  context: number;
  /** Id of padding. */
  padId: number;
}

/** Texts of the published data sets are cut to as many tokens; the model itself admits 8,194. */
const CONTEXT = 1024;

/** The published shape. */
export const JINA_CLIP_V2: JinaConfig = {
  vision: { width: 1024, layers: 24, heads: 16, hidden: 2730, image: 512, patch: 14, reference: 16, eps: 1e-6 },
  text: { width: 1024, layers: 24, heads: 16, hidden: 4096, vocabulary: 250_002, base: 20_000, eps: 1e-5 },
  lora: { rank: 4, alpha: 4 },
  context: CONTEXT,
  padId: 1,
};

const size = z.int().min(1).max(65_536);
const layers = z.int().min(1).max(512);
const eps = z.number().positive().max(1);
/** A setting of the arithmetic, which only the published value is implemented for. */
const fixed = <T extends string | number | boolean | null>(value: T) => z.literal(value).optional();
const about = (values: readonly number[]) =>
  z
    .array(z.number())
    .refine((found) => found.length === 3 && found.every((value, i) => Math.abs(value - values[i]!) < 1e-6), {
      error: `expected ${values.join(", ")}`,
    })
    .optional();

const TASK = "retrieval.query";
const modelSchema = z.looseObject({
  model_type: fixed("jina_clip"),
  add_projections: fixed(false),
  projection_dim: size.optional(),
  truncate_dim: fixed(null),
  text_config: z
    .looseObject({
      default_instruction_task: fixed(null),
      default_lora_task: fixed(TASK),
      embed_dim: size.optional(),
      hf_model_config_kwargs: z
        .looseObject({
          lora_adaptations: z.tuple([z.literal(TASK)]).optional(),
          lora_alpha: z.number().positive().max(65_536).optional(),
          lora_rank: size.optional(),
        })
        .optional(),
      pooler_type: fixed("mean_pooler"),
      proj_type: fixed(null),
    })
    .optional(),
  vision_config: z
    .looseObject({
      embed_dim: size.optional(),
      head_width: size.optional(),
      image_size: size.optional(),
      intp_freq: fixed(true),
      layers: layers.optional(),
      ls_init_value: fixed(null),
      mlp_ratio: z.number().positive().max(64).optional(),
      naive_swiglu: fixed(true),
      patch_size: size.optional(),
      post_norm: fixed(false),
      proj_type: fixed(null),
      pt_hw_seq_len: size.optional(),
      qkv_bias: fixed(true),
      rope_embeddings: fixed(true),
      subln: fixed(true),
      width: size.optional(),
    })
    .optional(),
});

const textSchema = z.looseObject({
  vocab_size: z.int().min(5).max(4_000_000).optional(),
  hidden_size: size.optional(),
  num_hidden_layers: layers.optional(),
  num_attention_heads: size.optional(),
  intermediate_size: z.int().min(1).max(1_048_576).optional(),
  hidden_act: fixed("gelu"),
  layer_norm_eps: eps.optional(),
  max_position_embeddings: z.int().min(3).max(1_000_000).optional(),
  type_vocab_size: fixed(1),
  pad_token_id: fixed(JINA_CLIP_V2.padId),
  position_embedding_type: fixed("rotary"),
  rotary_emb_base: fixed(JINA_CLIP_V2.text.base),
});

const preprocessorSchema = z.looseObject({
  size: size.optional(),
  resize_mode: fixed("shortest"),
  interpolation: fixed("bicubic"),
  mean: about(CLIP_MEAN),
  std: about(CLIP_STD),
});

/** What {@link readJinaConfig} reads; a folder may lack any of these. */
export const JINA_CONFIG_FILES = ["config.json", "text_model_config.json", "preprocessor_config.json"] as const;
const [MODEL_FILE, TEXT_FILE, PREPROCESSOR_FILE] = JINA_CONFIG_FILES;

/** The shape of a folder's jina-clip. @throws MiroError naming the file and the field */
export function readJinaConfig(folder: string): JinaConfig {
  checkName("folder", folder, "the name of a folder");
  const model = read(join(folder, MODEL_FILE), modelSchema);
  const vision = visionOf(model.vision_config ?? {}, join(folder, MODEL_FILE));
  const { lora_rank, lora_alpha } = model.text_config?.hf_model_config_kwargs ?? {};
  const lora = { rank: lora_rank ?? JINA_CLIP_V2.lora.rank, alpha: lora_alpha ?? JINA_CLIP_V2.lora.alpha };
  const { text, context } = textOf(read(join(folder, TEXT_FILE), textSchema), join(folder, TEXT_FILE));
  for (const [field, width] of [
    ["projection_dim", model.projection_dim],
    ["text_config.embed_dim", model.text_config?.embed_dim],
    ["vision_config.embed_dim", model.vision_config?.embed_dim],
    ["vision_config.width", vision.width],
  ] as const)
    if (width !== undefined && width !== text.width)
      throw new MiroError(
        `${join(folder, MODEL_FILE)}: ${field}: ${width} is not the text tower's width, ${text.width}; ` +
          "there are no projections between them",
      );
  const { size: side = vision.image } = read(join(folder, PREPROCESSOR_FILE), preprocessorSchema);
  if (side !== vision.image)
    throw new MiroError(
      `${join(folder, PREPROCESSOR_FILE)}: size: pictures of ${side} pixels do not fit the tower's ${vision.image}`,
    );
  return { vision, text, lora, context, padId: JINA_CLIP_V2.padId };
}

function read<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  return checkContent(schema, existsSync(path) ? readJson(path) : {}, path);
}

function visionOf(v: NonNullable<z.output<typeof modelSchema>["vision_config"]>, path: string): JinaConfig["vision"] {
  const known = JINA_CLIP_V2.vision;
  const width = v.width ?? known.width;
  const config = {
    width,
    layers: v.layers ?? known.layers,
    heads: width / (v.head_width ?? known.width / known.heads),
    hidden: Math.trunc(width * (v.mlp_ratio ?? 2.6667)),
    image: v.image_size ?? known.image,
    patch: v.patch_size ?? known.patch,
    reference: v.pt_hw_seq_len ?? known.reference,
    eps: known.eps,
  };
  checkHeads(config, 4, `${path}: vision_config`);
  if (config.patch > config.image)
    throw new MiroError(
      `${path}: vision_config: a patch of ${config.patch} pixels does not fit into a picture of ${config.image}`,
    );
  return config;
}

function textOf(t: z.output<typeof textSchema>, path: string): Pick<JinaConfig, "text" | "context"> {
  const known = JINA_CLIP_V2.text;
  const text = {
    width: t.hidden_size ?? known.width,
    layers: t.num_hidden_layers ?? known.layers,
    heads: t.num_attention_heads ?? known.heads,
    hidden: t.intermediate_size ?? known.hidden,
    vocabulary: t.vocab_size ?? known.vocabulary,
    base: t.rotary_emb_base ?? known.base,
    eps: t.layer_norm_eps ?? known.eps,
  };
  checkHeads(text, 2, path);
  return { text, context: Math.min(CONTEXT, t.max_position_embeddings ?? CONTEXT) };
}

/** @param parts of a head that rotary positions treat alike */
function checkHeads({ width, heads }: { width: number; heads: number }, parts: number, place: string): void {
  if (Number.isInteger(heads) && width % (heads * parts) === 0) return;
  throw new MiroError(`${place}: ${heads} heads of a multiple of ${parts} channels do not make a width of ${width}`);
}
