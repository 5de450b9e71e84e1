import { Tensor } from "@miro-t2i/torch";

/** Every tensor in a structure of arrays, plain objects and maps, the kind that `scope()` lets out. */
function* tensorsOf(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value;
  else if (Array.isArray(value)) for (const item of value) yield* tensorsOf(item);
  else if (value instanceof Map) for (const item of value.values()) yield* tensorsOf(item);
  else if (value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) yield* tensorsOf(item);
  }
}

/** Frees every tensor in a structure, but those that `kept` holds as well. */
export function release(value: unknown, kept: unknown = null): void {
  const stay = new Set(tensorsOf(kept));
  for (const tensor of tensorsOf(value)) if (!stay.has(tensor)) tensor.dispose();
}
