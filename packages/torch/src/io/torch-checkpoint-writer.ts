/**
 * Writes files that `torch.load(path, weights_only=True)` reads: dictionaries, lists, numbers, texts and tensors in the
 * archive of `torch.save` (torch 1.6 and later).
 *
 *   checkpoint/data.pkl      the values; a tensor names its storage by number
 *   checkpoint/byteorder     "little"
 *   checkpoint/data/0, …     the storages, each at a multiple of 64 bytes
 *   checkpoint/version       "3"
 *
 * Tensors may be deferred: each is in memory only while its checksum is computed and its bytes are written.
 * Formats: Python's `pickletools` (protocol 2), PKWARE APPNOTE 6.3.10 (stored members, ZIP64 where sizes need it).
 */
import { crc32 } from "node:zlib";
import { type DType, itemSize } from "../dtype.js";
import { shown, TorchError } from "../errors.js";
import { scope } from "../scope.js";
import { Tensor } from "../tensor.js";
import { type Sink, writeFileInPieces } from "./atomic-write.js";
import { type DeferredTensor, isDeferred, readDeferred } from "./safetensors.js";
import { pieceBuffer, streamBytes } from "./tensor-bytes.js";
import { takeAll } from "./tensor-file.js";

/** A number that is a float in Python, whatever its value: JavaScript does not tell 1 from 1.0. */
export class PythonFloat {
  constructor(readonly value: number) {}
}

/** A list that is a tuple in Python. */
export class PythonTuple {
  constructor(readonly items: readonly Picklable[]) {}
}

/** What a checkpoint may hold. Whole numbers and bigints are of type int, others of type float; arrays are lists. */
export type Picklable =
  | null
  | boolean
  | number
  | bigint
  | string
  | PythonFloat
  | PythonTuple
  | Tensor
  | DeferredTensor
  | readonly Picklable[]
  | ReadonlyMap<string | number, Picklable>
  | { readonly [key: string]: Picklable };

const STORAGES: Partial<Record<DType, string>> = {
  float64: "DoubleStorage",
  float32: "FloatStorage",
  float16: "HalfStorage",
  bfloat16: "BFloat16Storage",
  int64: "LongStorage",
  int32: "IntStorage",
  int16: "ShortStorage",
  int8: "CharStorage",
  uint8: "ByteStorage",
  bool: "BoolStorage",
};

const FOLDER = "checkpoint";
const ALIGNMENT = 64;
/** From here on a field of 32 bits says "see the ZIP64 field". */
const LIMIT_32 = 0xffffffff;
const LIMIT_16 = 0xffff;
/** 1980-01-01: the same values give the same file. */
const DOS_DATE = 0x21;

/**
 * Writes a checkpoint, atomically.
 *
 * @throws TorchError when a value cannot be stored or the disk refuses; `path` is then as it was
 *
 * @example
 * ```ts
 * writeTorchCheckpoint("last.ckpt", { global_step: 3, state_dict: model.stateDict() });
 * ```
 */
export function writeTorchCheckpoint(path: string, root: Picklable): void {
  takeAll(writeTorchCheckpointInPieces(path, root));
}

/**
 * As {@link writeTorchCheckpoint}, a tensor with each step: between two steps other work can run, or the file can be
 * given up. There is nothing at `path` before the last step, and nothing unfinished beside it when the work is left.
 *
 * @example
 * ```ts
 * for (const _ of writeTorchCheckpointInPieces("last.ckpt", { state_dict: model.stateDict() })) {
 *   await new Promise(setImmediate);
 *   signal.throwIfAborted();
 * }
 * ```
 */
export function* writeTorchCheckpointInPieces(path: string, root: Picklable): Generator<void, void, void> {
  const pickler = new Pickler(path);
  const pickle = pickler.dump(root);
  yield* writeFileInPieces(path, function* (write) {
    const zip = new ZipWriter(write);
    const plain = (name: string, bytes: Uint8Array): void =>
      zip.member(`${FOLDER}/${name}`, bytes.length, crc32(bytes), (sink) => sink(bytes));
    plain("data.pkl", pickle);
    plain("byteorder", Buffer.from("little"));
    const buffer = pieceBuffer();
    for (const [index, { name, tensor }] of pickler.tensors.entries()) {
      const size = tensor.shape.reduce((product, length) => product * length, itemSize(tensor.dtype));
      scope(() => {
        const values = readDeferred(path, name, tensor);
        let crc = 0;
        streamBytes(values, buffer, (piece) => {
          crc = crc32(piece, crc);
        });
        zip.member(`${FOLDER}/data/${index}`, size, crc, (sink) => streamBytes(values, buffer, sink));
      });
      yield;
    }
    plain("version", Buffer.from("3\n"));
    zip.end();
  });
}

/** Writes pickles of protocol 2, and collects the tensors that they name. */
class Pickler {
  readonly tensors: { name: string; tensor: Tensor | DeferredTensor }[] = [];
  readonly #path: string;
  readonly #parts: Buffer[] = [];
  /** Lists and dictionaries that are being written, one within the other. */
  readonly #around = new Set<object>();

