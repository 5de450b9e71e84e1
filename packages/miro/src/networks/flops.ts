/**
 * How much arithmetic a forward pass of the network is: multiply-adds of its matrix products, by part, from its
 * configuration alone. Norms, activations and other work that grows only with the number of values are left out.
 *
 *   linear layer: tokens · from · to        attention: 2 · queries · keys · width (scores, and values weighted by them)
 */
import { CONDITIONING_LAYERS, type RinConfig } from "./config.js";
import { swiGluWidth } from "./feed-forward.js";

/** Multiply-adds of one sample, one forward pass. */
export interface ForwardWork {
  /** Self-attention of the latents, all layers of all blocks. */
  processers: number;
  /** Latents read the conditioning, all blocks; 0 without `useCondRinBlock`. */
  retrieveCond: number;
  /** The part of `retrieveCond` that makes keys and values of text, rewards and registers. */
  conditioningKeyValues: number;
  /** Latents read the data, all blocks. */
  retrievers: number;
  /** Data read the latents, all blocks. */
  writers: number;
  /** The two layers over text, rewards and registers. */
  conditioningTransformer: number;
  /** The feed-forward layer over the latents of an earlier pass; 0 without `useSelfConditioning`. */
  selfConditioning: number;
  textProjection: number;
  rewardEmbedders: number;
  timeEmbedder: number;
  /** Patches to data tokens and back. */
  patches: number;
}

/**
 * The work of one sample.
 * @param textTokens text tokens that the network is given, padding included
 */
export function forwardWork(config: RinConfig, textTokens: number): ForwardWork {
  const { latentsDim: L, dataDim: D, numBlocks, numTextRegisters, coherenceKeys } = config;
  const M = (config.dataSize / config.patchSize) ** 2;
  const patch = config.patchSize ** 2 * config.numInputChannels;
  const K = coherenceKeys.length;
  const C = K + numTextRegisters + textTokens;
  const N = config.concatCondTokenToLatents
    ? config.numLatents - config.numCondTokens - 1 + 1 + C // learned latents, time, conditioning
    : config.numLatents;

  const linear = (tokens: number, from: number, to: number) => tokens * from * to;
  const attention = (queries: number, keys: number, width: number) => 2 * queries * keys * width;
  const swiGlu = (tokens: number, dim: number, multiplier: number) => {
    const hidden = swiGluWidth(dim, multiplier);
    return linear(tokens, dim, 2 * hidden) + linear(tokens, hidden, dim);
  };
  const keyValues = (tokens: number, from: number, to: number) => linear(tokens, from, 2 * Math.min(from, to));
  const cross = (tokens: number, dim: number, keys: number, keyDim: number, multiplier: number) => {
    const width = Math.min(dim, keyDim);
    return (
      linear(tokens, dim, width) +
      keyValues(keys, keyDim, dim) +
      attention(tokens, keys, width) +
      linear(tokens, width, dim) +
      swiGlu(tokens, dim, multiplier)
    );
  };
  const { latentMlpMultiplier, dataMlpMultiplier } = config;
  const self = linear(N, L, 3 * L) + attention(N, N, L) + linear(N, L, L) + swiGlu(N, L, latentMlpMultiplier);
  const scalar = linear(1, L / 4, L) + linear(1, L, L);
  const read = config.useCondRinBlock ? numBlocks : 0;
  return {
    processers: numBlocks * config.numProcessingLayers * self,
    retrieveCond: read * cross(N, L, C + 1, L, latentMlpMultiplier),
    conditioningKeyValues: read * keyValues(C, L, L),
    retrievers: numBlocks * cross(N, L, M, D, latentMlpMultiplier),
    writers: numBlocks * cross(M, D, N, L, dataMlpMultiplier),
    conditioningTransformer:
      CONDITIONING_LAYERS *
      (linear(C, L, 3 * L) + attention(C, C, L) + linear(C, L, L) + linear(C, L, 4 * L) + linear(C, 4 * L, L)),
    selfConditioning: config.useSelfConditioning ? 2 * linear(N, L, latentMlpMultiplier * L) : 0,
    textProjection: linear(textTokens, config.labelDim, L),
    rewardEmbedders: K * scalar,
    timeEmbedder: scalar,
    patches: linear(M, patch, D) + linear(M, D, patch),
  };
}

/**
 * Floating-point operations (two for each multiply-add) of one sample, one forward pass.
 * @param conditioning false leaves out what depends on text and rewards alone, which a sampler computes once
 */
export function forwardFlops(config: RinConfig, textTokens: number, { conditioning = true } = {}): number {
  const { conditioningKeyValues, ...parts } = forwardWork(config, textTokens);
  const all = Object.values(parts).reduce((sum, part) => sum + part, 0);
  const once = conditioningKeyValues + parts.conditioningTransformer + parts.textProjection + parts.rewardEmbedders;
  return 2 * (conditioning ? all : all - once);
}

/**
 * Floating-point operations of one training sample: a forward pass, a backward pass of twice its work, and, with
 * `selfConditioning`, the pass without gradient that comes first. It is counted whole, as in the published figures,
 * though text and rewards are computed once for both.
 */
export function trainingFlops(config: RinConfig, textTokens: number, selfConditioning: boolean): number {
  return (selfConditioning ? 4 : 3) * forwardFlops(config, textTokens);
}
