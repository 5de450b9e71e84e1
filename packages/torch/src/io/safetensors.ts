/**
 * The safetensors format: `u64 N | N bytes of JSON | data`, everything little-endian.
 * Format and rules: https://github.com/huggingface/safetensors#format
 *
 * The reader enforces every rule before it hands out a tensor; each broken rule has its own name in {@link
 * FormatError.rule}. A tensor is either a view of the mapped file (`get`) or copied from it into memory of the caller's
 * (`copyTo`). The writer is atomic and lays files out as the reference implementation does (wider dtypes first, then by
 * name).
 */
import { type DType, itemSize } from "../dtype.js";
import { shown, TorchError } from "../errors.js";
import { scope } from "../scope.js";
import { Tensor } from "../tensor.js";
import { writeFileInPieces } from "./atomic-write.js";
import { checkBooleans, copyValues } from "./copy-values.js";
import { FormatError, refuseStandIn } from "./format-error.js";
import { MappedFile } from "./mapped-file.js";
import { RegularFile } from "./regular-file.js";
import { parseStrictJson, type StrictJson, StrictJsonError } from "./strict-json.js";
import { pieceBuffer, streamBytes } from "./tensor-bytes.js";
import { type StoredTensorInfo, type TensorFile, takeAll } from "./tensor-file.js";

/** The reference implementation's limit on the header. */
const MAX_HEADER_BYTES = 100_000_000;
const METADATA_KEY = "__metadata__";
/** Places in a file are numbers. */
const MAX_TENSOR_BITS = 8n * BigInt(Number.MAX_SAFE_INTEGER);

/**
 * Every dtype of the format with its size in bits and ours, where the engine has it; in the order the writer sorts by.
 */
const DTYPES: Record<string, { bits: number; dtype?: DType }> = {
  BOOL: { bits: 8, dtype: "bool" },
  F4: { bits: 4 },
  F6_E2M3: { bits: 6 },
  F6_E3M2: { bits: 6 },
  U8: { bits: 8, dtype: "uint8" },
  I8: { bits: 8, dtype: "int8" },
  F8_E5M2: { bits: 8 },
  F8_E4M3: { bits: 8 },
  F8_E8M0: { bits: 8 },
  F8_E4M3FNUZ: { bits: 8 },
  F8_E5M2FNUZ: { bits: 8 },
  I16: { bits: 16, dtype: "int16" },
  U16: { bits: 16 },
  F16: { bits: 16, dtype: "float16" },
  BF16: { bits: 16, dtype: "bfloat16" },
  I32: { bits: 32, dtype: "int32" },
  U32: { bits: 32 },
  F32: { bits: 32, dtype: "float32" },
  C64: { bits: 64 },
  F64: { bits: 64, dtype: "float64" },
  I64: { bits: 64, dtype: "int64" },
  U64: { bits: 64 },
};
const FORMAT_DTYPES = Object.keys(DTYPES);
const FORMAT_DTYPE_OF = new Map(
  Object.entries(DTYPES).flatMap(([name, { dtype }]) => (dtype ? [[dtype, name] as const] : [])),
);

/** What the header of a safetensors file says of a tensor. */
export interface TensorInfo extends StoredTensorInfo {
  /** Sizes of its dimensions. */
  shape: number[];
  /** Where its values begin, in bytes from the start of the file. */
  byteOffset: number;
  /** Length of its values, in bytes. */
  byteLength: number;
}

/** An open safetensors file. Tensors taken from it stay valid after {@link close}. Python: `safetensors.safe_open`. */
export class SafetensorsFile implements TensorFile {
  /** The file. */
  readonly path: string;
  /** The free-form strings of `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #file: RegularFile;
  readonly #tensors: Map<string, TensorInfo>;
  /** Made with the first tensor that is a view of it. */
  #map: MappedFile | null = null;
  #open = true;

  private constructor(file: RegularFile) {
    this.path = file.path;
    this.#file = file;
    const header = readHeader(file);
    this.metadata = header.metadata;
    this.#tensors = header.tensors;
  }

