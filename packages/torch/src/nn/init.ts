/**
 * Initialisers with the random draws of `torch.nn.init`: the same seed gives the same values as PyTorch 2.13.
 *
 * Each fills its tensor in place without recording a gradient and returns it.
 */
import { noGrad } from "../autograd.js";
import { emptyLike, full, where } from "../creation.js";
import { TorchError } from "../errors.js";
import { options as known } from "../named-options.js";
import type { Generator } from "../random.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** Options of every random initialiser. */
export interface InitOptions {
  /** Source of the draws (default: the global generator). */
  generator?: Generator | undefined;
}

const NAMES = ["generator"];

let skipping = false;

/**
 * Runs `build` with every random initialiser of this file turned off: for networks whose values are loaded right after,
 * where drawing them would cost more than reading the file. Constants are still set.
 */
export function skipped<T>(build: () => T): T {
  const before = skipping;
  skipping = true;
  try {
    return build();
  } finally {
    skipping = before;
  }
}

/** U(low, high). PyTorch: `init.uniform_`. */
export function uniform_(tensor: Tensor, low = 0, high = 1, options: InitOptions = {}): Tensor {
  const { generator } = known("uniform_", options, NAMES);
  if (!skipping) noGrad(() => tensor.uniform_(low, high, generator));
  return tensor;
}

/** N(mean, std²). PyTorch: `init.normal_`. */
export function normal_(tensor: Tensor, mean = 0, std = 1, options: InitOptions = {}): Tensor {
  const { generator } = known("normal_", options, NAMES);
  if (!skipping) noGrad(() => tensor.normal_(mean, std, generator));
  return tensor;
}

/** Sets every element to 0. PyTorch: `init.zeros_`. */
export function zeros_(tensor: Tensor): Tensor {
  noGrad(() => tensor.zero_());
  return tensor;
}

/** Sets every element to 1. PyTorch: `init.ones_`. */
export function ones_(tensor: Tensor): Tensor {
  return constant_(tensor, 1);
}

/** Sets every element to `value`. PyTorch: `init.constant_`. */
function constant_(tensor: Tensor, value: number): Tensor {
  noGrad(() => tensor.fill_(value));
  return tensor;
}

/** Options of {@link truncNormal_}. */
export interface TruncNormalOptions extends InitOptions {
  /** Of the distribution before it is cut; default 0. */
  mean?: number | undefined;
  /** Of the distribution before it is cut; default 1. */
  std?: number | undefined;
  /** Lower bound, in the units of the values (not of standard deviations); default −2. */
  a?: number | undefined;
  /** Upper bound; default 2. */
  b?: number | undefined;
}

/**
 * N(mean, std²) restricted to [a, b], by rejection as PyTorch 2.13 does it: normal draws where [a, b] holds more than
 * 30 % of the mass, uniform draws accepted against the density otherwise. (Releases before drew one uniform through
 * `erfinv`.)
 */
export function truncNormal_(tensor: Tensor, options: TruncNormalOptions = {}): Tensor {
  const names = [...NAMES, "mean", "std", "a", "b"];
  const { mean = 0, std = 1, a = -2, b = 2, ...source } = known("truncNormal_", options, names);
  if (!(a < b)) throw new TorchError(`truncNormal_: a must be below b, got a=${a}, b=${b}`);
  if (skipping) return tensor;
  noGrad(() => scope(() => drawTruncNormal(tensor, mean, std, a, b, source)));
  return tensor;
}

function drawTruncNormal(tensor: Tensor, mean: number, std: number, a: number, b: number, options: InitOptions): void {
  const mass = normalCdf((b - mean) / std) - normalCdf((a - mean) / std);
  if (mass > 0.3) {
    // The bounds as the tensor's dtype holds them, so that the mask agrees with representable values.
    const low = full([], a, { dtype: tensor.dtype }).item();
    const high = full([], b, { dtype: tensor.dtype }).item();
    let result = tensor.normal_(mean, std, options.generator);
    for (;;) {
      const outside = result.lt(low).logicalOr(result.gt(high));
      if (!outside.any().item()) break;
      result = where(outside, emptyLike(result).normal_(mean, std, options.generator), result);
    }
    if (result !== tensor) tensor.copy_(result);
    return;
  }
  const mode = Math.max(a, Math.min(mean, b));
  const logPeak = -0.5 * ((mode - mean) / std) ** 2;
  const candidates = emptyLike(tensor);
  const accept = emptyLike(tensor);
  /** Whether a uniform draw lies above the density of the candidates, relative to its peak. */
  const rejected = (): Tensor => {
    const logDensity = candidates.sub(mean).div(std).square().mul(-0.5).sub(logPeak);
    return accept.uniform_(0, 1, options.generator).log().gt(logDensity);
  };
  candidates.copy_(tensor.uniform_(a, b, options.generator));
  let result = tensor;
  let pending = rejected();
  while (pending.any().item()) {
    candidates.uniform_(a, b, options.generator);
    result = where(pending, candidates, result);
    pending = rejected().logicalAnd(pending);
  }
  if (result !== tensor) tensor.copy_(result);
}