  constructor(path: string) {
    this.#path = path;
  }

  dump(root: Picklable): Buffer {
    this.#bytes(0x80, 2); // PROTO 2
    this.#value(root, "");
    this.#op("."); // STOP
    return Buffer.concat(this.#parts);
  }

  #op(text: string): void {
    this.#parts.push(Buffer.from(text, "latin1"));
  }

  #bytes(...values: number[]): void {
    this.#parts.push(Buffer.from(values));
  }

  #value(value: Picklable, place: string): void {
    if (value === null) this.#op("N");
    else if (typeof value === "boolean") this.#op(value ? "\x88" : "\x89");
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "bigint") this.#integer(value, place);
    else if (typeof value === "string") this.#text(value, place);
    else if (typeof value !== "object") throw this.#unfit(value, place);
    else if (value instanceof PythonFloat) this.#float(value.value);
    else if (value instanceof Tensor || isDeferred(value)) this.#tensor(value, place);
    else this.#container(value, place);
  }

  #container(value: object, place: string): void {
    if (this.#around.has(value)) throw new TorchError(`${this.#path}: ${place}: is held by itself`);
    this.#around.add(value);
    if (value instanceof PythonTuple) this.#sequence("", value.items, "t", place);
    else if (Array.isArray(value)) this.#sequence("]", value, "e", place);
    else if (value instanceof Map) this.#dictionary([...value], place);
    else if (isPlain(value)) this.#dictionary(Object.entries(value), place);
    else throw this.#unfit(value, place);
    this.#around.delete(value);
  }

  #unfit(value: unknown, place: string): TorchError {
    const expected = "null, a boolean, number, bigint, text, Tensor, list, Map or plain object";
    return new TorchError(`${this.#path}: ${place || "the root"}: expected ${expected}, got ${shown(value)}`);
  }

  #dictionary(entries: readonly [unknown, unknown][], place: string): void {
    this.#op("}("); // EMPTY_DICT, MARK
    for (const [key, item] of entries) {
      this.#value(key as Picklable, place);
      this.#value(item as Picklable, place === "" ? String(key) : `${place}.${key}`);
    }
    this.#op("u"); // SETITEMS
  }

  #sequence(begin: string, items: readonly Picklable[], end: string, place: string): void {
    this.#op(`${begin}(`);
    for (const [i, item] of items.entries()) this.#value(item, `${place}[${i}]`);
    this.#op(end);
  }

  #number(value: number): void {
    if (!Number.isInteger(value) || Object.is(value, -0)) this.#float(value);
    else if (value >= 0 && value <= 0xff)
      this.#bytes(0x4b, value); // BININT1
    else if (value >= -(2 ** 31) && value < 2 ** 31) {
      const bytes = Buffer.alloc(5);
      bytes.write("J", "latin1"); // BININT
      bytes.writeInt32LE(value, 1);
      this.#parts.push(bytes);
    } else this.#integer(BigInt(value), "");
  }

  /** In two's complement, the lowest byte first: LONG1, which `weights_only` allows, has 255 bytes. */
  #integer(value: bigint, place: string): void {
    let size = 8;
    while (size < 256 && BigInt.asIntN(8 * size, value) !== value) size *= 2;
    if (size === 256) throw new TorchError(`${this.#path}: ${place || "the root"}: an integer of more than 1024 bits`);
    const bytes: number[] = [];
    for (let rest = value; bytes.length < size; rest >>= 8n) bytes.push(Number(rest & 0xffn));
    this.#bytes(0x8a, size, ...bytes);
  }

  #float(value: number): void {
    const bytes = Buffer.alloc(9);
    bytes.write("G", "latin1"); // BINFLOAT
    bytes.writeDoubleBE(value, 1);
    this.#parts.push(bytes);
  }

  #text(value: string, place: string): void {
    if (/\p{Surrogate}/u.test(value)) throw new TorchError(`${this.#path}: ${place}: a text that is not valid Unicode`);
    const bytes = Buffer.from(value);
    const head = Buffer.alloc(5);
    head.write("X", "latin1"); // BINUNICODE
    head.writeUInt32LE(bytes.length, 1);
    this.#parts.push(head, bytes);
  }

  /** `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`, the storage by its number. */
  #tensor(tensor: Tensor | DeferredTensor, place: string): void {
    const storage = STORAGES[tensor.dtype];
    if (storage === undefined) throw new TorchError(`${this.#path}: ${place}: dtype ${tensor.dtype} cannot be stored`);
    const key = String(this.tensors.length);
    this.tensors.push({ name: place, tensor });
    const count = tensor.shape.reduce((product, size) => product * size, 1);
    const strides = tensor.shape.map((_, i) => tensor.shape.slice(i + 1).reduce((product, size) => product * size, 1));
    this.#op("ctorch._utils\n_rebuild_tensor_v2\n(("); // GLOBAL, MARK, MARK
    this.#text("storage", place);
    this.#op(`ctorch\n${storage}\n`);
    this.#text(key, place);
    this.#text("cpu", place);
    this.#number(count);
    this.#op("tQ"); // TUPLE, BINPERSID
    this.#number(0);
    this.#sequence("", tensor.shape, "t", place);
    this.#sequence("", strides, "t", place);
    this.#op("\x89ccollections\nOrderedDict\n)RtR"); // False, an empty dictionary, TUPLE, REDUCE
  }
}

