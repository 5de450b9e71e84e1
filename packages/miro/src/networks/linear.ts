/**
 * The affine map, with what follows it in the same kernel where that is possible: on a CPU, in evaluation and without
 * gradients, oneDNN applies an activation, a product or a sum while a tile of the result is still in cache.
 */
import { call, isGradEnabled, nn, noGrad, scope, type Tensor, zeros } from "@miro-t2i/torch";

/** What is done to x Wᵀ + b: an activation, or a product or a sum with a tensor of the result's shape. */
export type Epilogue = "none" | "silu" | "gelu" | { mul: Tensor } | { add: Tensor };

export class Linear extends nn.Linear {
  /** @param parts number of equal slices of the output that {@link part} can compute on their own */
  constructor(
    inFeatures: number,
    outFeatures: number,
    { bias = true, parts = 1 }: { bias?: boolean; parts?: number } = {},
  ) {
    super(inFeatures, outFeatures, { bias });
    this.parts = parts;
  }
  private readonly parts: number;

  /** (…, in) → (…, out) */
  override forward(x: Tensor, epilogue: Epilogue = "none"): Tensor {
    if (this.parts === 1 && this.fuses(x)) return fused(x, this.weight, this.bias, epilogue);
    return apply(super.forward(x), epilogue);
  }

  /** Slice `i` of the output alone: (…, in) → (…, out / parts). Only where {@link fuses}. */
  part(i: number, x: Tensor, epilogue: Epilogue): Tensor {
    const size = this.outFeatures / this.parts;
    const weight = this.weight.narrow(0, i * size, size);
    return fused(x, weight, this.bias?.narrow(0, i * size, size) ?? null, epilogue);
  }

  /** Whether the fused kernels can be used on this input. They have no gradients. */
  fuses(x: Tensor): boolean {
    return !this.training && !isGradEnabled() && canFuse(x);
  }
}

/** The epilogue as operators of its own. */
function apply(y: Tensor, epilogue: Epilogue): Tensor {
  if (epilogue === "none") return y;
  if (epilogue === "silu") return nn.functional.silu(y);
  if (epilogue === "gelu") return nn.functional.gelu(y);
  return "mul" in epilogue ? epilogue.mul.mul(y) : epilogue.add.add(y);
}

function fused(x: Tensor, weight: Tensor, bias: Tensor | null, epilogue: Epilogue): Tensor {
  if (typeof epilogue === "string") {
    const activation = { none: "none", silu: "swish", gelu: "gelu" }[epilogue];
    return call("mkldnn::_linear_pointwise", x, weight, bias, activation, [], epilogue === "gelu" ? "none" : "");
  }
  const [other, operation] = "mul" in epilogue ? [epilogue.mul, "mul"] : [epilogue.add, "add"];
  return call("mkldnn::_linear_pointwise.binary", x, other, weight, bias, operation);
}

function canFuse(x: Tensor): boolean {
  const { dtype } = x;
  return (dtype === "float32" || dtype === "bfloat16") && x.device === "cpu" && hasOneDnn();
}

let oneDnn: boolean | undefined;

/** Whether libtorch was built with oneDNN. */
function hasOneDnn(): boolean {
  if (oneDnn === undefined) {
    try {
      noGrad(() => scope(() => void fused(zeros([1, 1]), zeros([1, 1]), null, { add: zeros([1, 1]) })));
      oneDnn = true;
    } catch {
      oneDnn = false;
    }
  }
  return oneDnn;
}