/** The standard normal distribution function, exact to float64. */
function normalCdf(x: number): number {
  return (
    (1 +
      (full([], x / Math.SQRT2, { dtype: "float64" })
        .erf()
        .item() as number)) /
    2
  );
}

/** Options of {@link xavierUniform_} and {@link xavierNormal_}. */
export interface XavierOptions extends InitOptions {
  /** Factor of the standard deviation; default 1. */
  gain?: number | undefined;
}

const XAVIER = [...NAMES, "gain"];

/** Glorot and Bengio (2010): U(−s, s) with s = gain·√(6 / (fanIn + fanOut)). */
export function xavierUniform_(tensor: Tensor, options: XavierOptions = {}): Tensor {
  const { gain = 1, ...source } = known("xavierUniform_", options, XAVIER);
  const { fanIn, fanOut } = fans(tensor);
  // In PyTorch's order of operations: the bound must round as there.
  const std = gain * Math.sqrt(2 / (fanIn + fanOut));
  const bound = Math.sqrt(3) * std;
  return uniform_(tensor, -bound, bound, source);
}

/** Glorot and Bengio (2010): N(0, s²) with s = gain·√(2 / (fanIn + fanOut)). */
export function xavierNormal_(tensor: Tensor, options: XavierOptions = {}): Tensor {
  const { gain = 1, ...source } = known("xavierNormal_", options, XAVIER);
  const { fanIn, fanOut } = fans(tensor);
  return normal_(tensor, 0, gain * Math.sqrt(2 / (fanIn + fanOut)), source);
}

/** Options of {@link kaimingUniform_} and {@link kaimingNormal_}. */
export interface KaimingOptions extends InitOptions {
  /** Negative slope of the leaky rectifier that follows; default 0. */
  a?: number | undefined;
  /** Keeps the variance of the forward pass (fanIn, the default) or of the backward pass (fanOut). */
  mode?: "fanIn" | "fanOut" | undefined;
  /** What follows; default leakyRelu. */
  nonlinearity?: "leakyRelu" | "relu" | "linear" | undefined;
}

const KAIMING = [...NAMES, "a", "mode", "nonlinearity"];

/** He et al. (2015): U(−s, s) with s = √3·gain/√fan. */
export function kaimingUniform_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  const { generator, ...how } = known("kaimingUniform_", options, KAIMING);
  if (tensor.numel === 0) return tensor;
  const bound = Math.sqrt(3) * kaimingStd(tensor, how);
  return uniform_(tensor, -bound, bound, { generator });
}

/** He et al. (2015): N(0, gain²/fan). */
export function kaimingNormal_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  const { generator, ...how } = known("kaimingNormal_", options, KAIMING);
  if (tensor.numel === 0) return tensor;
  return normal_(tensor, 0, kaimingStd(tensor, how), { generator });
}

function kaimingStd(tensor: Tensor, { a = 0, mode = "fanIn", nonlinearity = "leakyRelu" }: KaimingOptions): number {
  const gains = { leakyRelu: Math.sqrt(2 / (1 + a ** 2)), relu: Math.sqrt(2), linear: 1 };
  return oneOf("nonlinearity", gains, nonlinearity) / Math.sqrt(oneOf("mode", fans(tensor), mode));
}

/** The value of a name. @throws TorchError for another name */
function oneOf<T>(option: string, values: Readonly<Record<string, T>>, name: string): T {
  if (Object.hasOwn(values, name)) return values[name]!;
  throw new TorchError(`${option} must be one of ${Object.keys(values).join(", ")}, got ${String(name)}`);
}

/** Inputs and outputs of one unit: sizes of dimensions 1 and 0, each times the receptive field. */
function fans(tensor: Tensor): { fanIn: number; fanOut: number } {
  const [out, inner, ...field] = tensor.shape;
  if (out === undefined || inner === undefined) {
    throw new TorchError(`fan-in and fan-out need at least 2 dimensions, got shape [${tensor.shape}]`);
  }
  const receptive = field.reduce((product, size) => product * size, 1);
  return { fanIn: inner * receptive, fanOut: out * receptive };
}

/** PyTorch's default for `Linear` and convolutions: Kaiming uniform with a = √5, the bias in ±1/√fanIn. */
export function defaultWeightAndBias_(weight: Tensor, bias: Tensor | null): void {
  kaimingUniform_(weight, { a: Math.sqrt(5) });
  if (bias === null) return;
  const { fanIn } = fans(weight);
  const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0;
  uniform_(bias, -bound, bound);
}
