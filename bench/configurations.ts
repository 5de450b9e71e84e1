/** The networks that are measured. */
import { REWARD_KEYS } from "miro-t2i/networks";

/** Constructor arguments, as in a checkpoint's config.json. */
export interface NetworkArguments {
  data_size: number;
  num_input_channels: number;
  label_dim: number;
  num_cond_tokens: number;
  data_dim: number;
  num_latents: number;
  latents_dim: number;
  num_processing_layers: number;
  num_blocks: number;
  patch_size: number;
  read_write_heads: number;
  compute_heads: number;
  use_cond_rin_block: boolean;
  concat_cond_token_to_latents: boolean;
  use_self_conditioning: boolean;
  coherence_keys: string[];
}

const shared = {
  num_input_channels: 4,
  num_cond_tokens: 77,
  patch_size: 2,
  use_cond_rin_block: true,
  concat_cond_token_to_latents: false,
  use_self_conditioning: true,
  coherence_keys: [...REWARD_KEYS],
};

/** `thin` has the depth of the published model, and so little width that what is left is the work of the host. */
export const NETWORKS: Record<"full" | "tiny" | "thin", NetworkArguments> = {
  /** The published main model: 360.4M parameters, 256 × 256 pictures. */
  full: {
    ...shared,
    data_size: 32,
    label_dim: 2048,
    data_dim: 512,
    num_latents: 256,
    latents_dim: 1024,
    num_processing_layers: 4,
    num_blocks: 4,
    read_write_heads: 16,
    compute_heads: 32,
  },
  /** To try a benchmark out. */
  tiny: {
    ...shared,
    data_size: 8,
    label_dim: 48,
    data_dim: 32,
    num_latents: 8,
    latents_dim: 64,
    num_processing_layers: 1,
    num_blocks: 2,
    read_write_heads: 2,
    compute_heads: 4,
  },
  thin: {
    ...shared,
    data_size: 4,
    label_dim: 48,
    data_dim: 64,
    num_latents: 4,
    latents_dim: 64,
    num_processing_layers: 4,
    num_blocks: 4,
    read_write_heads: 4,
    compute_heads: 4,
  },
};

const SIZES = {
  /** FLAN-T5-XL and the SDXL autoencoder. */
  full: {
    t5: { d_model: 2048, d_kv: 64, d_ff: 5120, num_layers: 24, num_heads: 32 },
    widths: [128, 256, 512, 512],
    groups: 32,
  },
  tiny: { t5: { d_model: 48, d_kv: 16, d_ff: 96, num_layers: 2, num_heads: 3 }, widths: [16, 32], groups: 8 },
};

/** The text encoder and the autoencoder of a network's size, as their config.json. */
export function frozenParts(size: "full" | "tiny") {
  const { t5, widths, groups } = SIZES[size];
  return {
    t5: { ...t5, vocab_size: 32128, feed_forward_proj: "gated-gelu", model_type: "t5" },
    vae: {
      _class_name: "AutoencoderKL",
      block_out_channels: widths,
      down_block_types: widths.map(() => "DownEncoderBlock2D"),
      up_block_types: widths.map(() => "UpDecoderBlock2D"),
      layers_per_block: 2,
      norm_num_groups: groups,
      latent_channels: 4,
    },
  };
}
