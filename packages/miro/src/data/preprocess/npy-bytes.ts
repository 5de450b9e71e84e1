/** A float16 array as the bytes of an `.npy` file, version 1.0: what `numpy.save` writes for it. */

const MAGIC = Buffer.from("\x93NUMPY\x01\x00", "latin1");
/** NumPy begins the data at a multiple of this many bytes. */
const ALIGNMENT = 64;
/** NumPy leaves room for the first size to grow to this many digits. */
const GROWTH_DIGITS = 21;

/**
 * @param shape sizes of the array, at least one
 * @param values the bits of the values in C order
 */
export function float16Npy(shape: readonly number[], values: Uint16Array): Uint8Array {
  const count = shape.reduce((product, size) => product * size, 1);
  if (values.length !== count) throw new RangeError(`shape (${shape}) has ${count} values, not ${values.length}`);
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const growth = " ".repeat(GROWTH_DIGITS - String(shape[0]).length);
  const dictionary = `{'descr': '<f2', 'fortran_order': False, 'shape': ${tuple}, }${growth}`;
  const unpadded = MAGIC.length + 2 + dictionary.length + 1;
  const start = unpadded + (ALIGNMENT - (unpadded % ALIGNMENT));
  const file = Buffer.alloc(start + 2 * count, " ");
  MAGIC.copy(file);
  file.writeUInt16LE(start - MAGIC.length - 2, MAGIC.length);
  file.write(dictionary, MAGIC.length + 2, "latin1");
  file.write("\n", start - 1, "latin1");
  file.set(new Uint8Array(values.buffer, values.byteOffset, 2 * count), start);
  return file;
}
