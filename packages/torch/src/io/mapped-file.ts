/**
 * A file mapped into memory, private and copy-on-write: bytes are read when they are touched, writing to a tensor over
 * them changes the process's copy and never the file.
 *
 * A file that another process cuts short while it is mapped faults on the missing pages, as with every memory map;
 * replace files by renaming, as this package's writers do.
 */
import { empty } from "../creation.js";
import { type DType, itemSize } from "../dtype.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { RegularFile } from "./regular-file.js";

/** A file mapped into memory. */
export class MappedFile {
  readonly #bytes: Tensor;

  private constructor(
    /** The file. */
    readonly path: string,
    /** Its length in bytes. */
    readonly sizeBytes: number,
    bytes: Tensor,
  ) {
    this.#bytes = bytes;
  }

  /** @throws TorchError naming the path when it is missing, unreadable or no regular file. */
  static open(path: string): MappedFile {
    const file = RegularFile.open(path);
    const { sizeBytes } = file;
    file.close();
    const bytes = scope(() =>
      sizeBytes === 0 ? empty([0], { dtype: "uint8" }) : aten.from_file(path, false, sizeBytes, "uint8"),
    );
    return new MappedFile(path, sizeBytes, bytes.keep());
  }

  /** A copy of `length` bytes from `offset` on. */
  read(offset: number, length: number): Uint8Array {
    return scope(() => this.#bytes.narrow(0, offset, length).data() as Uint8Array);
  }

  /**
   * The bytes from `offset` on as a tensor; the caller owns it. It shares the map when `offset` is a multiple of the
   * dtype's size and is a copy otherwise; the map lives as long as any tensor over it.
   */
  tensor(offset: number, dtype: DType, shape: number[]): Tensor {
    return scope(() => {
      const sizeBytes = shape.reduce((product, size) => product * size, itemSize(dtype));
      if (sizeBytes === 0) return empty(shape, { dtype });
      const raw = this.#bytes.narrow(0, offset, sizeBytes);
      const aligned = offset % itemSize(dtype) === 0 ? raw : raw.clone();
      return (dtype === "uint8" ? aligned : aten.view_dtype(aligned, dtype)).view(...shape);
    });
  }

  /** Lets go of the map; tensors over it keep it as long as they live. */
  close(): void {
    this.#bytes.dispose();
  }
}
