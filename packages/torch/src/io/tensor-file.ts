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
  /**
   * As {@link copyTo}, a piece with each step, so that the work can be left between two of them. Nothing is copied
   * before the first step; whoever takes all steps has copied everything.
   */
  copyInPieces(key: string, target: Tensor): Generator<void, void, void>;
}

/**
 * A file of tensors out of its parts, for files that are made of other ones: renamed, put together, computed.
 *
 * @example
 * ```ts
 * const renamed = tensorFile({
 *   path: file.path,
 *   keys: () => file.keys().map((key) => `encoder.${key}`),
 *   has: (key) => file.has(key.slice("encoder.".length)),
 *   info: (key) => file.info(key.slice("encoder.".length)),
 *   copyInPieces: (key, target) => file.copyInPieces(key.slice("encoder.".length), target),
 * });
 * ```
 */
export function tensorFile(parts: Omit<TensorFile, "copyTo">): TensorFile {
  return { ...parts, copyTo: (key, target) => takeAll(parts.copyInPieces(key, target)) };
}

/** Takes all steps of a work at once. @returns what it gives */
export function takeAll<T>(steps: Generator<void, T, void>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
