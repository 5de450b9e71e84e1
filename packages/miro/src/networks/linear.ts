/**
 * The affine map, with what follows it in the same kernel where that is possible: on a CPU, in evaluation and without
 * gradients, oneDNN applies an activation, a product or a sum while a tile of the result is still in cache.
 */
import {
  call,
  type DType,
  isAutocastEnabled,
  isGradEnabled,
  nn,
  noGrad,
  scope,
  Tensor,
  TorchError,
  zeros,
} from "@miro-t2i/torch";
import type { Epilogue } from "./epilogue.js";
import { type Int8Input, Int8Weight, int8Input } from "./int8.js";

export type { Epilogue } from "./epilogue.js";

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
  /** One for each part, once {@link quantize} was called. */
  private int8: Int8Weight[] = [];

  /** (…, in) → (…, out) */
  override forward(x: Tensor, epilogue: Epilogue = "none"): Tensor {
    if (this.int8.length === 1) return this.part(0, this.input(x), epilogue);
    if (this.int8.length > 1) throw new TorchError("Linear: quantised in parts, so it computes only part by part");
    if (this.parts === 1 && this.fuses(x)) return fused(x, this.weight, this.bias, epilogue);
    return apply(super.forward(x), epilogue);
  }

  /** What {@link part} takes: x, or x in int8 where the weight is; made once for all parts. */
  input(x: Tensor): Tensor | Int8Input {
    return this.int8.length > 0 ? int8Input(x) : x;
  }

  /** Slice `i` of the output alone: (…, in) → (…, out / parts). Only where {@link fuses}. */
  part(i: number, x: Tensor | Int8Input, epilogue: Epilogue): Tensor {
    if (!(x instanceof Tensor)) return this.int8[i]!.product(x, epilogue);
    const size = this.outFeatures / this.parts;
    const weight = this.weight.narrow(0, i * size, size);
    return fused(x, weight, this.bias?.narrow(0, i * size, size) ?? null, epilogue);
  }

  /** Whether the fused kernels can be used on this input. They have no gradients, and autocast does not know them. */
  fuses(x: Tensor): boolean {
    return this.int8.length > 0 || (!this.training && !isGradEnabled() && !isAutocastEnabled() && canFuse(x));
  }

  /** Replaces the weight by one in int8 and frees it: from here on the layer can only be evaluated, on a CPU. */
  quantize(): void {
    if (this.int8.length > 0) return;
    const size = this.outFeatures / this.parts;
    this.int8 = Array.from({ length: this.parts }, (_, i) =>
      this.register(
        `int8_${i}`,
        new Int8Weight(this.weight.narrow(0, i * size, size), this.bias?.narrow(0, i * size, size) ?? null),
      ),
    );
    this.weight.dispose();
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
  return (dtype === "float32" || dtype === "bfloat16") && x.device === "cpu" && hasKernel(dtype);
}

const kernels = new Map<DType, boolean>();

/** Whether libtorch was built with oneDNN, and oneDNN has kernels of a dtype for this processor: bfloat16 needs AVX-512. */
function hasKernel(dtype: DType): boolean {
  let has = kernels.get(dtype);
  if (has === undefined) {
    try {
      noGrad(() =>
        scope(() => {
          const one = zeros([1, 1], { dtype });
          fused(one, one, null, { add: one });
        }),
      );
      has = true;
    } catch {
      has = false;
    }
    kernels.set(dtype, has);
  }
  return has;
}
