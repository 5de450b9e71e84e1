/** The affine map, in any of the ways in which its weight may stand in memory. */
import { nn, type Tensor, TorchError } from "@miro-t2i/torch";
import { applyEpilogue, canFuse, type Epilogue, fusedLinear } from "./fused.js";
import { Int8Weight, int8Input } from "./int8.js";

export class Linear extends nn.Linear {
  /** @param parts number of equal slices of the output that are computed on their own, for {@link gated} */
  constructor(
    inFeatures: number,
    outFeatures: number,
    { bias = true, parts = 1 }: { bias?: boolean; parts?: number } = {},
  ) {
    super(inFeatures, outFeatures, { bias });
    this.#parts = parts;
  }
  readonly #parts: number;
  /** One for each part, once {@link quantize} was called. */
  #int8: Int8Weight[] = [];

  /** (…, in) → (…, out) */
  override forward(x: Tensor, epilogue: Epilogue = "none"): Tensor {
    if (this.#int8.length === 1) return this.#int8[0]!.product(int8Input(x), epilogue);
    if (this.#int8.length > 1) throw new TorchError("Linear: quantised in parts, so it computes only part by part");
    if (this.#parts === 1 && this.#fuses(x)) return fusedLinear(x, this.weight, this.bias, epilogue);
    return applyEpilogue(super.forward(x), epilogue);
  }

  /** `value · SiLU(gate)`, where `[value, gate]` are the two halves of the output: (…, in) → (…, out / 2) */
  gated(x: Tensor): Tensor {
    const [byValue, byGate] = this.#int8;
    if (byValue !== undefined && byGate !== undefined) return byValue.gated(int8Input(x), byGate);
    if (this.#fuses(x)) return this.#part(0, x, { mul: this.#part(1, x, "silu") });
    return nn.functional.swiGlu(this.forward(x));
  }

  #fuses(x: Tensor): boolean {
    return !this.training && canFuse(x);
  }

  /** Slice `i` of the output alone: (…, in) → (…, out / parts). Only where {@link fuses}. */
  #part(i: number, x: Tensor, epilogue: Epilogue): Tensor {
    const size = this.outFeatures / this.#parts;
    const weight = this.weight.narrow(0, i * size, size);
    return fusedLinear(x, weight, this.bias?.narrow(0, i * size, size) ?? null, epilogue);
  }

  /** Replaces the weight by one in int8 and frees it: from here on the layer can only be evaluated, on a CPU. */
  quantize(): void {
    if (this.#int8.length > 0) return;
    const size = this.outFeatures / this.#parts;
    this.#int8 = Array.from({ length: this.#parts }, (_, i) =>
      this.register(
        `int8_${i}`,
        new Int8Weight(this.weight.narrow(0, i * size, size), this.bias?.narrow(0, i * size, size) ?? null),
      ),
    );
    this.weight.dispose();
  }
}
