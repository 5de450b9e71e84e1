/**
 * The samplers that exist, by name. Whatever names samplers (options, flags, prompt files, sweep axes, stored settings,
 * the documentation's table) reads them from here.
 */
import type { z } from "zod";
import { checkCount } from "../../arguments.js";
import { invalid } from "../../errors.js";
import { addModule } from "../../extension-modules.js";
import { message } from "../../message.js";
import { isDeclared, parseOptions } from "../../options.js";
import type { Method } from "../sampling.js";

const methods = new Map<string, Method>();

/**
 * Makes a sampler known.
 *
 * @param name as callers write it: lower-case letters, digits and _
 * @throws InvalidInputError when the name is taken, or the method or one of its options cannot be used
 *
 * @example
 * ```ts
 * import { registerSampler, samplerNames } from "miro-t2i";
 *
 * registerSampler("euler_twice", {
 *   order: 1,
 *   evaluations: (steps) => steps,
 *   step: ({ x, velocity, h }) => x.sub(velocity.mul(h / 2)).sub(velocity.mul(h / 2)),
 * });
 * console.log(samplerNames());
 * ```
 */
export function registerSampler<Memory extends object, Options extends object>(
  name: string,
  method: Method<Memory, Options>,
): void {
  if (typeof name !== "string" || !/^[a-z][a-z0-9_]*$/.test(name))
    throw invalid("sampler", "a name of lower-case letters, digits and _", name);
  if (typeof method?.step !== "function" || typeof method.evaluations !== "function")
    throw invalid(name, "a method { order, evaluations, step }", method);
  if (methods.has(name)) throw invalid("sampler", "a name that no sampler has", name);
  if (method.options !== undefined && !isOptions(method.options))
    throw invalid(`${name}.options`, "z.object({ … }) of options", method.options);
  for (const [key, schema] of Object.entries(method.options?.shape ?? {})) {
    if (!/^[a-z][A-Za-z0-9]*$/.test(key)) throw invalid(`${name}.options`, "options with camelCase names", key);
    if (!(schema as z.ZodType).safeParse(undefined).success)
      throw invalid(`${name}.options.${key}`, "a schema with a default", message`none`);
    if (!isDeclared(schema as z.ZodType))
      throw invalid(
        `${name}.options.${key}`,
        "an option declared by field(schema, { expected, help })",
        message`a bare schema`,
      );
  }
  addModule(`${name}.module`, method.module);
  methods.set(name, method as unknown as Method);
}

/** Whether a value is a zod object; that of another copy of zod is one too. */
function isOptions(value: unknown): boolean {
  const { shape, safeParse } = Object(value) as Partial<z.ZodObject>;
  return typeof shape === "object" && typeof safeParse === "function";
}

/** All samplers by name, in the order in which they were registered. */
export function samplers(): ReadonlyMap<string, Method> {
  return methods;
}

/** Names of all samplers, in the order in which they were registered. */
export function samplerNames(): string[] {
  return [...methods.keys()];
}

/** The method of a sampler. @throws InvalidInputError naming those that there are */
export function samplerMethod(name: string): Method {
  const method = methods.get(name);
  if (method === undefined) throw invalid("sampler", `one of ${samplerNames().join(", ")}`, name);
  return method;
}

/** How other programs call a sampler; a picture may have been drawn by one that is not registered here. */
export function samplerTitle(name: string): string {
  return methods.get(name)?.title ?? `${name[0]!.toUpperCase()}${name.slice(1)}`;
}

/** How often a sampler evaluates the model in a run of `steps` steps. */
export function evaluationsOf(sampler: string, steps: number): number {
  checkCount("steps", steps);
  return samplerMethod(sampler).evaluations(steps);
}

/** The most steps that take no more than `evaluations` evaluations; at least 1. */
export function stepsWithin(sampler: string, evaluations: number): number {
  const method = samplerMethod(sampler);
  checkCount("evaluations", evaluations);
  let [low, high] = [1, evaluations];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (method.evaluations(middle) <= evaluations) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A value of a sampler's own option. */
export type SamplerOptionValue = number | string | boolean;

/** An option that samplers have of their own. */
export interface SamplerOption {
  /** Its name, such as `eta`. */
  key: string;
  /** Of the first sampler that has it. */
  schema: z.ZodType;
  /** The samplers that have it. */
  samplers: string[];
}

/** The options that samplers have of their own, each once. */
export function samplerOptionsOfAll(): SamplerOption[] {
  const found = new Map<string, SamplerOption>();
  for (const [name, { options }] of methods) {
    for (const [key, schema] of Object.entries(options?.shape ?? {})) {
      const known = found.get(key);
      if (known) known.samplers.push(name);
      else found.set(key, { key, schema: schema as z.ZodType, samplers: [name] });
    }
  }
  return [...found.values()];
}

/** Those of some options that a sampler has; undefined where it has none of them. */
export function withOptionsOf<T extends object>(sampler: string, options: T | undefined): T | undefined {
  const known = Object.keys(samplerMethod(sampler).options?.shape ?? {});
  const own = Object.entries(options ?? {}).filter(([key]) => known.includes(key));
  return own.length > 0 ? (Object.fromEntries(own) as T) : undefined;
}

/**
 * A sampler's own options, checked, defaults filled in.
 * @throws InvalidInputError naming the option as `samplerOptions.KEY`
 */
export function checkSamplerOptions(
  sampler: string,
  given: Readonly<Record<string, unknown>> = {},
): Record<string, SamplerOptionValue> {
  const { options } = samplerMethod(sampler);
  const known = Object.keys(options?.shape ?? {});
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const own = known.length > 0 ? `its options are ${known.join(", ")}` : "it has no options";
    throw invalid(`samplerOptions.${key}`, `an option of the sampler ${sampler} (${own})`, message`another`);
  }
  if (!options) return {};
  return parseOptions(options, given, "samplerOptions") as Record<string, SamplerOptionValue>;
}
