/**
 * Samplers of the flow: plain functions `(denoise, x, gammas, { onStep, signal })` that follow the probability-flow
 * ODE from noise (γ ≈ 0) to data (γ = 1). With y = γ·x₀ + (1 − γ)·n the velocity is v = n − x₀ = −dy/dγ, so that every
 * step has the form x ← x − h·(a mean velocity), h = γ' − γ.
 *
 * | sampler    | evaluations of the model  | order | where the velocity of a step comes from                      |
 * | ---------- | ------------------------- | ----- | ------------------------------------------------------------ |
 * | `euler`    | 1 a step                  | 1     | the beginning of the step                                    |
 * | `ab2`      | 1 a step                  | 2     | the beginnings of this step and of the one before it         |
 * | `midpoint` | 2 a step                  | 2     | the middle of the step, found with half an Euler step        |
 * | `heun`     | 2 a step, 1 in the last   | 2     | the mean of both ends, the far one found with an Euler step  |
 *
 * `steps` always counts intervals of the grid, not evaluations: see {@link evaluationsOf} and {@link stepsWithin}.
 *
 * A model may carry something from evaluation to evaluation (a RIN its latents). It is always what the evaluation just
 * before returned, within a step and over its end, whatever became of its velocity: in training the latents come from a
 * pass over the very same input, and the last evaluation is the one nearest to it (Heun's second one even has the next step's
 * γ). Handing every evaluation of a step the latents of the step's beginning instead leaves them a whole step behind:
 * with the self-conditioned network of the test recordings that is 1.5 to 2 times as far from the solution, at 5, 10 and 20 steps,
 * for both methods. Carried latents lag behind the state by about a step either way: with them Heun's and the midpoint method
 * converge with order 1, too.
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

/** Where an evaluation is. */
export interface Evaluation extends Progress {
  /** Share of the step's way from γ to γ' at which the model is evaluated: 0 its beginning, 1 its end. */
  fraction: number;
}

/** What an evaluation gives. */
export interface Denoised<State extends object> {
  /** v = n − x₀, the shape of `x`, float32. */
  velocity: Tensor;
  /** What the model carries on, a plain object; the sampler frees its tensors when the next has come. */
  state: State;
  /** Set where the velocity has a jump against the step before (guidance sets in or ends): methods that look back must not. */
  restart?: boolean;
}

/** One evaluation of the model at (x, γ). `state` is that of the evaluation before, null at the first. */
export type Denoise<State extends object> = (
  x: Tensor,
  gamma: number,
  at: Evaluation,
  state: State | null,
) => Denoised<State>;

