/**
 * Sampling: from noise (γ ≈ 0) to data (γ = 1) along a grid of signal levels, one step of a {@link Method} after
 * another.
 *
 * With y = γ·x₀ + (1 − γ)·n the velocity is v = n − x₀ = −dy/dγ, so that an ODE step has the form x ← x − h·(a mean
 * velocity) with h = γ' − γ, and the model's estimate of the data at the beginning of a step is x₀ = x − (1 − γ)·v.
 *
 * `steps` counts intervals of the grid, not evaluations of the model.
 *
 * A model may carry a state from evaluation to evaluation (a RIN its latents). It is always what the evaluation just
 * before returned, also within a step. In training the latents come from a pass over the very same input, and the last
 * evaluation is the one nearest to it.
 *
 * The state `x` is float32 throughout. A step runs without recording gradients, and yields to the event loop first. On
 * a GPU it is queued when the step two before it is done.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { noGrad, randn, scope, Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import { describe, MiroError } from "../errors.js";
import { parseOptions } from "../options.js";
import { release } from "./release.js";
import { StepsInFlight } from "./steps-in-flight.js";
import { toDevice } from "./to-device.js";

/** Where a run is. */
export interface Progress {
  /** Index of the step, from 0. */
  step: number;
  /** Number of steps of the run. */
  steps: number;
}

/** Where an evaluation is. */
export interface Evaluation extends Progress {
  /** Share of the way from γ to γ' at which the model is evaluated: 0 the step's beginning, 1 its end. */
  fraction: number;
}

/** What an evaluation gives. */
export interface VelocityOutput<State extends object> {
  /** v = n − x₀, the shape of `x`, float32. */
  velocity: Tensor;
  /** What the model carries on, a plain object. The sampler frees its tensors when the next has come. */
  state: State;
  /**
   * Set where the velocity jumps against the step before (guidance begins or ends): methods then forget what they
   * remembered.
   */
  restart?: boolean;
}

/** What a sampler follows: the velocity at (x, γ). `state` is that of the evaluation before, null at the first. */
export type VelocityModel<State extends object> = (
  x: Tensor,
  gamma: number,
  at: Evaluation,
  state: State | null,
) => VelocityOutput<State>;

/**
 * What one step of a method works with. Tensors are (B, C, r, r) float32 and freed after the step, unless remembered.
 */
export interface Step<Memory extends object = object, Options extends object = object> {
  x: Tensor;
  /** Signal level γ at the beginning of the step, and γ' at its end. */
  gamma: number;
  gammaNext: number;
  /** h = γ' − γ, rounded to float32. */
  h: number;
  last: boolean;
  /** v(x, γ). */
  velocity: Tensor;
  /** The model's estimate of the data, x₀ = x − (1 − γ)·v. */
  denoised: Tensor;
  /** What the step before remembered; null in the first step and where the velocity has jumped. */
  remembered: Memory | null;
  /** The sampler's own options, checked. */
  options: Options;
  /** Evaluates the model once more, at γ + fraction·h. */
  evaluate(x: Tensor, fraction: number): Tensor;
  /** Standard normal noise like `x`, new at each call. */
  noise(): Tensor;
}

/** A sampler's method. `registerSampler` makes it known under a name. */
export interface Method<Memory extends object = object, Options extends object = object> {
  /** Order of convergence: the error falls as (1/steps)^order. */
  readonly order: number;
  /** How other programs call it, such as `DPM++ 2M`; default: its name. */
  readonly title?: string;
  /** Options of its own, declared with `field`: camelCase names, numbers, texts or booleans, each with a default. */
  readonly options?: z.ZodObject;
  /**
   * The module that registers it, as `import.meta.url`: pipelines in threads (`worker: true`, the studio) load it too.
   * It is a file of its own, not the program.
   */
  readonly module?: string | URL;
  /** How often the model is evaluated in a run of `steps` steps. */
  evaluations(steps: number): number;
  /** The state at γ', and what the next step is to remember. */
  step(step: Step<Memory, Options>): Tensor | { x: Tensor; remember: Memory };
}

/** What a step reports. The tensors are valid until the callback (or the promise it returns) has ended. */
export interface StepReport extends Progress {
  /** Signal level at the beginning of the step. */
  gamma: number;
  /** The state after the step, (B, C, r, r) float32. */
  x: Tensor;
  /** The model's estimate of the data at the beginning of the step, x₀ = x − (1 − γ)·v, (B, C, r, r) float32. */
  denoised: Tensor;
}

