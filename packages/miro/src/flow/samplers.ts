/**
 * Samplers of the flow: plain functions `(denoise, x, gammas, { onStep, signal })` that follow the probability-flow
 * ODE from noise (γ ≈ 0) to data (γ = 1). With y = γ·x₀ + (1 − γ)·n the velocity is v = n − x₀ = −dy/dγ.
 *
 * The state `x` is float32 throughout. Every step runs inside its own `scope()` without recording gradients, and hands
 * the event loop a turn before the next, so that a signal, a progress bar or a server is served between two steps.
 */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { release } from "./release.js";

/** Where a run is. */
export interface Progress {
  /** Index of the step, from 0. */
  step: number;
  /** Number of steps of the run. */
  steps: number;
}

/**
 * One evaluation of the model: the velocity at (x, γ) and whatever the model carries to the next step. `state` is null
 * at the first step; it is a plain object, whose tensors the sampler frees when the next state has come.
 */
export type Denoise<State extends object> = (
  x: Tensor,
  gamma: number,
  at: Progress,
  state: State | null,
) => { velocity: Tensor; state: State };

/** What a step reports. The tensors are valid until the callback (or the promise it returns) has ended. */
export interface StepReport extends Progress {
  /** Signal level at which the model was evaluated. */
  gamma: number;
  /** The state after the step, (B, C, r, r) float32. */
  x: Tensor;
  /** The model's present idea of the data, x₀ = x − (1 − γ)·v, (B, C, r, r) float32. */
  denoised: Tensor;
}

/** Options of every sampler. */
export interface SamplerOptions {
  /** Called after each step. */
  onStep?: (report: StepReport) => void | Promise<void>;
  /** Stops the run before the next step; the sampler then throws the signal's reason. */
  signal?: AbortSignal;
}

/** A sampler: from `x` (B, C, r, r) at `gammas[0]` to the state at the last of `gammas`. The caller owns the result. */
export type Sampler = <State extends object>(
  denoise: Denoise<State>,
  x: Tensor,
  gammas: ArrayLike<number>,
  options?: SamplerOptions,
) => Promise<Tensor>;

/** Euler's method: x ← x − v·(γ' − γ), one evaluation a step (spec of the published sampler). */
export async function euler<State extends object>(
  denoise: Denoise<State>,
  x: Tensor,
  gammas: ArrayLike<number>,
  { onStep, signal }: SamplerOptions = {},
): Promise<Tensor> {
  const steps = gammas.length - 1;
  let current: Tensor = scope(() => x.to("float32").clone());
  let state: State | null = null;
  try {
    for (let step = 0; step < steps; step++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      const gamma = gammas[step]!;
      const next: { x: Tensor; denoised: Tensor | null; state: State } = scope(() =>
        noGrad(() => {
          const result = denoise(current, gamma, { step, steps }, state);
          return {
            x: current.sub(result.velocity.mul(Math.fround(gammas[step + 1]! - gamma))),
            denoised: onStep ? current.sub(result.velocity.mul(Math.fround(1 - gamma))) : null,
            state: result.state,
          };
        }),
      );
      current.dispose();
      release(state);
      ({ x: current, state } = next);
      if (onStep && next.denoised) {
        try {
          await onStep({ step, steps, gamma, x: current, denoised: next.denoised });
        } finally {
          next.denoised.dispose();
        }
      }
    }
  } catch (error) {
    current.dispose();
    throw error;
  } finally {
    release(state);
  }
  return current;
}

/** The samplers by the name that options give them. */
export const SAMPLERS = { euler } satisfies Record<string, Sampler>;
