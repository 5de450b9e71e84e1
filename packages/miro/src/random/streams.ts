/**
 * Every stream of random numbers by name. Two draws that must not depend on each other have different numbers here; a
 * run is repeatable and resumable because each draw follows from the seed, the stream and the place (step, row, epoch,
 * sample) alone.
 *
 * The numbers are part of every stored run: adding a stream is safe, changing a number changes what seeds mean.
 */

/** Streams of tensor generators and of the process-wide generator, seeded by {@link streamSeed}. */
export const TENSOR_STREAMS = {
  initialWeights: 0,
  /** Batches of random data, by step. */
  randomBatch: 1,
  /** Everything that a part around the network (autoencoder, text encoder) draws in a step. */
  partStep: 1,
  /** The process-wide generator in a step: dropout of rewards and layers inside the network, by step and first row. */
  networkDropout: 2,
  /** What the loss draws for the whole batch: times, dropped conditions; by step. */
  lossBatch: 3,
  /** The order of cached latents, by pass. */
  latentOrder: 4,
  /** Noise and times of a validation batch. */
  validation: 5,
  /** The noise of one row of a batch, by step and row. */
  rowNoise: 6,
} as const;
export type TensorStream = keyof typeof TENSOR_STREAMS;

/** Streams of permutations; see `Permutation`. */
export const PERMUTATION_STREAMS = {
  /** All samples of an epoch. */
  epochSamples: 1,
  /** The samples of a window of shards. */
  windowSamples: 2,
  /** The shards of an epoch. */
  epochShards: 3,
  /** Which sample stands in for one that cannot be read, in the loader. */
  unreadableSample: 4,
  /** The blocks of an epoch, and the samples of a block. */
  epochBlocks: 11,
  blockSamples: 12,
  /** Which data set comes when in a mixture. */
  mixture: 13,
  /** Which selected sample stands in for one that cannot be read, in training. */
  unreadableRow: 21,
} as const;
export type PermutationStream = keyof typeof PERMUTATION_STREAMS;

/** What a counter-based draw of a sample decides; see philox.ts. */
export const SAMPLE_DRAWS = { caption: 1, latent: 2, evaluation: 3 } as const;
export type SampleDraw = keyof typeof SAMPLE_DRAWS;

/** A seed that depends on everything it is given (splitmix64's mixing function); below 2⁵³. */
export function mixSeed(...parts: (number | bigint)[]): number {
  let state = 0x9e3779b97f4a7c15n;
  for (const part of parts) {
    state = BigInt.asUintN(64, state + BigInt(part) * 0xbf58476d1ce4e5b9n + 0x9e3779b97f4a7c15n);
    state = BigInt.asUintN(64, (state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n);
    state = BigInt.asUintN(64, (state ^ (state >> 27n)) * 0x94d049bb133111ebn);
    state ^= state >> 31n;
  }
  return Number(state >> 11n);
}

/**
 * The seed of a stream at a place.
 *
 * @param place non-negative integers that say where in the run the draw belongs: the step, then the row or batch
 */
export function streamSeed(seed: number, stream: TensorStream, ...place: number[]): number {
  return mixSeed(seed, TENSOR_STREAMS[stream], ...place);
}