/** Options of {@link sample}. */
export interface SampleOptions {
  /** Options of the method's own; those that are not given have their defaults. */
  options?: Readonly<Record<string, unknown>> | undefined;
  /** Source of the method's noise: standard normal, the shape of `x`. Default: the process-wide generator. */
  noise?: (() => Tensor) | undefined;
  /** What the state at γ' becomes before the next step, where something holds it to a condition. */
  keep?: ((x: Tensor, gamma: number) => Tensor) | null | undefined;
  /** Called after each step; on a GPU as soon as it is queued, behind one step at most that is not done. */
  onStep?: ((report: StepReport) => void | Promise<void>) | undefined;
  /** Stops the run before the next step; {@link sample} then throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What goes from step to step. */
interface Run<State extends object> {
  x: Tensor;
  state: State | null;
  memory: object | null;
}

/** Follows a model from `x` (B, C, r, r) at `gammas[0]` to the last of `gammas`. The caller owns the result. */
export async function sample<State extends object>(
  method: Method,
  model: VelocityModel<State>,
  x: Tensor,
  gammas: ArrayLike<number>,
  { options = {}, noise = () => randn(x.shape), keep, onStep, signal }: SampleOptions = {},
): Promise<Tensor> {
  const own = parseOptions(method.options ?? z.strictObject({}), options);
  const steps = gammas.length - 1;
  using inFlight = new StepsInFlight();
  let run: Run<State> = { x: scope(() => x.to("float32").clone()), state: null, memory: null };
  try {
    for (let step = 0; step < steps; step++) {
      await nextTurn();
      signal?.throwIfAborted();
      await inFlight.untilFree(signal);
      const gamma = gammas[step]!;
      const { denoised, ...next } = scope(() =>
        noGrad(() => {
          const now = beginStep(model, run, gammas, step, noise, own);
          const moved = movedBy(method.step(now.step), run.x);
          return {
            x: keep ? keep(moved.x, gammas[step + 1]!) : moved.x,
            state: now.state(),
            memory: moved.remember,
            denoised: onStep ? now.step.denoised : null,
          };
        }),
      );
      release(run, next);
      run = next;
      inFlight.queued(run.x);
      if (onStep && denoised) {
        try {
          await onStep({ step, steps, gamma, x: run.x, denoised });
        } finally {
          release(denoised, run);
        }
      }
    }
    await inFlight.done(signal);
  } catch (error) {
    release(run);
    throw error;
  }
  release([run.state, run.memory], run.x);
  return run.x;
}

/** What a step has made of `x`; methods come from anywhere. @throws MiroError for what is no state */
function movedBy(result: unknown, x: Tensor): { x: Tensor; remember: object | null } {
  const moved = result instanceof Tensor ? { x: result, remember: null } : (result as { x: Tensor; remember: object });
  const wrong = (found: string) =>
    new MiroError(`the sampler's step returned ${found}; expected the state, or { x: the state, remember }`);
  if (!(moved?.x instanceof Tensor)) throw wrong(describe(result));
  if (String(moved.x.shape) !== String(x.shape))
    throw wrong(`a tensor (${moved.x.shape.join(", ")}) where x is (${x.shape.join(", ")})`);
  return { x: moved.x, remember: moved.remember ?? null };
}

/** Evaluates the model at the beginning of a step, and lays out what the method works with. */
function beginStep<State extends object>(
  model: VelocityModel<State>,
  { x, state, memory }: Run<State>,
  gammas: ArrayLike<number>,
  step: number,
  noise: () => Tensor,
  options: object,
): { step: Step; state: () => State | null } {
  const steps = gammas.length - 1;
  const [gamma, gammaNext] = [gammas[step]!, gammas[step + 1]!];
  const h = Math.fround(gammaNext - gamma);
  const evaluate = (at: Tensor, fraction: number): VelocityOutput<State> => {
    const level = fraction === 1 ? gammaNext : fraction === 0 ? gamma : Math.fround(gamma + fraction * h);
    const output = model(at, level, { step, steps, fraction }, state);
    state = output.state;
    return output;
  };
  const { velocity, restart } = evaluate(x, 0);
  let denoised: Tensor | undefined;
  return {
    step: {
      x,
      gamma,
      gammaNext,
      h,
      velocity,
      options,
      last: step === steps - 1,
      remembered: restart ? null : memory,
      get denoised() {
        denoised ??= x.sub(velocity.mul(Math.fround(1 - gamma)));
        return denoised;
      },
      evaluate: (at, fraction) => evaluate(at, fraction).velocity,
      noise: () => toDevice({ drawn: noise().to("float32") }, x.device).drawn,
    },
    state: () => state,
  };
}
