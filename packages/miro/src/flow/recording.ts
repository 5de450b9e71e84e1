/**
 * What captured work needs: tensors that stay, into which new values are copied, and a name for structures whose values
 * can be copied into each other.
 */
import { captureGraph, GraphPool, type Replayable, Tensor } from "@miro-t2i/torch";

/** Runs `body` and gives something that repeats it on the same tensors, such as the engine's `captureGraph`. */
export type Capture = <T extends object>(body: () => T) => Replayable<T>;

/**
 * Records CUDA graphs on a device that has them. All use the same memory, so one must be done, and what it gives
 * copied, before the next one runs.
 */
export function graphsOn(device: number): Capture {
  const pool = new GraphPool();
  return (body) => captureGraph(body, { device, pool });
}

/** Texts of recorded work are padded to multiples of so many tokens: a few lengths serve all texts. */
export const RECORDED_TOKENS = 16;

/** A structure of plain objects, arrays and tensors with copies of its tensors that outlive scopes. */
export function staying<T>(value: T): T {
  if (value instanceof Tensor) return value.clone().contiguous().keep() as T;
  if (Array.isArray(value)) return value.map(staying) as T;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, staying(item)])) as T;
}

/**
 * What two structures have in common when the values of one can be copied into the other: shapes, dtypes and places.
 */
export function formOf(value: unknown): string {
  if (value instanceof Tensor) return `${value.dtype}[${value.shape}]`;
  if (value === null || typeof value !== "object") return String(value);
  return `{${Object.entries(value).map(([key, item]) => `${key}:${formOf(item)}`)}}`;
}

/** Copies the values of one structure into the tensors of another of the same form. */
export function copyInto(target: unknown, source: unknown): void {
  if (target instanceof Tensor) target.copy_(source as Tensor);
  else if (target !== null && typeof target === "object") {
    for (const [key, item] of Object.entries(target)) copyInto(item, (source as Record<string, unknown>)[key]);
  }
}
