/**
 * The signal level over time.
 *
 *   γ(t) = (end − start)·t + start,   t = 1 noise, t = 0 data
 *   γ ← γ / (γ + (1 − γ)/shift)             = shift·γ / (1 + (shift − 1)·γ), and exact at both ends
 *   γ ← max(γ, clipMin)
 *
 * Note the direction: the shift acts on γ itself, so a shift above 1 spends more steps close to the data and one below
 * 1 more of them close to the noise (upstream ignores the latter; no published checkpoint has one). With the defaults γ
 * = 1 − t, and the noisy latent is y = γ·x₀ + (1 − γ)·n.
 */
import type { Tensor } from "@miro-t2i/torch";

/** Arguments of {@link LinearSchedule}; the defaults are those of the published checkpoints. */
export interface ScheduleOptions {
  /** Constant of the line at t = 0, default 1. */
  start?: number | undefined;
  /** Value of the line at t = 1, default 0. */
  end?: number | undefined;
  /** Shift of the line, see above; 1 (the default) leaves it straight. */
  shift?: number | undefined;
  /** Lower bound of γ, default 1e-9. */
  clipMin?: number | undefined;
}

/** The linear (optionally shifted) schedule of flow matching. */
export class LinearSchedule {
  readonly start: number;
  readonly end: number;
  readonly shift: number;
  readonly clipMin: number;

  constructor({ start = 1, end = 0, shift = 1, clipMin = 1e-9 }: ScheduleOptions = {}) {
    this.start = start;
    this.end = end;
    this.shift = shift;
    this.clipMin = clipMin;
  }

  /** γ of a tensor of times, any shape; the result belongs to the enclosing scope. */
  gamma(t: Tensor): Tensor {
    let gamma = t.mul(this.end - this.start).add(this.start);
    if (this.shift !== 1) gamma = gamma.div(gamma.neg().add(1).div(this.shift).add(gamma));
    return gamma.clamp(this.clipMin, null);
  }

  /** γ of one time, rounded to float32 after every operation as the tensor version does. */
  gammaAt(t: number): number {
    const f = Math.fround;
    let gamma = f(f(f(t) * f(this.end - this.start)) + f(this.start));
    if (this.shift !== 1) gamma = f(gamma / f(f(f(1 - gamma) / f(this.shift)) + gamma));
    return Math.max(gamma, f(this.clipMin));
  }

  /** The sampling grid: γ at t = 1 − i/steps for i = 0 … steps, in float32. */
  grid(steps: number): Float32Array {
    const f = Math.fround;
    return Float32Array.from({ length: steps + 1 }, (_, i) => this.gammaAt(f(1 - f(i / steps))));
  }
}

/**
 * The shift that a picture's size asks for, by the rule of FLUX.1: larger pictures keep their large shapes visible
 * under more noise, so more steps belong near the noise.
 *
 *   μ = 0.5 + (1.15 − 0.5)·(L − 256)/(4096 − 256),   L = height·width/4 tokens of 2 × 2 latents
 *   t ← e^μ·t / (1 + (e^μ − 1)·t)                    t = 1 noise
 *
 * In terms of γ = 1 − t this is a shift of e^−μ. For 32 × 32 latents (256 pixels a side, L = 256) it is 0.61, for 128 ×
 * 128 (1024 pixels) 0.32.
 *
 * The form of the shift: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis"
 * (arXiv 2403.03206), section 5.3.2, equation 23. The constants: FLUX.1's published scheduler (`base_shift`,
 * `max_shift`, `base_image_seq_len`, `max_image_seq_len` with `use_dynamic_shifting`).
 *
 * @param height side of the latents; so is width
 */
export function dynamicShift(height: number, width: number): number {
  const tokens = (height * width) / 4;
  return Math.exp(-(0.5 + (0.65 * (tokens - 256)) / 3840));
}
