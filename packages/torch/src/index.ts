// The whole public surface of @miro-t2i/torch.
export * from "./autograd.js";
export * from "./creation.js";
export { type DType, type Device, type HostData, isFloatingPoint, itemSize } from "./dtype.js";
export { TorchError } from "./errors.js";
export * from "./io/index.js";
export { memory, type MemoryStats } from "./memory.js";
export * as nn from "./nn/index.js";
export * as F from "./nn/functional.js";
export { aten } from "./ops.generated.js";
export * from "./optim/index.js";
export * from "./random.js";
export * from "./runtime.js";
export { scope } from "./scope.js";
export { call, float, FloatScalar, type IndexItem, type Scalar, Tensor } from "./tensor.js";
export * from "./threads.js";
