/**
 * What makes a pre-norm residual network fast, behind one name: {@link residual}.
 *
 * On a CPU, in evaluation and without gradients, oneDNN applies an activation, a product or a sum while a tile of a
 * matrix product is still in cache. A branch of a residual network ends with such a product, so the sum with the
 * residual stream is part of it. Everywhere else the same is computed by operators of its own.
 */
import {
  buildInfo,
  call,
  type DType,
  isAutocastEnabled,
  isGradEnabled,
  nn,
  noGrad,
  rand,
  scope,
  type Tensor,
  zeros,
} from "@miro-t2i/torch";

/** What is done to x Wᵀ + b: an activation, or a product or a sum with a tensor of the result's shape. */
export type Epilogue = "none" | "silu" | "gelu" | "relu" | { mul: Tensor } | { add: Tensor };

/** A layer that ends with a linear one. */
export interface Branch<Context extends unknown[]> {
  /** Everything before the last linear layer. */
  hidden(x: Tensor, ...context: Context): Tensor;
  readonly out: { forward(x: Tensor, epilogue?: Epilogue): Tensor };
}

/** How a residual branch is dropped in training. */
export interface DropPath {
  readonly dropRate: number;
  readonly training: boolean;
}

/** `x + layer(norm(x))`; what is computed on the way is freed. `block` may drop the branch in training. */
export function residual<Context extends unknown[]>(
  block: DropPath,
  x: Tensor,
  norm: { forward(x: Tensor): Tensor },
  layer: Branch<Context>,
  ...context: Context
): Tensor {
  return scope(() => {
    const hidden = layer.hidden(norm.forward(x), ...context);
    if (!block.training || block.dropRate === 0) return layer.out.forward(hidden, { add: x });
    return x.add(stochasticDepth(layer.out.forward(hidden), block.dropRate, block.training));
  });
}

/**
 * Drops a whole residual branch, per sample and in training only (Huang et al. 2016): the branch is multiplied by
 * `floor(U[0,1) + survival) / survival`.
 */
export function stochasticDepth(branch: Tensor, dropRate: number, training: boolean): Tensor {
  if (!training || dropRate === 0) return branch;
  const survival = 1 - dropRate;
  const shape = [branch.size(0), ...new Array<number>(branch.ndim - 1).fill(1)];
  const keep = rand(shape, { device: branch.device }).add(survival).floor().div(survival);
  return branch.mul(keep.to(branch.dtype));
}

/** Whether the fused kernels can be used on this input. They have no gradients, and autocast does not know them. */
export function canFuse(x: Tensor): boolean {
  if (isGradEnabled() || isAutocastEnabled()) return false;
  const { dtype } = x;
  return (dtype === "float32" || dtype === "bfloat16") && x.device === "cpu" && hasKernel(dtype);
}

/** x Wᵀ + b and what follows, as one kernel. Only where {@link canFuse}. */
export function fusedLinear(x: Tensor, weight: Tensor, bias: Tensor | null, epilogue: Epilogue): Tensor {
  if (typeof epilogue === "string") {
    const activation = { none: "none", silu: "swish", gelu: "gelu", relu: "relu" }[epilogue];
    return call("mkldnn::_linear_pointwise", x, weight, bias, activation, [], epilogue === "gelu" ? "none" : "");
  }
  const [other, operation] = "mul" in epilogue ? [epilogue.mul, "mul"] : [epilogue.add, "add"];
  return call("mkldnn::_linear_pointwise.binary", x, other, weight, bias, operation);
}

/** The epilogue as operators of its own. */
export function applyEpilogue(y: Tensor, epilogue: Epilogue): Tensor {
  if (epilogue === "none") return y;
  if (epilogue === "silu") return nn.functional.silu(y);
  if (epilogue === "gelu") return nn.functional.gelu(y);
  if (epilogue === "relu") return nn.functional.relu(y);
  return "mul" in epilogue ? epilogue.mul.mul(y) : epilogue.add.add(y);
}

/** Whether there are kernels of a dtype. */
const kernels = new Map<DType, boolean>();

function hasKernel(dtype: DType): boolean {
  let has = kernels.get(dtype);
  if (has === undefined) {
    has = !overwritesMemoryAtSignals(dtype) && computes(dtype);
    kernels.set(dtype, has);
  }
  return has;
}

/**
 * oneDNN 3.10, which libtorch 2.11 has, computes these products in float32 on a stack that lies on the heap: a signal
 * that the process handles, such as Ctrl-C or a window of another size, overwrites what lies below it. oneDNN 3.11 and
 * later (libtorch 2.12 and later) do not.
 */
function overwritesMemoryAtSignals(dtype: DType): boolean {
  const [major, minor] = buildInfo().torchVersion.split(".").map(Number) as [number, number];
  return dtype === "float32" && (major < 2 || (major === 2 && minor < 12));
}

/**
 * Whether libtorch was built with oneDNN, and oneDNN has kernels of a dtype for this processor: bfloat16 needs AVX-512.
 */
function computes(dtype: DType): boolean {
  try {
    noGrad(() =>
      scope(() => {
        const one = zeros([1, 1], { dtype });
        fusedLinear(one, one, null, { add: one });
      }),
    );
    return true;
  } catch {
    return false;
  }
}

/** Runs steps one after another on a state; what each computed on the way, and the state before it, is freed. */
export function inTurn<State extends Record<string, Tensor>, Item>(
  items: readonly Item[],
  state: State,
  step: (item: Item, state: State, i: number) => State,
): State {
  for (const [i, item] of items.entries()) {
    const next = scope(() => step(item, state, i));
    for (const [key, tensor] of Object.entries(state)) if (next[key] !== tensor) tensor.dispose();
    state = next;
  }
  return state;
}
