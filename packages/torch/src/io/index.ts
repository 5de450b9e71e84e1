/** Tensor files: safetensors and `.npy`. */
export {
  type AtomicWriteOptions,
  beginFile,
  publishFile,
  removeKilledWrites,
  type Sink,
  writeFileAtomically,
} from "./atomic-write.js";
export { FormatError, type FormatErrorDetails } from "./format-error.js";
export { type LoadModuleOptions, loadModule, type StoredTensor } from "./load-module.js";
export { encodeNpy, type NpyHeader, type NpySource, readNpy, readNpyHeader, writeNpy } from "./npy.js";
export { type ReadRowsOptions, ROW_STATUS, readRows } from "./read-rows.js";
export { readSafetensors, SafetensorsFile, type TensorInfo, writeSafetensors } from "./safetensors.js";
