/**
 * The shape of a CLIP-FlanT5: `config.json` of its folder, and `architecture.json` beside it for a vision tower that is
 * not OpenAI's.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkName } from "../arguments.js";
import { MiroError } from "../errors.js";
import { parseJsonFile, readJson } from "../files/json-file.js";
import type { ClipConfig } from "../networks/clip.js";
import { type T5Config, t5ConfigFromJson } from "../text/t5-config.js";
import { CLIP_L_336 } from "./clip-config.js";

/** A CLIP-FlanT5. */
export interface VqaConfig {
  t5: T5Config;
  decoderLayers: number;
  /** What the decoder's input begins with. */
  startId: number;
  vision: ClipConfig["vision"];
}

const size = z.int().min(1).max(65_536);

const modelSchema = z.looseObject({
  num_decoder_layers: z.int().min(1).max(1024).optional(),
  /** Else the decoder's states would be scaled, and the head be the embedding. */
  tie_word_embeddings: z.literal(false),
  decoder_start_token_id: z.int().min(0).default(0),
  mm_hidden_size: size.optional(),
  mm_projector_type: z.literal("mlp2x_gelu").optional(),
  mm_vision_select_layer: z.literal(-2).optional(),
  mm_vision_select_feature: z.literal("patch").optional(),
});

const architectureSchema = z.looseObject({
  vision: z.looseObject({
    width: size,
    layers: z.int().min(1).max(512),
    heads: size,
    mlp: size,
    image: size,
    patch: size,
    activation: z.enum(["quick_gelu", "gelu"]),
    layer_norm_eps: z.number().positive().max(1),
  }),
});

/** @throws MiroError or InvalidInputError naming the file and the field */
export function readVqaConfig(folder: string): VqaConfig {
  checkName("folder", folder, "the name of a folder");
  const path = join(folder, "config.json");
  const t5 = t5ConfigFromJson(readJson(path), path, "clip_t5");
  const model = parseJsonFile(path, modelSchema);
  const vision = readVision(folder);
  const { mm_hidden_size: width = vision.width, decoder_start_token_id: startId } = model;
  if (width !== vision.width)
    throw new MiroError(`${path}: mm_hidden_size: expected ${vision.width}, the vision tower's width, found ${width}`);
  if (startId >= t5.vocabSize)
    throw new MiroError(`${path}: decoder_start_token_id: expected less than ${t5.vocabSize}, found ${startId}`);
  return { t5, decoderLayers: model.num_decoder_layers ?? t5.numLayers, startId, vision };
}

function readVision(folder: string): ClipConfig["vision"] {
  const path = join(folder, "architecture.json");
  if (!existsSync(path)) return CLIP_L_336.vision;
  const { mlp: hidden, layer_norm_eps: eps, ...rest } = parseJsonFile(path, architectureSchema).vision;
  const { width, layers, heads, image, patch, activation } = rest;
  if (width % heads !== 0) throw new MiroError(`${path}: vision: ${heads} heads do not divide a width of ${width}`);
  if (image % patch !== 0) throw new MiroError(`${path}: vision: patches of ${patch} pixels do not divide ${image}`);
  return { width, layers, heads, hidden, image, patch, activation, eps };
}

/** Number of weights, so that memory is looked at before anything is read. */
export function countVqaParameters({ t5: c, decoderLayers, vision }: VqaConfig, tokens: number) {
  const attention = 4 * c.dModel * c.numHeads * c.dKv;
  const feedForward = 3 * c.dModel * c.dFf;
  return {
    encoderBlock: attention + feedForward,
    decoderBlock: 2 * attention + feedForward,
    blocks: c.numLayers * (attention + feedForward) + decoderLayers * (2 * attention + feedForward),
    embedding: tokens * c.dModel,
    projector: c.dModel * (vision.width + c.dModel),
    tower: vision.layers * (4 * vision.width ** 2 + 2 * vision.width * vision.hidden),
  };
}
