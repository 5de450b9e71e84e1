/** The little-endian bytes of a tensor, a piece at a time, so that writing a file never doubles the memory. */
import { itemSize } from "../dtype.js";
import { native } from "../native.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

const CHUNK_BYTES = 16 * 2 ** 20;

/** Room for one piece; one serves any number of tensors. */
export function pieceBuffer(): Uint8Array {
  return new Uint8Array(CHUNK_BYTES);
}

/**
 * Passes the values in C order to `write`, from whichever device they are on; each piece is valid during its call only.
 */
export function streamBytes(tensor: Tensor, buffer: Uint8Array, write: (bytes: Uint8Array) => void): void {
  scope(() => {
    const flat = tensor.detach().contiguous().view(-1);
    const width = itemSize(tensor.dtype);
    const step = Math.floor(buffer.length / width);
    for (let start = 0; start < flat.numel; start += step) {
      scope(() => {
        const piece = flat.narrow(0, start, Math.min(step, flat.numel - start));
        const bytes = buffer.subarray(0, piece.numel * width);
        native.copyToHost(piece.handle, bytes);
        write(bytes);
      });
    }
  });
}

/** Bytes that the values take. */
export function sizeInBytes(tensor: Tensor): number {
  return tensor.numel * itemSize(tensor.dtype);
}
