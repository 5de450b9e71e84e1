/** The networks that are measured, and how many floating-point operations one pass of them is. */
import { REWARD_KEYS } from "miro-t2i";

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

export const NETWORKS: Record<"full" | "tiny", NetworkArguments> = {
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
};

/** Text registers of every configuration here (the network's default). */
const REGISTERS = 16;

/**
 * Floating-point operations (two for each multiply-add) of the matrix products of one forward pass, `rows` samples with `text`
 * tokens. Without `conditioning`, those that depend on text and rewards alone are left out: the conditioning transformer and its
 * keys and values in each block, which a sampler computes once.
 */
export function forwardFlops(c: NetworkArguments, rows: number, text: number, conditioning: boolean): number {
  const [L, D, N] = [c.latents_dim, c.data_dim, c.num_latents];
  const M = (c.data_size / c.patch_size) ** 2;
  const patch = c.patch_size ** 2 * c.num_input_channels;
  const K = c.coherence_keys.length;
  const C = K + REGISTERS + text;
  const linear = (tokens: number, from: number, to: number) => 2 * tokens * from * to;
  const attention = (queries: number, keys: number, width: number) => 4 * queries * keys * width;
  const feedForward = (tokens: number, dim: number) => {
    const hidden = Math.ceil(Math.floor((4 * dim * 2) / 3) / 256) * 256;
    return linear(tokens, dim, 2 * hidden) + linear(tokens, hidden, dim);
  };
  const cross = (tokens: number, dim: number, source: number, sourceDim: number, projected = source) => {
    const A = Math.min(dim, sourceDim);
    return (
      linear(tokens, dim, A) +
      linear(projected, sourceDim, 2 * A) +
      attention(tokens, source, A) +
      linear(tokens, A, dim) +
      feedForward(tokens, dim)
    );
  };
  const self = linear(N, L, 3 * L) + attention(N, N, L) + linear(N, L, L) + feedForward(N, L);
  const block =
    cross(N, L, C + 1, L, conditioning ? C + 1 : 1) +
    cross(N, L, M, D) +
    c.num_processing_layers * self +
    cross(M, D, N, L);
  const scalar = linear(1, L / 4, L) + linear(1, L, L);
  const transformer = 2 * (linear(C, L, 3 * L) + attention(C, C, L) + linear(C, L, L) + 2 * linear(C, L, 4 * L));
  const once = transformer + linear(text, c.label_dim, L) + K * scalar;
  const ends = scalar + linear(M, patch, D) + linear(M, D, patch) + 2 * linear(N, L, 4 * L);
  return rows * (c.num_blocks * block + ends + (conditioning ? once : 0));
}
