/**
 * Linear layers in 8 bits: weights with one scale for each output, inputs with one scale for the whole tensor, measured
 * at each call (dynamic quantisation). oneDNN multiplies unsigned by signed bytes (AVX-512 VNNI, AMX), sums in int32,
 * and scales, adds the bias and applies what follows in the same kernel:
 *
 *   x ≈ s·(u − 128), u in 0 … 255;   W ≈ diag(t)·V, V in −127 … 127;   x Wᵀ + b ≈ s·(u − 128) Vᵀ·diag(t) + b
 *
 * Processors without VNNI add pairs of products in 16 bits, which two large ones leave: there x has half as many
 * levels, u in 1 … 127 around 64.
 */
import { buildInfo, call, nn, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import type { Epilogue } from "./fused.js";

interface Kernels {
  /** Levels of an input on each side of zero. */
  levels: number;
  /** The byte that stands for zero. Signed inputs would need none, but fall back to oneDNN's slow reference kernel. */
  zero: number;
  /** Whether oneDNN writes results in bfloat16 on this processor; it does with AVX-512. */
  writesBfloat16: boolean;
}
let known: Kernels | undefined;

/** What the processor's kernels take and give; asked at the first use, so that an import loads no native code. */
export function kernels(): Kernels {
  if (known === undefined) {
    const { capabilities } = buildInfo();
    const levels = capabilities.some((name) => /vnni|amx/.test(name)) ? 127 : 63;
    known = { levels, zero: levels + 1, writesBfloat16: capabilities.includes("avx512f") };
  }
  return known;
}

/** Below this, an input is all zeros. */
const SMALLEST = 1e-12;

/** A quantised input: bytes (…, in) uint8, the value of one step, and the dtype that results are to have. */
export interface Int8Input {
  bytes: Tensor;
  step: Tensor;
  dtype: "float32" | "bfloat16";
}

/** Rounds to levels around zero, the largest magnitude to the outermost. */
export function int8Input(x: Tensor): Int8Input {
  const { dtype } = x;
  const { bytes, step } = nn.functional.toBytes(dtype === "bfloat16" ? x : x.float(), kernels().levels, SMALLEST);
  return { bytes, step, dtype: dtype === "bfloat16" ? dtype : "float32" };
}

/** A weight (out, in) in int8, in oneDNN's own layout, with its bias. */
export class Int8Weight extends nn.Module {
  readonly #packed: Tensor;
  readonly #scales: Tensor;
  readonly #zeroPoints: Tensor;
  readonly #bias: Tensor | null;

  constructor(weight: Tensor, bias: Tensor | null) {
    super();
    const constant = (name: string, value: () => Tensor) =>
      this.buffer(name, scope(value), { persistent: false, keepDtype: true });
    const w = () => weight.detach().float();
    this.#scales = constant("scales", () => w().abs().amax(1).clamp(SMALLEST, null).div(127));
    this.#packed = constant("packed", () =>
      call("onednn::qlinear_prepack", w().div(this.#scales.unsqueeze(1)).round().to("int8").contiguous(), null),
    );
    this.#zeroPoints = constant("zero_points", () => zeros([weight.size(0)], { dtype: "int64" }));
    this.#bias = bias && constant("bias", () => bias.detach().float().clone());
  }

  /** (…, in) → (…, out) in the dtype of the input before it was quantised. */
  product(input: Int8Input, epilogue: Epilogue): Tensor {
    if (input.dtype === "float32" || kernels().writesBfloat16) return this.#compute(input, epilogue);
    const widened: Epilogue =
      typeof epilogue === "string"
        ? epilogue
        : "mul" in epilogue
          ? { mul: epilogue.mul.float() }
          : { add: epilogue.add.float() };
    return this.#compute({ ...input, dtype: "float32" }, widened).to(input.dtype);
  }

  #compute({ bytes, step, dtype }: Int8Input, epilogue: Epilogue): Tensor {
    const packed = this.#packed;
    const scales = this.#scales;
    const zeroPoints = this.#zeroPoints;
    const bias = this.#bias;
    const zero = tensor(kernels().zero, { dtype: "int32" });
    const factors = [bytes, step, zero, packed, scales, zeroPoints];
    if (typeof epilogue === "object" && "add" in epilogue) {
      return call(
        "onednn::qlinear_pointwise.binary_tensor",
        ...factors,
        epilogue.add,
        bias,
        1,
        0,
        dtype,
        1,
        0,
        "add",
        1,
        "none",
        [],
        "",
      );
    }
    const activation =
      typeof epilogue === "string" ? { none: "none", silu: "swish", gelu: "gelu", relu: "relu" }[epilogue] : "none";
    const y: Tensor = call(
      "onednn::qlinear_pointwise.tensor",
      ...factors,
      bias,
      1,
      0,
      dtype,
      activation,
      [],
      activation === "gelu" ? "none" : "",
    );
    return typeof epilogue === "object" && "mul" in epilogue ? y.mul_(epilogue.mul) : y;
  }
}
