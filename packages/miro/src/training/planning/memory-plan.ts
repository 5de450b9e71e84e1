/**
 * What a training step takes of a device's memory, from the recipe alone: weights, gradients, optimizer state and EMA
 * weights exactly, the tensors that the forward pass keeps for the backward pass by counting them, block by block.
 *
 * Of every linear layer its input is kept, of a norm its input, of attention queries, keys, values and output, of
 * SwiGLU both halves, the gate's SiLU and the product. Under autocast products are in half precision; residual streams
 * and the inputs of norms stay float32.
 */
import { CONDITIONING_LAYERS, parseRinConfig, type RinConfig } from "../../networks/config.js";
import { swiGluWidth } from "../../networks/feed-forward.js";
import { sourceFacts } from "../batches/sources.js";
import { planOf } from "../recipes/batch-plan.js";
import type { Recipe } from "../recipes/recipe.js";
import type { ModelSize } from "./model-size.js";

/** Bytes on each device. */
export interface MemoryPlan {
  weights: number;
  gradients: number;
  optimizer: number;
  averages: number;
  /** Half-precision copies of the weights, while a pass runs. */
  castWeights: number;
  /** Inputs of the samples of one step that the device computes, all accumulation steps together. */
  batch: number;
  /** An estimate of what the forward pass keeps, for the samples that are computed at once. */
  activations: number;
  total: number;
}

const FLOAT = 4;
const HALF = 2;

/** Memory of a step. */
export function memoryPlan(recipe: Recipe, size: ModelSize, textTokens: number): MemoryPlan {
  const config = parseRinConfig(recipe.network);
  const { batchSize, worldSize, deviceBatchSize } = planOf(recipe.trainer);
  const mixed = recipe.trainer.precision !== "32-true";
  const trainable = size.network.trainable + size.preconditioning.trainable;
  const weights = FLOAT * (trainable + size.network.buffers + size.preconditioning.buffers);
  const { halfPrecisionTexts } = sourceFacts(recipe.data, config);
  const stored = halfPrecisionTexts ? HALF : FLOAT; // text states as the data hold them
  const parts = {
    weights,
    gradients: FLOAT * trainable * (worldSize > 1 ? 2 : 1), // and the buckets that are all-reduced
    optimizer: 2 * FLOAT * trainable,
    averages: [recipe.ema.decay].flat().length * FLOAT * (size.network.trainable + size.network.buffers),
    castWeights: mixed ? HALF * size.network.trainable : 0,
    batch:
      (batchSize / worldSize) *
      (stored * textTokens * config.labelDim + FLOAT * config.numInputChannels * config.dataSize ** 2),
    activations: deviceBatchSize * activationBytes(config, textTokens, mixed),
  };
  return { ...parts, total: Object.values(parts).reduce((sum, part) => sum + part, 0) };
}

/** Bytes that the forward pass of one sample keeps for the backward pass. */
export function activationBytes(config: RinConfig, textTokens: number, mixed: boolean): number {
  const { latentsDim: L, dataDim: D, numBlocks, numProcessingLayers, numTextRegisters, coherenceKeys } = config;
  const c = mixed ? HALF : FLOAT;
  const M = (config.dataSize / config.patchSize) ** 2;
  const patch = config.patchSize ** 2 * config.numInputChannels;
  const C = coherenceKeys.length + numTextRegisters + textTokens;
  const N = config.concatCondTokenToLatents ? config.numLatents - config.numCondTokens + C : config.numLatents;

  /** The branch of a pre-norm block up to its first product: the stream, and what the norm gives. */
  const norm = (dim: number) => FLOAT * dim + c * dim;
  /** Output of a projection, and of the norm over it. */
  const normed = (width: number) => (mixed ? FLOAT : 0) * width + 2 * c * width;
  const swiGlu = (dim: number, multiplier: number) => norm(dim) + 4 * c * swiGluWidth(dim, multiplier);
  const cross = (tokens: number, dim: number, keys: number, keyDim: number, multiplier: number) => {
    const width = Math.min(dim, keyDim);
    const query = norm(dim) + normed(width) + c * width + swiGlu(dim, multiplier);
    const key = (mixed ? c * keyDim : 0) + normed(width) + c * width;
    return tokens * query + keys * key;
  };
  const self = (dim: number, multiplier: number) => norm(dim) + 2 * normed(dim) + 2 * c * dim + swiGlu(dim, multiplier);
  const block =
    (config.useCondRinBlock ? cross(N, L, C + 1, L, config.latentMlpMultiplier) : 0) +
    cross(N, L, M, D, config.latentMlpMultiplier) +
    numProcessingLayers * N * self(L, config.latentMlpMultiplier) +
    cross(M, D, N, L, config.dataMlpMultiplier);
  // GELU's hidden layer twice (before and after), the stream, norms' outputs, queries, keys, values, attention's
  // output, scaled branches.
  const conditioning = CONDITIONING_LAYERS * C * (2 * FLOAT * L + (2 + 3 + 1 + 2 + 8) * c * L);
  const selfConditioning = config.useSelfConditioning
    ? N * (3 * FLOAT * L + (1 + 2 * config.latentMlpMultiplier) * c * L)
    : 0;
  const ends = 2 * M * (FLOAT * D + c * D + c * patch) + textTokens * c * config.labelDim;
  return numBlocks * block + conditioning + selfConditioning + ends;
}
