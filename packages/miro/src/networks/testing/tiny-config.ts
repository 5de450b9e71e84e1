/** The network that tests build: every part of the published one, at sizes that take milliseconds. */
import { parseRinConfig, REWARD_KEYS, type RinConfig } from "../config.js";

/** Constructor arguments as in a checkpoint's config.json. */
export const TINY_NETWORK = {
  data_size: 8,
  num_input_channels: 4,
  label_dim: 24,
  num_cond_tokens: 6,
  data_dim: 32,
  num_latents: 12,
  latents_dim: 64,
  num_processing_layers: 1,
  num_blocks: 2,
  patch_size: 2,
  read_write_heads: 2,
  compute_heads: 4,
  use_cond_rin_block: true,
  concat_cond_token_to_latents: false,
  use_self_conditioning: true,
  coherence_keys: ["clip_score", "aesthetic_score", "vqa_score"],
} as const;

/** The published main model: 360.4M parameters, 256 × 256 pictures. */
export const PUBLISHED_NETWORK = {
  ...TINY_NETWORK,
  data_size: 32,
  label_dim: 2048,
  num_cond_tokens: 77,
  data_dim: 512,
  num_latents: 256,
  latents_dim: 1024,
  num_processing_layers: 4,
  num_blocks: 4,
  read_write_heads: 16,
  compute_heads: 32,
  coherence_keys: REWARD_KEYS,
} as const;

/** The tiny network's configuration with changed arguments. */
export function tinyConfig(changes: Record<string, unknown> = {}): RinConfig {
  return parseRinConfig({ ...TINY_NETWORK, ...changes });
}
