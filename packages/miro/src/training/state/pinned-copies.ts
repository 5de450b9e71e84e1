/**
 * Pinned memory for copies of all tensors of a checkpoint, kept from one checkpoint to the next.
 *
 * The tensors lie beside each other in a few slabs. Pinning memory is a call of the driver for each block, and libtorch
 * makes each block a power of two: for the published network, tensor by tensor, that would be 1,920 calls and a third
 * more memory; with one block for each part it would be half as much again. In slabs it is 22 calls, and no more memory
 * than the tensors need.
 */
import { itemSize, pinnedMemory, scope, type Tensor } from "@miro-t2i/torch";

/** Where a copy begins: a multiple of this, which suits every dtype. */
const ALIGNMENT = 64;
/** Bytes of a slab, a power of two, unless less is needed or a tensor is larger. */
const SLAB_BYTES = 2 ** 28;

/** What a copy needs to know of its tensor. */
type Form = Pick<Tensor, "dtype" | "shape" | "numel">;

/** Where a copy lies. */
interface Place {
  slab: Tensor;
  start: number;
}

/** Copies in pinned memory. */
export class PinnedCopies {
  readonly #allocate: (bytes: number) => Tensor;
  readonly #slabs: Tensor[] = [];
  #copies: Tensor[] = [];
  /** What they are copies of. */
  #forms = "";

  /** @param allocate a uint8 tensor of so many bytes */
  constructor(allocate: (bytes: number) => Tensor = pinnedMemory) {
    this.#allocate = allocate;
  }

  /** Pins what the copies of such tensors need. */
  reserve(forms: readonly Form[]): void {
    this.#places(forms);
  }

  /**
   * A tensor for the copy of each of these, its values whatever they were: the same ones as in the call before, where
   * the tensors have the same forms. They belong to this object.
   */
  like(forms: readonly Form[]): readonly Tensor[] {
    const described = forms.map(({ dtype, shape }) => `${dtype}[${shape}]`).join();
    if (described === this.#forms) return this.#copies;
    const places = this.#places(forms);
    for (const copy of this.#copies) copy.dispose();
    this.#copies = forms.map((form, i) => {
      const { slab, start } = places[i]!;
      return scope(() => slab.narrow(0, start, bytesOf(form)).viewDtype(form.dtype).view(form.shape).keep());
    });
    this.#forms = described;
    return this.#copies;
  }

  /** A place for each, the largest first, in the first slab that has room; makes slabs where none has. */
  #places(forms: readonly Form[]): Place[] {
    const places: Place[] = new Array(forms.length);
    const used = new Map(this.#slabs.map((slab) => [slab, 0]));
    const sizes = forms.map((form) => Math.ceil(bytesOf(form) / ALIGNMENT) * ALIGNMENT);
    let left = sizes.reduce((sum, size) => sum + size, 0);
    for (const [i, size] of [...sizes.entries()].sort(([, a], [, b]) => b - a)) {
      let slab = this.#slabs.find((slab) => used.get(slab)! + size <= slab.numel);
      if (slab === undefined) {
        const bytes = 2 ** Math.ceil(Math.log2(Math.max(size, Math.min(left, SLAB_BYTES), 1)));
        slab = scope(() => this.#allocate(bytes).keep());
        this.#slabs.push(slab);
        used.set(slab, 0);
      }
      const start = used.get(slab)!;
      places[i] = { slab, start };
      used.set(slab, start + size);
      left -= size;
    }
    return places;
  }

  /** Frees all of it. */
  dispose(): void {
    for (const tensor of [...this.#copies, ...this.#slabs]) tensor.dispose();
    this.#copies = [];
    this.#forms = "";
    this.#slabs.length = 0;
  }
}

function bytesOf({ numel, dtype }: Form): number {
  return numel * itemSize(dtype);
}
