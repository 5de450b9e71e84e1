/** Optimizers. */
export { AdamW, type AdamWOptions } from "./adamw.js";
export { clipGradNorm_ } from "./clip.js";
export { GradScaler, type GradScalerOptions, type GradScalerState } from "./grad-scaler.js";
export { Lamb, type LambOptions } from "./lamb.js";
export type { AdamOptions, GroupInput, OptimizerState, ParamGroup, Update } from "./optimizer.js";
export { TensorList } from "./tensor-list.js";
