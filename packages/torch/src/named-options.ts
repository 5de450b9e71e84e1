// Arguments that are given by name, in an object.
import { TorchError } from "./errors.js";

/** Whether an argument holds the remaining ones by name. */
export function isOptions(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * The arguments that were given by name. A name that the function does not have is an error: a misspelt one would be
 * left out in silence.
 */
export function options<T extends object>(name: string, given: T, names: readonly string[]): T {
  if (typeof given !== "object" || given === null)
    throw new TorchError(`${name}: expected an object with ${names.join(", ")}, got ${given}`);
  for (const key of Object.keys(given)) {
    if (!names.includes(key)) {
      throw new TorchError(`${name}: there is no option '${key}'; expected ${names.join(", ")}`);
    }
  }
  return given;
}
