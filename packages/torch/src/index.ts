// The whole public surface of @miro-t2i/torch.
export * from "./autograd.js";
export * from "./creation.js";
export * from "./cuda-graph.js";
export * from "./distributed/index.js";
export { type Device, type DType, type HostData, isFloatingPoint, itemSize } from "./dtype.js";
export { TorchError } from "./errors.js";
export * from "./io/index.js";
export { type MemoryStats, memory } from "./memory.js";
export * as F from "./nn/functional.js";
export * as nn from "./nn/index.js";
export { aten } from "./ops.generated.js";
export * from "./optim/index.js";
export * from "./random.js";
export * from "./runtime.js";
export { scope } from "./scope.js";
export { call, FloatScalar, float, type IndexItem, type Scalar, Tensor } from "./tensor.js";
export * from "./threads.js";
