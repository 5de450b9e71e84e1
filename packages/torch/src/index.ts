/**
 * libtorch for Node. This root has tensors, autograd, random numbers, memory, devices and networks (`nn`, `F`);
 * optimizers are in `@miro-t2i/torch/optim`, tensor files in `/io`, collectives in `/distributed`. Importing loads no
 * native code: libtorch is loaded when the first function needs it.
 */
export type { GeneratorLike } from "./arguments.js";
export * from "./autograd.js";
export * from "./copies.js";
export * from "./creation.js";
export * from "./cuda-graph.js";
export { type Device, type DType, type HostData, isFloatingPoint, itemSize, type MemoryFormat } from "./dtype.js";
export { TorchError } from "./errors.js";
export { type MemoryStats, memory } from "./memory.js";
export * as F from "./nn/functional.js";
export * as nn from "./nn/index.js";
export { aten } from "./ops.generated.js";
export * from "./random.js";
export * from "./runtime.js";
export { scope } from "./scope.js";
export {
  call,
  FloatScalar,
  float,
  type IndexItem,
  type NestedValues,
  type Scalar,
  Tensor,
  type ToOptions,
} from "./tensor.js";
export * from "./threads.js";
