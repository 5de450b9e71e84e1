/** Tensor files: safetensors, `.npy` and PyTorch checkpoints. */
export {
  type AtomicWriteOptions,
  beginFile,
  publishFile,
  removeKilledWrites,
  type Sink,
  writeFileAtomically,
} from "./atomic-write.js";
export { FormatError, type FormatErrorDetails } from "./format-error.js";
export { type LoadModuleOptions, loadModule, loadModuleInPieces, type StoredTensor } from "./load-module.js";
export { encodeNpy, type NpyHeader, type NpySource, readNpy, readNpyHeader, writeNpy } from "./npy.js";
export { Opaque, PickledBytes, PickleLeaf, type PickleValue } from "./pickle.js";
export { type ReadRowsOptions, ROW_STATUS, readRows } from "./read-rows.js";
export {
  type DeferredTensor,
  readSafetensors,
  SafetensorsFile,
  type TensorInfo,
  writeSafetensors,
  writeSafetensorsInPieces,
} from "./safetensors.js";
export { type StoredTensorInfo, type TensorFile, takeAll, tensorFile } from "./tensor-file.js";
export { TorchCheckpoint, type TorchStateDict, TorchTensor } from "./torch-checkpoint.js";
export {
  type Picklable,
  PythonFloat,
  PythonTuple,
  writeTorchCheckpoint,
  writeTorchCheckpointInPieces,
} from "./torch-checkpoint-writer.js";
