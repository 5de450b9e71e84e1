/**
 * Cheap previews: a linear map from an autoencoder's latents to colours, one pixel for each latent.
 *
 *   rgb = A·latent + b        (A, b) = argmin Σ ‖A·latent + b − meanpool(decode(latent))‖²
 *
 * The map is fitted by least squares to what the decoder itself makes of random latents, so every autoencoder has one
 * without any pictures. The latents are noise of several spatial frequencies, in the network's space with the standard
 * deviation of data: mostly large areas, with gradients and a little texture, as pictures have them (white noise alone
 * fits 5 dB worse). Such "latent RGB factors" are usually constants, found once for a published autoencoder and pasted
 * into programs.
 */
import { Generator, nn, noGrad, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { denormalize, type LatentNormalization } from "../autoencoder/normalization.js";
import { type RgbImage, toRgb } from "../pictures/rgb.js";

const { avgPool2d, conv2d, interpolate } = nn.functional;

/** Pictures that are decoded for the fit, and their side in latents. */
const SAMPLES = 16;
const SIDE = 16;
/** Standard deviation of data in the network's space. */
const STD = 0.5;

/** rgb[k] = bias[k] + Σ_c weight[k][c] · latent[c], colours in [-1, 1], raw latents. */
export interface LatentToRgb {
  weight: number[][];
  bias: number[];
}

/** Options of {@link fitLatentToRgb}. */
export interface FitLatentToRgbOptions {
  autoencoder: Autoencoder;
  /** The network's view of the latents. */
  normalization: LatentNormalization;
  device?: string;
}

/** The map that fits an autoencoder best. Decodes 16 pictures of 16 × 16 latents; the same result each time. */
export function fitLatentToRgb({ autoencoder, normalization, device = "cpu" }: FitLatentToRgbOptions): LatentToRgb {
  const C = autoencoder.latentChannels;
  const generator = new Generator("cpu").manualSeed(0);
  // Sums of products of (latents, 1) with themselves and with the colours.
  const gram = Array.from({ length: C + 1 }, () => new Float64Array(C + 1));
  const moments = Array.from({ length: C + 1 }, () => new Float64Array(3));
  for (let i = 0; i < SAMPLES; i++) {
    const [latents, colours] = scope(() =>
      noGrad(() => {
        const x = coarseToFineNoise(C, generator).mul(STD).to({ device });
        const raw = denormalize(x, normalization);
        const pooled = avgPool2d(autoencoder.decode(raw), autoencoder.downsampling);
        return [raw, pooled].map((t) => t.float().to({ device: "cpu" }).contiguous().data() as Float32Array);
      }),
    ) as [Float32Array, Float32Array];
    const n = SIDE * SIDE;
    for (let p = 0; p < n; p++) {
      const at = (c: number) => (c < C ? latents[c * n + p]! : 1);
      for (let c = 0; c <= C; c++) {
        for (let d = 0; d <= C; d++) gram[c]![d]! += at(c) * at(d);
        for (let k = 0; k < 3; k++) moments[c]![k]! += at(c) * colours[k * n + p]!;
      }
    }
  }
  const solution = solve(gram, moments); // (C + 1) × 3
  return {
    weight: [0, 1, 2].map((k) => solution.slice(0, C).map((row) => row[k]!)),
    bias: [0, 1, 2].map((k) => solution[C]![k]!),
  };
}

/** Latents in the network's space (B, C, r, r) as pictures of r × r pixels. */
export function latentsToRgb(x: Tensor, map: LatentToRgb, normalization: LatentNormalization): RgbImage[] {
  return scope(() =>
    noGrad(() => {
      const like = { dtype: "float32", device: x.device } as const;
      const weight = tensor(map.weight, like).unsqueeze(-1).unsqueeze(-1);
      const bias = tensor(map.bias, like).view(1, 3, 1, 1);
      return toRgb(conv2d(denormalize(x.float(), normalization), weight).add(bias));
    }),
  );
}

/** (1, C, SIDE, SIDE) of unit variance: noise on grids of 1, 2, 4, … cells a side, the finer the weaker. */
function coarseToFineNoise(channels: number, generator: Generator): Tensor {
  let sum: Tensor | null = null;
  let variance = 0;
  for (let side = 1; side <= SIDE; side *= 2) {
    const layer = interpolate(randn([1, channels, side, side], { generator }), { size: [SIDE, SIDE] }).mul(1 / side);
    sum = sum === null ? layer : sum.add(layer);
    variance += 1 / side ** 2;
  }
  return sum!.mul(1 / Math.sqrt(variance));
}

/** Solves A·X = B for a symmetric positive definite A, by elimination with the largest pivot. Both are overwritten. */
function solve(A: Float64Array[], B: Float64Array[]): number[][] {
  const n = A.length;
  for (let i = 0; i < n; i++) {
    let pivot = i;
    for (let r = i + 1; r < n; r++) if (Math.abs(A[r]![i]!) > Math.abs(A[pivot]![i]!)) pivot = r;
    [A[i], A[pivot]] = [A[pivot]!, A[i]!];
    [B[i], B[pivot]] = [B[pivot]!, B[i]!];
    for (let r = 0; r < n; r++) {
      if (r === i) continue;
      const factor = A[r]![i]! / A[i]![i]!;
      for (let c = i; c < n; c++) A[r]![c]! -= factor * A[i]![c]!;
      for (let k = 0; k < 3; k++) B[r]![k]! -= factor * B[i]![k]!;
    }
  }
  return B.map((row, i) => Array.from(row, (value) => value / A[i]![i]!));
}