function isPlain(value: object): value is Record<string, unknown> {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** An archive of stored members, written from its beginning to its end. */
class ZipWriter {
  readonly #write: Sink;
  readonly #directory: Buffer[] = [];
  #at = 0;

  constructor(write: Sink) {
    this.#write = write;
  }

  /** @param produce passes `size` bytes on, whose CRC-32 is `crc` */
  member(name: string, size: number, crc: number, produce: (sink: Sink) => void): void {
    const label = Buffer.from(name);
    const offset = this.#at;
    const sizes64 = size >= LIMIT_32 ? [size, size] : [];
    const local = zip64Field(sizes64);
    // A field without meaning moves the values to where a mapped file may be read from.
    const gap = (ALIGNMENT - ((offset + 30 + label.length + local.length + 4) % ALIGNMENT)) % ALIGNMENT;
    const padding = Buffer.alloc(4 + gap, "Z");
    padding.write("FB", "latin1");
    padding.writeUInt16LE(gap, 2);
    const header = Buffer.alloc(30);
    header.writeUInt32LE(0x04034b50, 0);
    common(header, 4, { size, crc, nameLength: label.length, extraLength: local.length + padding.length });
    this.#put(Buffer.concat([header, label, local, padding]));
    const start = this.#at;
    produce((bytes) => this.#put(bytes));
    if (this.#at - start !== size) throw new TorchError(`${name}: expected ${size} bytes, got ${this.#at - start}`);
    const extra = zip64Field([...sizes64, ...(offset >= LIMIT_32 ? [offset] : [])]);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(45, 4); // made by
    common(entry, 6, { size, crc, nameLength: label.length, extraLength: extra.length });
    entry.writeUInt32LE(Math.min(offset, LIMIT_32), 42);
    this.#directory.push(entry, label, extra);
  }

  end(): void {
    const start = this.#at;
    const count = this.#directory.length / 3;
    for (const part of this.#directory) this.#put(part);
    const size = this.#at - start;
    if (start >= LIMIT_32 || size >= LIMIT_32 || count >= LIMIT_16) {
      const end64 = Buffer.alloc(56 + 20);
      end64.writeUInt32LE(0x06064b50, 0);
      end64.writeBigUInt64LE(44n, 4);
      end64.writeUInt16LE(45, 12);
      end64.writeUInt16LE(45, 14);
      for (const [i, value] of [count, count, size, start].entries()) end64.writeBigUInt64LE(BigInt(value), 24 + 8 * i);
      end64.writeUInt32LE(0x07064b50, 56);
      end64.writeBigUInt64LE(BigInt(this.#at), 64);
      end64.writeUInt32LE(1, 72);
      this.#put(end64);
    }
    const end = Buffer.alloc(22);
    end.writeUInt32LE(0x06054b50, 0);
    end.writeUInt16LE(Math.min(count, LIMIT_16), 8);
    end.writeUInt16LE(Math.min(count, LIMIT_16), 10);
    end.writeUInt32LE(Math.min(size, LIMIT_32), 12);
    end.writeUInt32LE(Math.min(start, LIMIT_32), 16);
    this.#put(end);
  }

  #put(bytes: Uint8Array): void {
    this.#write(bytes);
    this.#at += bytes.length;
  }
}

/** The fields that a member's header and its entry in the directory share, from "version needed" on. */
function common(
  into: Buffer,
  at: number,
  { size, crc, nameLength, extraLength }: { size: number; crc: number; nameLength: number; extraLength: number },
): void {
  into.writeUInt16LE(45, at);
  into.writeUInt16LE(0x0800, at + 2); // names are UTF-8
  into.writeUInt16LE(DOS_DATE, at + 8);
  into.writeUInt32LE(crc, at + 10);
  into.writeUInt32LE(Math.min(size, LIMIT_32), at + 14);
  into.writeUInt32LE(Math.min(size, LIMIT_32), at + 18);
  into.writeUInt16LE(nameLength, at + 22);
  into.writeUInt16LE(extraLength, at + 24);
}

function zip64Field(values: readonly number[]): Buffer {
  if (values.length === 0) return Buffer.alloc(0);
  const field = Buffer.alloc(4 + 8 * values.length);
  field.writeUInt16LE(1, 0);
  field.writeUInt16LE(8 * values.length, 2);
  for (const [i, value] of values.entries()) field.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
  return field;
}
