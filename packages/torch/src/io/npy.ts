/**
 * NumPy's `.npy` format, versions 1 to 3: magic, version, header length, a Python dictionary literal, data.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 *
 * The header is parsed by the grammar that NumPy writes, never evaluated. Values are little-endian; C and Fortran
 * order.
 */
import { type DType, itemSize } from "../dtype.js";
import { TorchError } from "../errors.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { writeFileAtomically } from "./atomic-write.js";
import { FormatError, refuseStandIn } from "./format-error.js";
import { MappedFile } from "./mapped-file.js";
import { pieceBuffer, sizeInBytes, streamBytes } from "./tensor-bytes.js";

const MAGIC = Buffer.from("\x93NUMPY", "latin1");
/** NumPy's own limit on headers it will parse. */
const MAX_HEADER_BYTES = 10_000;
/** NumPy aligns the data to this many bytes. */
const ALIGNMENT = 64;
/** NumPy leaves room for the first size to grow to this many digits. */
const GROWTH_DIGITS = 21;

const DTYPE_OF: Record<string, DType> = {
  f2: "float16",
  f4: "float32",
  f8: "float64",
  i1: "int8",
  i2: "int16",
  i4: "int32",
  i8: "int64",
  u1: "uint8",
  b1: "bool",
};
const DESCRIPTOR_OF = new Map(
  Object.entries(DTYPE_OF).map(([code, dtype]) => [dtype, `${itemSize(dtype) === 1 ? "|" : "<"}${code}`]),
);

/** What the header of an array says. */
export interface NpyHeader {
  /** The elements' type. */
  dtype: DType;
  /** Whether the first index is the one that runs fastest. */
  fortranOrder: boolean;
  /** Sizes of its dimensions; none for a single number. */
  shape: number[];
  /** Where the values begin, in bytes from the start of the array's file. */
  dataStart: number;
}

/** Bytes that hold an array: a file, or a part of one. */
export interface NpySource {
  /** For errors. */
  readonly path: string;
  /** Its length in bytes. */
  readonly sizeBytes: number;
  /** Bytes from an offset on; fewer where the source ends. */
  read(offset: number, length: number): Uint8Array;
}

/**
 * Reads an array; the caller owns the tensor, a copy in C order.
 * @throws FormatError when the file breaks the format or holds what the engine has no dtype for.
 */
export function readNpy(path: string): Tensor {
  const file = MappedFile.open(path);
  try {
    const { dtype, fortranOrder, shape, dataStart } = readNpyHeader(file);
    if (dtype === "bool") checkBooleans(file, dataStart);
    return scope(() => {
      const stored = file.tensor(dataStart, dtype, fortranOrder ? [...shape].reverse() : shape);
      // `clone` keeps strides: only `contiguous` of the transposed view lays Fortran order out anew.
      return fortranOrder && shape.length > 1
        ? stored
            .permute(...shape.map((_, i) => shape.length - 1 - i))
            .contiguous()
            .clone()
        : stored.clone();
    });
  } finally {
    file.close();
  }
}

/**
 * Reads and checks an array's header.
 * @throws FormatError when it breaks the format, holds what the engine has no dtype for, or the values take another
 *   size
 */