  /**
   * Opens the file and checks its whole header.
   * @throws FormatError when a rule of the format is broken, TorchError when the file cannot be read.
   */
  static open(path: string): SafetensorsFile {
    const file = RegularFile.open(path);
    try {
      return new SafetensorsFile(file);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Names in the order of their data. */
  keys(): string[] {
    return [...this.#tensors.keys()];
  }

  /** Whether there is a tensor of this name. */
  has(key: string): boolean {
    return this.#tensors.has(key);
  }

  /** Dtype, shape and place of a tensor. @throws TorchError when there is none of this name */
  info(key: string): TensorInfo {
    const info = this.#tensors.get(key);
    if (info === undefined) throw new TorchError(`${this.path}: holds no tensor ${JSON.stringify(key)}`);
    return info;
  }

  /**
   * The tensor under a name, over the file's map (a copy when the file does not align it). The caller owns it; writing
   * to it does not change the file.
   */
  get(key: string): Tensor {
    const { shape, byteOffset } = this.info(key);
    const dtype = this.#dtypeOf(key);
    const tensor = this.#mapped().tensor(byteOffset, dtype, shape);
    if (dtype === "bool") {
      try {
        const { byteLength } = this.info(key);
        checkBooleans(this.#file.read(byteOffset, byteLength), { path: this.path, key, byteOffset });
      } catch (error) {
        tensor.dispose();
        throw error;
      }
    }
    return tensor;
  }

  /**
   * Copies the values under a name into a tensor of the same number of elements, converting them to its dtype and
   * device, a piece at a time: nothing is held twice. A file that is cut short meanwhile is an error.
   *
   * @param target contiguous; what it holds after an error is undefined
   * @throws FormatError when a floating value is NaN or infinite, in the file or in the target's dtype
   */
  copyTo(key: string, target: Tensor): void {
    takeAll(this.copyInPieces(key, target));
  }

  /** As {@link copyTo}, a piece with each step. */
  *copyInPieces(key: string, target: Tensor): Generator<void, void, void> {
    const { shape, byteOffset } = this.info(key);
    const dtype = this.#dtypeOf(key);
    const readInto = (bytes: Uint8Array, at: number) => this.#file.readInto(bytes, at);
    yield* copyValues({ path: this.path, key, byteOffset, dtype, shape, readInto }, target);
  }

  #dtypeOf(key: string): DType {
    const { dtype, formatDtype, byteOffset } = this.info(key);
    if (!this.#open) throw new TorchError(`${this.path}: is closed`);
    if (dtype !== null) return dtype;
    const message = `dtype ${formatDtype} is not supported by the engine`;
    throw new FormatError({ path: this.path, rule: "UnsupportedDtype", message, tensor: key, byteOffset });
  }

  #mapped(): MappedFile {
    if (this.#map === null) {
      const map = MappedFile.open(this.path);
      if (map.sizeBytes !== this.#file.sizeBytes) {
        map.close();
        throw new TorchError(`${this.path}: changed while it was read`);
      }
      this.#map = map;
    }
    return this.#map;
  }

  /** Closes the file; a second call does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#file.close();
    this.#map?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

interface Header {
  metadata: Map<string, string>;
  tensors: Map<string, TensorInfo>;
}

function readHeader(file: RegularFile): Header {
  const { path, sizeBytes } = file;
  const fail = (rule: string, message: string, byteOffset: number, tensor?: string): never => {
    throw new FormatError({ path, rule, message, byteOffset, tensor });
  };
  refuseStandIn(file);
  if (sizeBytes < 8)
    fail("FileTooShort", `the file has ${sizeBytes} bytes, the header length alone takes 8`, sizeBytes);
  const prefix = file.read(0, 8);
  const declared = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (declared > MAX_HEADER_BYTES) {
    fail("HeaderTooLarge", `the header length is ${declared}, at most ${MAX_HEADER_BYTES} is allowed`, 0);
  }
  const headerBytes = Number(declared);
  const dataStart = 8 + headerBytes;
  if (dataStart > sizeBytes) {
    fail("HeaderOutOfBounds", `the header should end at byte ${dataStart}, the file ends at ${sizeBytes}`, sizeBytes);
  }
  const bytes = file.read(8, headerBytes);
  if (bytes[0] !== 0x7b) fail("HeaderStart", "the header must begin with '{'", 8);
  const json = parseHeader(path, bytes);
  const metadata = new Map<string, string>();
  const tensors: [string, TensorInfo][] = [];
  for (const [key, value] of json) {
    if (key !== METADATA_KEY) {
      tensors.push([key, readInfo(path, key, value, dataStart)]);
      continue;
    }
    if (!(value instanceof Map)) return fail("InvalidMetadata", `${METADATA_KEY} must be an object of strings`, 8);
    for (const [name, text] of value) {
      if (typeof text !== "string") {
        return fail("InvalidMetadata", `${METADATA_KEY}: the value of ${JSON.stringify(name)} must be a string`, 8);
      }
      metadata.set(name, text);
    }
  }
  tensors.sort(([, a], [, b]) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = dataStart;
  for (const [key, { byteOffset, byteLength }] of tensors) {
    if (byteOffset > end) fail("Hole", `${byteOffset - end} bytes before it belong to no tensor`, end, key);
    if (byteOffset < end)
      fail("Overlap", `it begins ${end - byteOffset} bytes before the end of another`, byteOffset, key);
    end += byteLength;
    if (end > sizeBytes) {
      fail("DataOutOfBounds", `it should end at byte ${end}, the file ends at ${sizeBytes}`, byteOffset, key);
    }
  }
  if (end < sizeBytes) fail("TrailingBytes", `${sizeBytes - end} bytes at the end belong to no tensor`, end);
  return { metadata, tensors: new Map(tensors) };
}

function parseHeader(path: string, bytes: Uint8Array): Map<string, StrictJson> {
  try {
    const json = parseStrictJson(bytes);
    if (json instanceof Map) return json;
    throw new StrictJsonError("HeaderNotJson", "the header is not an object", 0);
  } catch (error) {
    if (!(error instanceof StrictJsonError)) throw error;
    throw new FormatError({ path, rule: error.rule, message: error.message, byteOffset: 8 + error.byteOffset });
  }
}

function readInfo(path: string, tensor: string, value: StrictJson, dataStart: number): TensorInfo {
  const fail = (rule: string, message: string, byteOffset?: number): never => {
    throw new FormatError({ path, rule, message, tensor, byteOffset });
  };
  if (!(value instanceof Map)) return fail("InvalidEntry", "its entry must be an object");
  for (const field of ["dtype", "shape", "data_offsets"]) {
    if (!value.has(field)) fail("InvalidEntry", `its entry lacks ${field}`);
  }
  if (value.size !== 3) fail("InvalidEntry", `its entry has fields other than dtype, shape and data_offsets`);
  const formatDtype = value.get("dtype");
  if (typeof formatDtype !== "string" || !Object.hasOwn(DTYPES, formatDtype)) {
    return fail("UnknownDtype", `dtype ${JSON.stringify(formatDtype)} is not one of the format`);
  }
  const shape = value.get("shape");
  if (!isIntegers(shape)) return fail("InvalidShape", "shape must be an array of non-negative integers");
  const offsets = value.get("data_offsets");
  if (!isIntegers(offsets) || offsets.length !== 2) {
    return fail("InvalidOffsets", "data_offsets must be two non-negative integers");
  }
  const [begin, end] = offsets as [number, number];
  const byteOffset = dataStart + begin;
  if (begin > end) fail("InvalidOffsets", `data_offsets begin at ${begin}, behind their end at ${end}`, byteOffset);
  const { bits, dtype } = DTYPES[formatDtype]!;
  // In BigInt: a hostile shape must not overflow into a plausible size. A million sizes are no product to work out.
  let sizeBits = shape.includes(0) ? 0n : BigInt(bits);
  for (const size of shape) {
    sizeBits *= BigInt(size);
    if (sizeBits > MAX_TENSOR_BITS) fail("ShapeOverflow", `shape [${shape}] overflows`, byteOffset);
  }
  if (sizeBits % 8n !== 0n) fail("MisalignedSize", `shape [${shape}] of ${formatDtype} ends within a byte`, byteOffset);
  if (sizeBits / 8n !== BigInt(end - begin)) {
    const message = `shape [${shape}] of ${formatDtype} takes ${sizeBits / 8n} bytes, data_offsets span ${end - begin}`;
    fail("SizeMismatch", message, byteOffset);
  }
  return { formatDtype, dtype: dtype ?? null, shape, byteOffset, byteLength: end - begin };
}

function isIntegers(value: StrictJson | undefined): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === "number");
}

/**
 * Reads every tensor of a file, over its map. The caller owns them. Python: `safetensors.torch.load_file`.
 *
 * @throws FormatError when a rule of the format is broken, TorchError when the file cannot be read
 *
 * @example
 * ```ts
 * const weights = readSafetensors("model.safetensors");
 * model.loadStateDict(weights);
 * ```
 */
export function readSafetensors(path: string): Map<string, Tensor> {
  using file = SafetensorsFile.open(path);
  const tensors = new Map<string, Tensor>();
  try {
    for (const key of file.keys()) tensors.set(key, file.get(key));
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  }
  return tensors;
}

/** A tensor that is made when its turn to be written comes, and freed after it. */
export interface DeferredTensor {
  /** Of what {@link read} makes. */
  dtype: DType;
  /** Of what {@link read} makes. */
  shape: readonly number[];
  /** Makes the tensor. */
  read(): Tensor;
}

/** Whether a value is a tensor yet to be made. */
export function isDeferred(value: unknown): value is DeferredTensor {
  return typeof (value as DeferredTensor | null)?.read === "function";
}

/** Makes a tensor whose turn has come. @throws TorchError when it is not what was announced */
export function readDeferred(path: string, name: string, tensor: Tensor | DeferredTensor): Tensor {
  if (!("read" in tensor)) return tensor;
  const values = tensor.read();
  if (values.dtype === tensor.dtype && String(values.shape) === String(tensor.shape)) return values;
  throw new TorchError(
    `${path}: ${name}: announced as ${tensor.dtype} [${tensor.shape}], made as ${values.dtype} [${values.shape}]`,
  );
}

/**
 * Writes tensors under their names, atomically, a piece at a time. Tensors that share memory are written once for each
 * name; a {@link DeferredTensor} is in memory only while it is written. Python: `safetensors.torch.save_file`.
 *
 * @param metadata free-form strings
 * @throws TorchError when a tensor or name cannot be stored or the disk refuses; `path` is then as it was
 *
 * @example
 * ```ts
 * writeSafetensors("model.safetensors", model.stateDict(), { format: "pt" });
 * ```
 */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, Tensor | DeferredTensor> | Record<string, Tensor | DeferredTensor>,
  metadata: Record<string, string> = {},
): void {
  takeAll(writeSafetensorsInPieces(path, tensors, metadata));
}

/**
 * As {@link writeSafetensors}, a tensor with each step: between two steps other work can run, or the file can be given
 * up. There is nothing at `path` before the last step, and nothing unfinished beside it when the work is left.
 *
 * @example
 * ```ts
 * for (const _ of writeSafetensorsInPieces("model.safetensors", model.stateDict())) {
 *   await new Promise(setImmediate);
 *   signal.throwIfAborted();
 * }
 * ```
 */
export function* writeSafetensorsInPieces(
  path: string,
  tensors: ReadonlyMap<string, Tensor | DeferredTensor> | Record<string, Tensor | DeferredTensor>,
  metadata: Record<string, string> = {},
): Generator<void, void, void> {
  if (typeof tensors !== "object" || tensors === null)
    throw new TorchError(`${path}: expected tensors by name, got ${shown(tensors)}`);
  const entries = entriesOf(tensors).map(([name, tensor]) => {
    if (!(tensor instanceof Tensor || isDeferred(tensor)))
      throw new TorchError(`${path}: ${name}: expected a Tensor, got ${shown(tensor)}`);
    const formatDtype = FORMAT_DTYPE_OF.get(tensor.dtype);
    if (formatDtype === undefined) throw new TorchError(`${path}: ${name}: dtype ${tensor.dtype} cannot be stored`);
    if (name === METADATA_KEY) throw new TorchError(`${path}: a tensor cannot be named ${METADATA_KEY}`);
    if (/\p{Surrogate}/u.test(name))
      throw new TorchError(`${path}: the name ${JSON.stringify(name)} is not valid Unicode`);
    return { name, tensor, formatDtype, rank: FORMAT_DTYPES.indexOf(formatDtype) };
  });
  entries.sort((a, b) => b.rank - a.rank || Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
  const header: [string, unknown][] = [];
  const metadataEntries = Object.entries(metadata);
  for (const [key, value] of metadataEntries) {
    if (typeof value !== "string") throw new TorchError(`${path}: metadata ${JSON.stringify(key)} must be a string`);
  }
  if (metadataEntries.length > 0) header.push([METADATA_KEY, metadata]);
  let end = 0;
  for (const { name, tensor, formatDtype } of entries) {
    const begin = end;
    end += tensor.shape.reduce((product, size) => product * size, itemSize(tensor.dtype));
    header.push([name, { dtype: formatDtype, shape: [...tensor.shape], data_offsets: [begin, end] }]);
  }
  // Joined by hand: an object would move integer-like names to the front.
  const members = header.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const json = Buffer.from(`{${members.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES) throw new TorchError(`${path}: the header would exceed ${MAX_HEADER_BYTES} bytes`);
  const prefix = Buffer.alloc(8 + padded, " ");
  prefix.writeBigUInt64LE(BigInt(padded), 0);
  json.copy(prefix, 8);
  yield* writeFileInPieces(path, function* (write) {
    write(prefix);
    const buffer = pieceBuffer();
    for (const { name, tensor } of entries) {
      scope(() => streamBytes(readDeferred(path, name, tensor), buffer, write));
      yield;
    }
  });
}

function entriesOf<T>(tensors: ReadonlyMap<string, T> | Record<string, T>): [string, T][] {
  return tensors instanceof Map ? [...tensors] : Object.entries(tensors as Record<string, T>);
}
