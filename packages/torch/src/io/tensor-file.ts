/**
 * What the readers of tensor files have in common: tensors by name, described before they are read, copied one at a
 * time.
 */
import type { DType } from "../dtype.js";
import type { Tensor } from "../tensor.js";

/** What a file says of a tensor before it is read. */
export interface StoredTensorInfo {
  /** The format's name of the dtype, e.g. `BF16` or `BFloat16Storage`. */
  formatDtype: string;
  /** The engine's dtype, or null when it has none for it. */
  dtype: DType | null;
  /** Sizes of its dimensions. */
  shape: readonly number[];
}

/** An open file of named tensors: {@link SafetensorsFile}, or a state dict of a {@link TorchCheckpoint}. */
export interface TensorFile {
  /** The file. */
  readonly path: string;
  /** Names of the tensors. */
  keys(): string[];
  /** Whether there is a tensor of this name. */
  has(key: string): boolean;
  /** What the file says of a tensor. @throws TorchError when there is none of this name */
  info(key: string): StoredTensorInfo;
  /**
   * Copies the values under a name into a contiguous tensor of the same number of elements, converting dtype and
   * device.
   * @throws FormatError when a floating value is not finite, TorchError when the file is cut short
   */
  copyTo(key: string, target: Tensor): void;
}