export function readNpyHeader(file: NpySource): NpyHeader {
  const { path, sizeBytes } = file;
  const fail = (rule: string, message: string, byteOffset: number): never => {
    throw new FormatError({ path, rule, message, byteOffset });
  };
  refuseStandIn(file);
  if (sizeBytes < 10)
    fail("FileTooShort", `the file has ${sizeBytes} bytes, magic and lengths alone take 10`, sizeBytes);
  const start = Buffer.from(file.read(0, Math.min(12, sizeBytes)));
  if (!start.subarray(0, 6).equals(MAGIC)) fail("BadMagic", "the file does not begin with \\x93NUMPY", 0);
  const [major, minor] = [start[6]!, start[7]!];
  if (major < 1 || major > 3 || minor !== 0)
    fail("UnknownVersion", `version ${major}.${minor} is not 1.0, 2.0 or 3.0`, 6);
  const headerStart = major === 1 ? 10 : 12;
  if (sizeBytes < headerStart) fail("FileTooShort", `the file ends within the header length`, sizeBytes);
  const length = major === 1 ? start.readUInt16LE(8) : start.readUInt32LE(8);
  if (length > MAX_HEADER_BYTES)
    fail("HeaderTooLarge", `the header length is ${length}, at most ${MAX_HEADER_BYTES}`, 8);
  const dataStart = headerStart + length;
  if (dataStart > sizeBytes) {
    fail("HeaderOutOfBounds", `the header should end at byte ${dataStart}, the file ends at ${sizeBytes}`, sizeBytes);
  }
  const bytes = Buffer.from(file.read(headerStart, length));
  if (bytes[length - 1] !== 0x0a) fail("HeaderEnd", "the header does not end in a newline", Math.max(dataStart - 1, 8));
  if (major < 3 && bytes.some((byte) => byte > 0x7f)) fail("HeaderNotAscii", "the header is not ASCII", headerStart);
  const { descr, fortranOrder, shape } = parseDictionary(
    bytes.toString(major === 3 ? "utf8" : "latin1"),
    (message, at) => fail("HeaderSyntax", message, headerStart + at),
  );
  const dtype = readDescriptor(descr, (message) => fail("UnsupportedDtype", message, headerStart));
  const count = shape.reduce((product, size) => product * BigInt(size), 1n);
  const expected = count * BigInt(itemSize(dtype));
  if (expected > BigInt(Number.MAX_SAFE_INTEGER)) fail("ShapeOverflow", `shape (${shape}) overflows`, headerStart);
  const present = BigInt(sizeBytes - dataStart);
  const sizes = `shape (${shape}) of ${descr} takes ${expected} bytes, the file has ${present}`;
  if (present < expected) fail("DataTooShort", sizes, sizeBytes);
  if (present > expected) fail("TrailingBytes", sizes, dataStart + Number(expected));
  return { dtype, fortranOrder, shape, dataStart };
}

function readDescriptor(descr: string, fail: (message: string) => never): DType {
  const [, order, code] = /^([<>|=]?)([a-zA-Z][0-9]+)$/.exec(descr) ?? [];
  const dtype = code !== undefined && Object.hasOwn(DTYPE_OF, code) ? DTYPE_OF[code]! : undefined;
  if (dtype === undefined) return fail(`descr '${descr}' is not one of ${Object.keys(DTYPE_OF).join(", ")}`);
  if (itemSize(dtype) > 1 && order !== "<") return fail(`descr '${descr}' is not little-endian`);
  return dtype;
}

function checkBooleans(file: MappedFile, dataStart: number): void {
  const bad = file.read(dataStart, file.sizeBytes - dataStart).findIndex((byte) => byte > 1);
  if (bad < 0) return;
  const message = "a boolean is neither 0 nor 1";
  throw new FormatError({ path: file.path, rule: "InvalidBoolean", message, byteOffset: dataStart + bad });
}

/**
 * The grammar of the header: `{'descr': 'string', 'fortran_order': True|False, 'shape': (ints)}` with the keys in any
 * order, either quote, optional trailing commas and white space.
 */
