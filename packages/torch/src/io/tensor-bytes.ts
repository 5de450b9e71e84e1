/** The little-endian bytes of a tensor, a piece at a time, so that writing a file never doubles the memory. */
import { itemSize } from "../dtype.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

const CHUNK_BYTES = 16 * 2 ** 20;

/** Passes the values in C order to `write`, from whichever device they are on. */
export function streamBytes(tensor: Tensor, write: (bytes: Uint8Array) => void): void {
  scope(() => {
    const flat = tensor.detach().contiguous().view(-1);
    const step = CHUNK_BYTES / itemSize(tensor.dtype);
    for (let start = 0; start < flat.numel; start += step) {
      scope(() => {
        const values = flat.narrow(0, start, Math.min(step, flat.numel - start)).data();
        write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      });
    }
  });
}

/** Bytes that the values take. */
export function sizeInBytes(tensor: Tensor): number {
  return tensor.numel * itemSize(tensor.dtype);
}
