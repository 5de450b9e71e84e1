/** Values recorded from PyTorch by tests/reference/record_ops.py, and comparing with them. For tests only. */
import { readFileSync } from "node:fs";
import type { Tensor } from "../tensor.js";

interface EngineReference {
  random: Record<"global" | "own", Record<string, number[]>>;
  init: { functions: Record<string, number[]>; layers: Record<string, Record<string, number[]>> };
  optim: { adamw: { norm: number; params: number[][] }[] };
}

export const reference = JSON.parse(
  readFileSync(new URL("../../../../tests/reference/fixtures/engine.json", import.meta.url), "utf8"),
) as EngineReference;

/** The values in row-major order. */
export function flat(t: Tensor): number[] {
  return (t.detach().flatten().toList() as (number | boolean)[]).map(Number);
}

/** max|a − b| / max(1e-30, max|b|) */
export function relativeError(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  const difference = a.map((value, i) => Math.abs(value - b[i]!));
  return Math.max(0, ...difference) / Math.max(1e-30, ...b.map(Math.abs));
}
