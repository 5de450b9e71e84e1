/** Networks: `nn.Linear`, `nn.functional`, `nn.init`, … */
export { Lambda, type Layer, ModuleList, Sequential } from "./containers.js";
export { Conv2d, type Conv2dOptions, ConvTranspose2d, type ConvTranspose2dOptions } from "./conv.js";
export { Dropout } from "./dropout.js";
export { Embedding } from "./embedding.js";
export * as functional from "./functional.js";
export * as init from "./init.js";
export { type FactoryOptions, Linear, type LinearOptions } from "./linear.js";
export { type LoadStateDictOptions, type LoadStateDictResult, Module, type StateDict } from "./module.js";
export { GroupNorm, LayerNorm, type NormOptions, RMSNorm } from "./norms.js";
