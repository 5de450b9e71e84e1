// Deterministic freeing: everything that is made inside a scope is freed at its end, except what leaves it.
import { TorchError } from "./errors.js";
import { collectWhenDue } from "./memory.js";
import { native } from "./native.js";
import { enterScope, leaveScope, scopeDepth } from "./scope-stack.js";
import { Tensor } from "./tensor.js";

/**
 * Runs `body` and frees every tensor that was made inside, except those in its result (found in arrays, plain objects,
 * Maps and Sets, nested) and those marked with `keep()`. What leaves belongs to the enclosing scope.
 *
 * @param body synchronous: a promise would be fulfilled after its tensors were freed
 * @returns what `body` gives
 * @throws TorchError when `body` returns a promise
 *
 * @example
 * ```ts
 * const loss = scope(() => x.sub(y).square().mean()); // the difference and its square are freed here
 * ```
 */
export function scope<T>(body: () => T): T {
  enterScope();
  let escaping: Tensor[] = [];
  let result: T;
  try {
    result = body();
    if (result instanceof Promise)
      throw new TorchError("scope() needs a synchronous function, got one that returns a promise");
    escaping = tensorsIn(result);
  } finally {
    leaveScope(escaping.map((t) => t.handle));
    if (scopeDepth() === 0) {
      for (const t of escaping) native.track(t.handle, t);
      collectWhenDue();
    }
  }
  return result;
}

function tensorsIn(value: unknown, found: Tensor[] = [], seen = new Set<object>()): Tensor[] {
  if (value instanceof Tensor) {
    found.push(value);
  } else if (typeof value === "object" && value !== null && !seen.has(value)) {
    seen.add(value);
    if (Array.isArray(value) || value instanceof Set) {
      for (const item of value) tensorsIn(item, found, seen);
    } else if (value instanceof Map) {
      for (const item of value.values()) tensorsIn(item, found, seen);
    } else if (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null) {
      for (const item of Object.values(value)) tensorsIn(item, found, seen);
    }
  }
  return found;
}
