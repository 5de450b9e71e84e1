import { Tensor } from "@miro-t2i/torch";

/** Frees every tensor in a structure of arrays, plain objects and maps, the kind that `scope()` lets out. */
export function release(value: unknown): void {
  if (value instanceof Tensor) value.dispose();
  else if (Array.isArray(value)) for (const item of value) release(item);
  else if (value instanceof Map) for (const item of value.values()) release(item);
  else if (value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) release(item);
  }
}