/** What a step reports. The tensors are valid until the callback (or the promise it returns) has ended. */
export interface StepReport extends Progress {
  /** Signal level at the beginning of the step. */
  gamma: number;
  /** The state after the step, (B, C, r, r) float32. */
  x: Tensor;
  /** The model's idea of the data at the beginning of the step, x₀ = x − (1 − γ)·v, (B, C, r, r) float32. */
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

/** A velocity at the beginning of the step before, and how far that step went. */
interface Past {
  velocity: Tensor;
  h: number;
}

/** What one step of a method works with. */
interface Step {
  x: Tensor;
  /** v(x, γ), already evaluated. */
  velocity: Tensor;
  /** h = γ' − γ, float32. */
  h: number;
  last: boolean;
  /** Null in the first step and where the velocity has jumped. */
  past: Past | null;
  /** Evaluates the model once more, at γ + fraction·h. */
  evaluate: (x: Tensor, fraction: number) => Tensor;
}

/**
 * Euler's method, x ← x − h·v(x, γ): the sampler of the published implementation.
 *
 * Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364), section 3, compare it
 * with Heun's.
 */
export const euler: Sampler = (denoise, x, gammas, options) =>
  follow(denoise, x, gammas, options, ({ x, velocity, h }) => advance(x, velocity, h));

/**
 * Heun's method (the explicit trapezoidal rule): x̃ = x − h·v(x, γ), x ← x − h·½·(v(x, γ) + v(x̃, γ')).
 *
 * The last step is Euler's, as in Karras et al. (arXiv 2206.00364), algorithm 1: its far end is γ = 1, where the model has hardly been
 * trained. One step of a lower order at the end leaves the order of the whole at 2.
 */
export const heun: Sampler = (denoise, x, gammas, options) =>
  follow(denoise, x, gammas, options, ({ x, velocity, h, last, evaluate }) => {
    if (last) return advance(x, velocity, h);
    const far = evaluate(advance(x, velocity, h), 1);
    return advance(x, velocity.add(far), Math.fround(h / 2));
  });

/**
 * The midpoint method: x ← x − h·v(x − ½·h·v(x, γ), γ + ½·h).
 *
 * "DPM-Solver-2" is its counterpart for another parametrisation (Lu et al., arXiv 2206.00927); Lipman et al., "Flow Matching for
 * Generative Modeling" (arXiv 2210.02747), sample with it.
 */
export const midpoint: Sampler = (denoise, x, gammas, options) =>
  follow(denoise, x, gammas, options, ({ x, velocity, h, evaluate }) =>
    advance(x, evaluate(advance(x, velocity, Math.fround(h / 2)), 0.5), h),
  );

/**
 * The two-step method of Adams and Bashforth for steps of any length: with r = h / (2·h₋), h₋ the step before and v₋ its velocity,
 *
 *   x ← x − h·((1 + r)·v − r·v₋)
 *
 * One evaluation a step. The first step, and the one after a jump of the velocity, is Euler's.
 *
 * Hairer, Nørsett and Wanner, "Solving Ordinary Differential Equations I", section III.5 (variable steps).
 */
export const ab2: Sampler = (denoise, x, gammas, options) =>
  follow(denoise, x, gammas, options, ({ x, velocity, h, past }) => {
    if (past === null) return advance(x, velocity, h);
    const r = h / (2 * past.h);
    return advance(x, velocity.mul(1 + r).sub(past.velocity.mul(r)), h);
  });

/** The samplers by the name that options give them. */
export const SAMPLERS = { euler, heun, midpoint, ab2 } satisfies Record<string, Sampler>;

/** Name of a sampler. */
export type SamplerName = keyof typeof SAMPLERS;

/** How often a sampler evaluates the model in a run of `steps` steps. */
export function evaluationsOf(sampler: SamplerName, steps: number): number {
  if (sampler === "heun") return 2 * steps - 1;
  return sampler === "midpoint" ? 2 * steps : steps;
}

/** The most steps that take no more than `evaluations` evaluations; at least 1. */
export function stepsWithin(sampler: SamplerName, evaluations: number): number {
  const steps =
    sampler === "heun"
      ? Math.floor((evaluations + 1) / 2)
      : sampler === "midpoint"
        ? Math.floor(evaluations / 2)
        : Math.floor(evaluations);
  return Math.max(1, steps);
}

/** x − h·v */
function advance(x: Tensor, velocity: Tensor, h: number): Tensor {
  return x.sub(velocity.mul(h));
}

/** Runs a method over the grid. Each step begins with an evaluation at its beginning; `method` makes the new state of it. */
async function follow<State extends object>(
  denoise: Denoise<State>,
  x: Tensor,
  gammas: ArrayLike<number>,
  { onStep, signal }: SamplerOptions = {},
  method: (step: Step) => Tensor,
): Promise<Tensor> {
  const steps = gammas.length - 1;
  let run: { x: Tensor; state: State | null; past: Past | null } = {
    x: scope(() => x.to("float32").clone()),
    state: null,
    past: null,
  };
  try {
    for (let step = 0; step < steps; step++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      const gamma = gammas[step]!;
      const next = scope(() =>
        noGrad(() => {
          const h = Math.fround(gammas[step + 1]! - gamma);
          let { state } = run;
          const evaluate = (at: Tensor, fraction: number): Denoised<State> => {
            const level =
              fraction === 1 ? gammas[step + 1]! : fraction === 0 ? gamma : Math.fround(gamma + fraction * h);
            const result = denoise(at, level, { step, steps, fraction }, state);
            state = result.state;
            return result;
          };
          const { velocity, restart } = evaluate(run.x, 0);
          const moved = method({
            x: run.x,
            velocity,
            h,
            last: step === steps - 1,
            past: restart ? null : run.past,
            evaluate: (at, fraction) => evaluate(at, fraction).velocity,
          });
          return {
            x: moved,
            denoised: onStep ? run.x.sub(velocity.mul(Math.fround(1 - gamma))) : null,
            state,
            past: { velocity, h },
          };
        }),
      );
      release(run);
      const { denoised } = next;
      run = next;
      if (onStep && denoised) {
        try {
          await onStep({ step, steps, gamma, x: run.x, denoised });
        } finally {
          denoised.dispose();
        }
      }
    }
    const result = run.x;
    release([run.state, run.past]);
    return result;
  } catch (error) {
    release(run);
    throw error;
  }
}