function parseDictionary(
  text: string,
  fail: (message: string, at: number) => never,
): { descr: string; fortranOrder: boolean; shape: number[] } {
  let at = 0;
  /** Skips white space, then consumes a match of the sticky pattern, if there is one. */
  const take = (pattern: RegExp): string | undefined => {
    at += /^[ \t\r\n]*/.exec(text.slice(at))![0].length;
    const match = pattern.exec(text.slice(at));
    if (match === null) return undefined;
    at += match[0].length;
    return match[1] ?? match[2] ?? match[0];
  };
  const need = (pattern: RegExp, what: string): string => take(pattern) ?? fail(`expected ${what}`, at);
  const quoted = /^(?:'([^'\\\n]*)'|"([^"\\\n]*)")/;

  const readShape = (): number[] => {
    const shape: number[] = [];
    need(/^\(/, "'(' before the shape");
    let comma = true;
    while (take(/^\)/) === undefined) {
      if (!comma) fail("expected ',' or ')' in the shape", at);
      const size = Number(need(/^(?:0|[1-9][0-9]*)(?![0-9.eExXjJ_])/, "a non-negative integer in the shape"));
      if (!Number.isSafeInteger(size)) fail("a size in the shape exceeds 2^53 - 1", at);
      shape.push(size);
      comma = take(/^,/) !== undefined;
    }
    if (shape.length === 1 && !comma) fail("a shape of one size needs a comma: (n,)", at);
    return shape;
  };

  let descr: string | undefined;
  let fortranOrder: boolean | undefined;
  let shape: number[] | undefined;
  need(/^\{/, "'{'");
  let comma = true;
  while (take(/^\}/) === undefined) {
    if (!comma) fail("expected ',' or '}'", at);
    const keyAt = at;
    const key = need(quoted, "a quoted key");
    need(/^:/, `':' after '${key}'`);
    if (key === "descr" && descr === undefined)
      descr = need(quoted, "a quoted dtype (structured dtypes are not supported)");
    else if (key === "fortran_order" && fortranOrder === undefined) {
      fortranOrder = need(/^(?:True|False)(?![A-Za-z0-9_])/, "True or False") === "True";
    } else if (key === "shape" && shape === undefined) shape = readShape();
    else fail(`unknown or repeated key '${key}'`, keyAt);
    comma = take(/^,/) !== undefined;
  }
  take(/^(?=$)/);
  if (at < text.length) fail("unexpected text behind the dictionary", at);
  if (descr === undefined || fortranOrder === undefined || shape === undefined) {
    return fail("the dictionary must have descr, fortran_order and shape", 0);
  }
  return { descr, fortranOrder, shape };
}

/**
 * Writes an array in version 1.0 and C order, byte for byte as `numpy.save` does, atomically.
 * @throws TorchError when the dtype has no NumPy equivalent (bfloat16: convert to float32 first) or the disk refuses.
 */
export function writeNpy(path: string, tensor: Tensor): void {
  const header = encodeHeader(path, tensor);
  writeFileAtomically(path, (write) => {
    write(header);
    streamBytes(tensor, pieceBuffer(), write);
  });
}

/**
 * The bytes that {@link writeNpy} writes, for arrays inside of archives.
 * @throws TorchError when the dtype has no NumPy equivalent
 */
export function encodeNpy(tensor: Tensor): Uint8Array {
  const header = encodeHeader("array", tensor);
  const bytes = new Uint8Array(header.length + sizeInBytes(tensor));
  bytes.set(header);
  let at = header.length;
  streamBytes(tensor, new Uint8Array(Math.max(8, Math.min(bytes.length - at, 2 ** 20))), (piece) => {
    bytes.set(piece, at);
    at += piece.length;
  });
  return bytes;
}

function encodeHeader(path: string, { dtype, shape }: Tensor): Buffer {
  const descr = DESCRIPTOR_OF.get(dtype);
  if (descr === undefined)
    throw new TorchError(`${path}: NumPy has no dtype ${dtype}; convert the tensor first, e.g. to float32`);
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const growth = shape.length === 0 ? "" : " ".repeat(GROWTH_DIGITS - String(shape[0]).length);
  const dictionary = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }${growth}`;
  const unpadded = 10 + dictionary.length + 1;
  const padding = ALIGNMENT - (unpadded % ALIGNMENT);
  const header = Buffer.alloc(unpadded + padding, " ");
  MAGIC.copy(header);
  header.writeUInt8(1, 6);
  header.writeUInt8(0, 7);
  header.writeUInt16LE(header.length - 10, 8);
  header.write(dictionary, 10, "latin1");
  header.write("\n", header.length - 1, "latin1");
  return header;
}
