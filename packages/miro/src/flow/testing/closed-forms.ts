/** Flows of which everything is known, to hold samplers against. */
import { type Tensor, tensor } from "@miro-t2i/torch";
import type { VelocityModel } from "../sampling.js";

/** The values of a tensor, in order. */
export const values = (t: Tensor): number[] => t.flatten().toList() as number[];

/**
 * The velocity E[n − x₀ | y] of one-dimensional Gaussian data N(mean, std²), of which everything is known: with
 * V(γ) = γ²·std² + (1 − γ)², noise n ends at mean + std·n.
 */
export const gaussian = (mean: number, std: number) => (y: number, gamma: number) =>
  ((1 - gamma - gamma * std ** 2) * (y - gamma * mean)) / ((gamma * std) ** 2 + (1 - gamma) ** 2) - mean;

/** A field of numbers as a model. */
export const modelOf =
  (velocity: (y: number, gamma: number) => number): VelocityModel<object> =>
  (x, gamma) => ({ velocity: tensor(values(x).map((y) => velocity(y, gamma))).view(x.shape), state: {} });

/**
 * The classical Runge-Kutta method in double precision, from γ = 0 to 1: an independent solution of the same equation.
 */
export function rungeKutta4(velocity: (y: number, gamma: number) => number, y: number, steps: number): number {
  const h = 1 / steps;
  for (let i = 0; i < steps; i++) {
    const gamma = i / steps;
    // The far end belongs to this step: a window that begins there has not begun yet.
    const end = gamma + h * (1 - 1e-9);
    const k1 = -velocity(y, gamma);
    const k2 = -velocity(y + (h / 2) * k1, gamma + h / 2);
    const k3 = -velocity(y + (h / 2) * k2, gamma + h / 2);
    const k4 = -velocity(y + h * k3, end);
    y += (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4);
  }
  return y;
}

/**
 * Numbers of steps, each twice the one before, at which a sampler shows its order. On a grid from γ = 0 to 1 the
 * logarithmic signal-to-noise ratio of dpmpp_2m runs from −∞ to ∞: its error falls as log(steps)/steps², so it takes
 * more of them.
 */
export const manySteps = (sampler: string): [number, number, number] =>
  sampler === "dpmpp_2m" ? [160, 320, 640] : [20, 40, 80];

/** The slope of log error over log steps between two numbers of steps. */
export const order = (error: (steps: number) => number, steps: number) => Math.log2(error(steps) / error(2 * steps));
