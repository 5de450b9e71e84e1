/** The table of operators, tests/reference/ops.table.jsonl: its lines, their arguments and what PyTorch computed. */
import { readFileSync } from "node:fs";
import type { DType } from "../dtype.js";
import { float, type Tensor, tensor } from "../index.js";

/** A tensor: its shape, and which values it has. */
interface TensorSpec {
  t: number[];
  as?: string;
}
/** An argument in the order of the schema; `f` marks a number as a double. */
export type ArgumentSpec =
  | TensorSpec
  | { ts: number[][]; as?: string }
  | { f: number }
  | number
  | string
  | boolean
  | null
  | number[];
/** A line of the table. */
export interface Case {
  op: string;
  args: ArgumentSpec[];
  /** float (default): all four floating dtypes; wide: float32 and float64; integer: int64 and int32. */
  dtypes?: "float" | "wide" | "integer";
  grad?: 0;
}
/** What PyTorch computed for a line. */
export interface Recorded {
  case: string;
  outputs: { shape: number[]; values: (number | boolean)[] }[];
}

const REFERENCE = new URL("../../../../tests/reference/", import.meta.url);
const lines = (name: string): string[] => readFileSync(new URL(name, REFERENCE), "utf8").trimEnd().split("\n");
/** The lines, as text. */
export const table = lines("ops.table.jsonl");
/** What PyTorch computed for each of them. */
export const recorded = lines("fixtures/ops.expected.jsonl").map((line) => JSON.parse(line) as Recorded);

/** Dtypes that a line is computed in. */
export const DTYPES: Record<string, DType[]> = {
  float: ["float64", "float32", "bfloat16", "float16"],
  wide: ["float64", "float32"],
  integer: ["int64", "int32"],
};
/** Mirrors `values` of record_ops.py. */
function inputValues(kind: string, index: number, count: number): (number | boolean)[] {
  if (kind.startsWith("index:")) {
    return Array.from({ length: count }, (_, i) => (i * 7 + index * 3 + 1) % Number(kind.slice(6)));
  }
  const formula: Record<string, (n: number) => number | boolean> = {
    any: (n) => n / 64,
    positive: (n) => (Math.abs(n) + 16) / 64,
    nonzero: (n) => (n + (n >= 0 ? 16 : -16)) / 64,
    unit: (n) => n / 128,
    prob: (n) => (n + 128) / 256,
    bool: (n) => n % 2 === 0,
    // JavaScript's remainder takes the dividend's sign, Python's the divisor's.
    int: (n) => (((n % 11) + 11) % 11) - 5,
    positiveInt: (n) => (((n % 11) + 11) % 11) + 1,
    special: (n) => [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, n / 64][((n % 4) + 4) % 4]!,
  };
  const raw = Array.from({ length: count }, (_, i) => (((i + 1) * (37 + 18 * index) + 11 * (index + 1)) % 251) - 125);
  return raw.map(formula[kind]!);
}

function makeInput(shape: number[], kind: string, index: number, dtype: DType, device: string): Tensor {
  const values = inputValues(
    kind,
    index,
    shape.reduce((product, n) => product * n, 1),
  );
  if (kind === "bool") return tensor(values as boolean[], { shape, dtype: "bool", device });
  if (kind.startsWith("index:")) return tensor(values as number[], { shape, dtype: "int64", device });
  return tensor(values as number[], { shape, dtype, device });
}

/** The arguments of a case and, among them, its differentiable tensors. */
export function makeArguments(
  spec: Case,
  dtype: DType,
  device: string,
): { args: unknown[]; inputs: Tensor[]; all: Tensor[] } {
  const inputs: Tensor[] = [];
  const all: Tensor[] = [];
  const make = (shape: number[], kind = "any"): Tensor => {
    const made = makeInput(shape, kind, all.length, dtype, device);
    all.push(made);
    if (made.dtype === dtype && spec.dtypes !== "integer") inputs.push(made);
    return made;
  };
  const args = spec.args.map((arg) => {
    if (arg === null || typeof arg !== "object" || Array.isArray(arg)) return arg;
    if ("t" in arg) return make(arg.t, arg.as);
    if ("ts" in arg) return arg.ts.map((shape) => make(shape, arg.as));
    return float(arg.f);
  });
  return { args, inputs, all };
}
