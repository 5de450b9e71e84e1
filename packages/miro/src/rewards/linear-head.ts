/**
 * The head of the aesthetic predictor (Schuhmann 2022, trained on SAC, LAION-Logos and AVA), which ImageReward has too:
 * five linear layers with nothing but dropout between them, so one affine map when it is evaluated. It is folded in
 * float64:
 *
 *   w = W₇ W₆ W₄ W₂ W₀,  b = W₇ (W₆ (W₄ (W₂ b₀ + b₂) + b₄) + b₆) + b₇
 */
import { empty, scope, type Tensor } from "@miro-t2i/torch";
import type { TensorFile } from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";

/** Places of the layers; dropout stands between them. */
const LAYERS = [0, 2, 4, 6, 7];

/** Folded: f → f · weight + bias, in float64 on the CPU. */
export interface LinearHead {
  /** (in) */
  weight: Tensor;
  /** Score of a feature of zeros. */
  bias: number;
}

/**
 * Reads and folds a head.
 *
 * @param prefix of the layers' names, `layers`
 * @param width of what goes in
 * @param widths outputs of the layers; absent: as the file has them, the last one 1
 * @throws MiroError naming the file and the tensor
 */
export function readLinearHead(
  file: TensorFile,
  prefix: string,
  width: number,
  widths?: readonly number[],
): LinearHead {
  const names = LAYERS.flatMap((layer) => ["weight", "bias"].map((end) => `${prefix}.${layer}.${end}`));
  const missing = names.filter((name) => !file.has(name));
  const unexpected = file.keys().filter((key) => !names.includes(key));
  const problems = [
    missing.length > 0 ? `missing: ${missing.slice(0, 4).join(", ")}` : "",
    unexpected.length > 0 ? `not part of it: ${unexpected.slice(0, 4).join(", ")}` : "",
  ].filter((text) => text !== "");
  if (problems.length > 0) throw new MiroError(`${file.path}: not the head of a scorer: ${problems.join("; ")}`);
  let inputs = width;
  const shapes = new Map<string, readonly number[]>();
  for (const [i, layer] of LAYERS.entries()) {
    const [weight, bias] = [`${prefix}.${layer}.weight`, `${prefix}.${layer}.bias`] as const;
    const { shape } = file.info(weight);
    const outputs = layer === LAYERS.at(-1) ? 1 : (widths?.[i] ?? shape[0] ?? 0);
    for (const [name, expected] of [
      [weight, [outputs, inputs]],
      [bias, [outputs]],
    ] as const) {
      const found = file.info(name).shape;
      if (String(found) !== String(expected))
        throw new MiroError(`${file.path}: ${name}: expected [${expected}], found [${found}]`);
      shapes.set(name, found);
    }
    inputs = outputs;
  }
  return scope(() => {
    const read = (name: string) => {
      const values = empty(shapes.get(name)! as number[], { dtype: "float64" });
      file.copyTo(name, values);
      return values;
    };
    let weight = read(`${prefix}.0.weight`);
    let bias = read(`${prefix}.0.bias`);
    for (const layer of LAYERS.slice(1)) {
      const next = read(`${prefix}.${layer}.weight`);
      weight = next.matmul(weight);
      bias = next.matmul(bias).add(read(`${prefix}.${layer}.bias`));
    }
    return { weight: weight.select(0, 0).contiguous().keep(), bias: bias.item() };
  });
}
