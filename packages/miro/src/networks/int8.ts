/**
 * Linear layers in 8 bits: weights with one scale for each output, inputs with one for each row, measured at each call
 * (dynamic quantisation). oneDNN multiplies unsigned by signed bytes (AVX-512 VNNI, AMX), sums in int32, and scales by
 * the weights' scales; a pass of our own over the products scales the rows, and does what follows:
 *
 *   x ≈ s·(u − 128), u in 1 … 255;   W ≈ diag(t)·V, V in −127 … 127;   x Wᵀ + b ≈ s·((u − 128) Vᵀ·diag(t)) + b
 *
 * A token may be a hundred times larger than another; with one scale for all inputs, the small ones had few levels.
 * Processors without VNNI add pairs of products in 16 bits, which two large ones leave: there x has half as many
 * levels, u in 1 … 127 around 64.
 */
import { buildInfo, call, nn, ones, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { applyEpilogue, type Epilogue } from "./fused.js";

interface Kernels {
  /** Levels of an input on each side of zero. */
  levels: number;
  /** Whether oneDNN writes products in bfloat16 on this processor; it does with AVX-512. */
  writesBfloat16: boolean;
}
let known: Kernels | undefined;

/** What the processor's kernels take and give; asked at the first use, so that an import loads no native code. */
export function kernels(): Kernels {
  if (known === undefined) {
    const { capabilities } = buildInfo();
    const levels = capabilities.some((name) => /vnni|amx/.test(name)) ? 127 : 63;
    known = { levels, writesBfloat16: capabilities.includes("avx512f") };
  }
  return known;
}

/** Below this, an input or a weight is all zeros. */
const SMALLEST = 1e-12;

/**
 * A quantised input: bytes (…, in) uint8, the value of one step of each row, and the dtype that results are to have.
 */
export interface Int8Input {
  bytes: Tensor;
  steps: Tensor;
  dtype: "float32" | "bfloat16";
}

/** Rounds to levels around zero, the largest magnitude of each row to the outermost. */
export function int8Input(x: Tensor): Int8Input {
  const dtype = x.dtype === "bfloat16" ? "bfloat16" : "float32";
  return { ...nn.functional.toBytes(x.to(dtype), kernels().levels, SMALLEST), dtype };
}

/** A weight (out, in) in int8, in oneDNN's own layout, with its bias. */
export class Int8Weight extends nn.Module {
  readonly #packed: Tensor;
  readonly #scales: Tensor;
  readonly #zeroPoints: Tensor;
  readonly #bias: Tensor | null;
  /** Of inputs: the scale that oneDNN knows of, and the byte of zero. Signed inputs take its slow reference kernel. */
  readonly #one: Tensor;
  readonly #zero: Tensor;

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
    this.#one = constant("input_scale", () => ones([]));
    this.#zero = constant("input_zero", () => tensor(kernels().levels + 1, { dtype: "int32" }));
  }

  /** (…, in) → (…, out) in the dtype of the input before it was quantised. */
  product(input: Int8Input, epilogue: Epilogue): Tensor {
    const more = typeof epilogue === "object" && "add" in epilogue ? epilogue.add : null;
    const y = nn.functional.scaleRows_(this.#products(input), input.steps, this.#bias, more).to(input.dtype);
    return more === null ? applyEpilogue(y, epilogue) : y;
  }

  /** `product(input) · SiLU(gate.product(input))`: (…, in) → (…, out) */
  gated(input: Int8Input, gate: Int8Weight): Tensor {
    const [values, gates] = [this.#products(input), gate.#products(input)];
    return nn.functional.gateRows_(values, gates, input.steps, this.#bias, gate.#bias).to(input.dtype);
  }

  /** (u − zero) Vᵀ·diag(t): (…, in) → (…, out) in the input's dtype where the processor can, else float32. */
  #products({ bytes, dtype }: Int8Input): Tensor {
    return call(
      "onednn::qlinear_pointwise.tensor",
      bytes,
      this.#one,
      this.#zero,
      this.#packed,
      this.#scales,
      this.#zeroPoints,
      null,
      1,
      0,
      kernels().writesBfloat16 ? dtype : "float32",
      "none",
      [],
      "",
    );
  }
}
