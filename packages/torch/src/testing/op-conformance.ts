/**
 * How a line of the operator table is judged: its values against those that PyTorch recorded, its gradient against
 * finite differences. The unit tests use it, and so does the check of a device, which has no test runner.
 */
import { call, type DType, grad, noGrad, scope, stack, Tensor, tensor } from "../index.js";
import { type Case, makeArguments, type Recorded } from "./op-table.js";

/** Largest |got − want| / max(1, max|want|). */
const TOLERANCE: Partial<Record<DType, number>> = { float64: 1e-11, float32: 1e-5, bfloat16: 4e-2, float16: 5e-3 };

/** The tensors of what an operator returned. */
export const outputsOf = (result: unknown): Tensor[] => (result instanceof Tensor ? [result] : (result as Tensor[]));
const valuesOf = (t: Tensor): number[] => Array.from(t.to("float64").data() as Float64Array);

/** What is wrong with the results of a line, in words; null when they have the recorded shapes and values. */
export function mismatch(got: readonly Tensor[], want: Recorded["outputs"], dtype: DType): string | null {
  const shapes = [got.map((t) => t.shape), want.map((output) => output.shape)].map((list) => JSON.stringify(list));
  if (shapes[0] !== shapes[1]) return `shapes ${shapes[0]}, recorded are ${shapes[1]}`;
  const bound = TOLERANCE[dtype] ?? 1e-6;
  for (const [i, output] of want.entries()) {
    const expected = output.values.map(Number);
    const scale = Math.max(1, ...expected.map(Math.abs));
    const error = Math.max(0, ...valuesOf(got[i]!).map((value, j) => Math.abs(value - expected[j]!))) / scale;
    if (!(error <= bound)) return `output ${i}: error ${error}, at most ${bound} is allowed`;
  }
  return null;
}

/** Calls the operator of a line in a dtype on a device. @returns as {@link mismatch} */
export function valueMismatch(spec: Case, recorded: Recorded, dtype: DType, device: string): string | null {
  return scope(() => {
    const { args } = makeArguments(spec, dtype, device);
    return mismatch(outputsOf(call(spec.op, ...args)), recorded.outputs, dtype);
  });
}

/**
 * Compares d(Σ w·out)/d(input), with fixed weights w, with central differences in float64.
 * @returns the elements that differ, in words
 */
export function gradientMismatches(spec: Case, device: string): string[] {
  return scope(() => {
    const { args, inputs } = makeArguments(spec, "float64", device);
    // Away from the grid of the inputs, where some operators have kinks.
    for (const [k, input] of inputs.entries()) input.add_(0.0031 * (k + 1));
    const weighted = (): Tensor => {
      const outputs = outputsOf(call(spec.op, ...args)).filter((output) => output.dtype === "float64");
      const sums = outputs.map((output) => {
        const weights = Array.from({ length: output.numel }, (_, j) => Math.cos(1 + 1.7 * j));
        return output.mul(tensor(weights, { shape: output.shape, dtype: "float64", device })).sum();
      });
      return stack(sums).sum();
    };
    for (const input of inputs) input.requiresGrad_();
    const gradients = grad([weighted()], inputs).map((gradient) => valuesOf(gradient!));
    const step = 1e-5;
    const wrong: string[] = [];
    noGrad(() => {
      for (const [k, input] of inputs.entries()) {
        const flat = input.detach().view(-1);
        for (let j = 0; j < flat.numel; j++) {
          const numeric = scope(() => {
            const element = flat.select(0, j);
            element.add_(step);
            const above = weighted().item() as number;
            element.sub_(2 * step);
            const below = weighted().item() as number;
            element.add_(step);
            return (above - below) / (2 * step);
          });
          const analytic = gradients[k]![j]!;
          const error = Math.abs(analytic - numeric) / Math.max(1, Math.abs(numeric));
          if (!(error < 1e-6)) wrong.push(`input ${k}, element ${j}: ${analytic} against ${numeric}`);
        }
      }
    });
    return wrong;
  });
}
