/**
 * Coherence bins: edges over the values of a reward, and the map from a raw reward to the level in [0, 1] that the
 * network is told.
 *
 *   edges e[0] < e[1] < … < e[E-1]          bin j is (e[j], e[j+1]], the outer two are open outwards
 *   level(v) = j / (bins - 1)               bins = E - 1
 *
 * By default edges are quantiles of the sample, so that each bin holds about as many samples. The published code takes
 * quantiles of the *distinct* values instead, forces the outer edges to 0 and 1 whatever the data are, divides by the
 * number of bins that was asked for, and lets values above the last edge and NaN come out above 1: `distinct` and
 * `upstreamBins` do the same, to the bit.
 *
 * All arithmetic is float32, by the operators that the published code calls (`quantile`, `linspace`).
 */
import { aten, linspace, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { z } from "zod";
import { field, type OptionsOf, parseOptions } from "../../options.js";

/** `torch.quantile` takes no more values. */
const QUANTILE_LIMIT = 2 ** 24;

/**
 * How edges are placed: evenly from the smallest to the largest value, at quantiles, or at quantiles with finer last
 * bins.
 */
export const BIN_STRATEGIES = ["uniform", "quantile", "refined_quantile"] as const;

/** Options of {@link computeBins}. */
const binOptionsSchema = z.strictObject({
  /** Bins of each reward. Default: 64. */
  numBins: field(z.int().min(2).max(65_536).default(64), {
    expected: "an integer from 2 to 65536",
    help: "bins of each reward",
  }),
  /** Where the edges lie: uniform, quantile, or refined_quantile (the last bins divided further). Default: quantile. */
  strategy: field(z.enum(BIN_STRATEGIES).default("quantile"), {
    expected: `one of ${BIN_STRATEGIES.join(", ")}`,
    help: "where the edges lie: uniform, quantile, or refined_quantile (the last bins divided further)",
  }),
  /** With refined_quantile: how many of the last bins are divided. Default: 0. */
  refineLastNBins: field(z.int().nonnegative().default(0), {
    expected: "a non-negative integer below the number of bins",
    help: "with refined_quantile: how many of the last bins are divided",
  }),
  /** With refined_quantile: into how many parts each of them is divided. Default: 1. */
  refineFactor: field(z.int().positive().default(1), {
    expected: "a positive integer",
    help: "with refined_quantile: into how many parts each of them is divided",
  }),
  /** Quantiles of the distinct values with outer edges 0 and 1, as the published code computes them. */
  distinct: field(z.boolean().default(false), {
    expected: "true or false",
    help: "quantiles of the distinct values with outer edges 0 and 1, as the published code computes them",
  }),
});

/** Options of {@link computeBins}, defaults left out. */
export type BinOptions = OptionsOf<typeof binOptionsSchema>;

/** How many bins the options ask for, refined ones counted: what the published mapping divides by, plus one. */
export function nominalBins(options: BinOptions = {}): number {
  const { numBins, strategy, refineLastNBins, refineFactor } = parseBinOptions(options);
  return strategy === "refined_quantile" ? numBins - refineLastNBins + refineLastNBins * refineFactor : numBins;
}

/** Checks the options, also against each other. */
export function parseBinOptions(options: BinOptions): z.output<typeof binOptionsSchema> {
  return parseOptions(
    binOptionsSchema.refine(({ numBins, refineLastNBins }) => refineLastNBins < numBins, { path: ["refineLastNBins"] }),
    options,
  );
}

/**
 * The edges for the values of one reward, ascending, float32.
 *
 * @param values at most 2²⁴; what is not finite is left out (with `distinct`, one NaN spoils every edge, as in the
 *   published code)
 * @returns null where no two bins come out: no value, or the same one throughout (with `distinct`, no two different
 *   edges)
 * @throws InvalidInputError naming the wrong option, or `values` when there are too many
 */
export function computeBins(values: Float32Array | readonly number[], options: BinOptions = {}): Float32Array | null {
  const checked = parseBinOptions(options);
  const all = values instanceof Float32Array ? values : Float32Array.from(values);
  const used = checked.distinct ? all : all.filter((value) => Number.isFinite(value));
  if (used.length === 0) return null;
  return scope(() => (checked.distinct ? distinctEdges : sampleEdges)(tensor(used, { dtype: "float32" }), checked));
}

/** The published computation. */
function distinctEdges(values_N: Tensor, options: z.output<typeof binOptionsSchema>): Float32Array | null {
  const distinct = sortedDistinct(values_N);
  const [min, max] = [distinct.min().item(), distinct.max().item()];
  const bins = nominalBins(options);
  const evenly = () => linspace(min, max, bins + 1);
  const points =
    options.strategy === "uniform" || distinct.numel < bins + 1 || distinct.numel > QUANTILE_LIMIT
      ? evenly()
      : aten.quantile(distinct, quantilePositions(options));
  const edges = points.data() as Float32Array;
  edges[0] = 0;
  edges[edges.length - 1] = 1;
  const sorted = ascending(edges);
  return sorted.length < 2 ? null : sorted;
}

/**
 * Quantiles of the sample. The outer edges reach to 0 and 1, further where the data do. Inner edges at the largest
 * value would leave the last bin empty; the value before it takes their place, so that the best samples, and only they,
 * have level 1.
 */
function sampleEdges(values_N: Tensor, options: z.output<typeof binOptionsSchema>): Float32Array | null {
  const distinct = sortedDistinct(values_N).data() as Float32Array;
  const [min, max] = [distinct[0]!, distinct.at(-1)!];
  const [low, high] = [Math.min(0, min), Math.max(1, max)];
  const bins = nominalBins(options);
  const sorted = (points: Tensor) => {
    const inner = (points.data() as Float32Array).subarray(1, -1);
    const below = inner.map((edge) => (edge < max ? edge : (distinct.at(-2) ?? low)));
    return ascending([low, ...below.filter((edge) => edge > low), high]);
  };
  const evenly = () => sorted(linspace(min, max, bins + 1));
  const byQuantiles = options.strategy !== "uniform" && distinct.length >= bins + 1;
  let edges = byQuantiles ? sorted(aten.quantile(subsample(values_N), quantilePositions(options))) : evenly();
  if (edges.length < 3) edges = evenly(); // nearly all values are the smallest
  return edges.length < 3 ? null : edges;
}

/** `quantile` takes 2²⁴ values; of more, every k-th in ascending order has the same quantiles within k/N. */
function subsample(values_N: Tensor): Tensor {
  if (values_N.numel <= QUANTILE_LIMIT) return values_N;
  const [sorted] = aten.sort(values_N);
  return aten.slice_Tensor(sorted, 0, 0, null, Math.ceil(values_N.numel / QUANTILE_LIMIT)).contiguous();
}

function sortedDistinct(values_N: Tensor): Tensor {
  return aten._unique2(values_N)[0];
}

function quantilePositions(options: z.output<typeof binOptionsSchema>): Tensor {
  const { numBins, strategy, refineLastNBins, refineFactor } = options;
  if (strategy === "quantile") return linspace(0, 1, numBins + 1);
  const coarse = numBins - refineLastNBins;
  const positions = Array.from({ length: coarse + 1 }, (_, i) => i / numBins);
  const refined = refineLastNBins * refineFactor;
  const start = coarse / numBins;
  for (let j = 1; j <= refined; j++) positions.push(start + (j * (1 - start)) / refined);
  return tensor(positions, { dtype: "float32" });
}

/** Sorted as numbers, NaN last, without repetitions. */
function ascending(edges: ArrayLike<number>): Float32Array {
  const sorted = Float32Array.from(edges).sort();
  return sorted.filter((edge, i) => i === 0 || !(edge === sorted[i - 1]));
}

/** Options of `binValue`. */
export interface BinValueOptions {
  /**
   * The published mapping: divide by this number of bins minus one (see {@link nominalBins}) and do not clamp; values
   * above the last edge and NaN come out above 1.
   */
  upstreamBins?: number;
}

/**
 * The level of a raw reward.
 *
 * @param edges ascending, at least two bins (three edges)
 * @returns a multiple of 1/(bins - 1) in [0, 1], float32; NaN (unknown) for a value that is not finite
 */
export function binValue(value: number, edges: Float32Array, { upstreamBins }: BinValueOptions = {}): number {
  const v = Math.fround(value);
  if (upstreamBins !== undefined) return Math.fround(Math.max(0, edgesBelow(v, edges) - 1) / (upstreamBins - 1));
  if (!Number.isFinite(value)) return Number.NaN;
  const last = edges.length - 2;
  return Math.fround(Math.min(last, Math.max(0, edgesBelow(v, edges) - 1)) / last);
}

/** Every level that `binValue` gives by default, ascending: what a target at sampling time can be snapped to. */
export function binLevels(edges: Float32Array): Float32Array {
  const bins = edges.length - 1;
  return Float32Array.from({ length: bins }, (_, j) => j / (bins - 1));
}

/** How many edges are less than v; all of them for NaN (`torch.bucketize`). */
function edgesBelow(v: number, edges: Float32Array): number {
  let [low, high] = [0, edges.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (!(edges[middle]! >= v)) low = middle + 1;
    else high = middle;
  }
  return low;
}
