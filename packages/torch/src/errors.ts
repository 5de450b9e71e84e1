// Errors of the engine.

/**
 * Every failure of the engine: wrong arguments (refused before libtorch is called) and libtorch's own errors.
 * The message is one line that names the operator and the shapes of its tensors.
 */
export class TorchError extends Error {
  override name = "TorchError";
}

/** Runs a call of the engine whose own errors do not say what was called. */
export function naming<T>(name: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof TorchError) || error.message.startsWith(`${name}: `)) throw error;
    throw new TorchError(`${name}: ${error.message}`);
  }
}

/** A value as errors tell it: `5`, `"a"`, `an array`, `an instance of Map`. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return "an array";
  const name = value.constructor?.name ?? "Object";
  return name === "Object" ? "an object" : `an instance of ${name}`;
}
