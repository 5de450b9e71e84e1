/**
 * PyTorch's checkpoint files (`torch.save`) without Python: state dicts and plain values, nothing else, and nothing is executed.
 *
 *   zip archive (torch 1.6 and later)     NAME/data.pkl, NAME/data/0, NAME/data/1, …, NAME/byteorder
 *   plain file (before)                   five pickles, then each storage: count (int64), values
 *
 * The pickle is read by the machine of pickle.ts, which knows ordered dictionaries, sizes, dtypes, storages and the functions that put
 * a tensor together from its storage, offset, shape and strides. Objects of other classes are refused by name, except below
 * keys whose values are not needed ({@link OPAQUE_KEYS}). Every size is compared with the file before anything is allocated;
 * values are read when a tensor is asked for.
 * Layout: https://docs.pytorch.org/docs/stable/notes/serialization.html
 */
import { empty } from "../creation.js";
import type { DType } from "../dtype.js";
import { TorchError } from "../errors.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { checkTarget, copyValues, type ValueSource } from "./copy-values.js";
import { FormatError } from "./format-error.js";
import { checkPlain, Known, PickleLeaf, type PickleValue, readPickle } from "./pickle.js";
import { RegularFile } from "./regular-file.js";
import type { StoredTensorInfo, TensorFile } from "./tensor-file.js";
import { ZipFile } from "./zip-file.js";

/**
 * Top-level keys of training checkpoints whose values may hold objects of any class; those come as `Opaque`, without content.
 * They are the keys of PyTorch Lightning's checkpoints and of open_clip's.
 */
export const OPAQUE_KEYS: readonly string[] = [
  "callbacks",
  "loops",
  "hyper_parameters",
  "hparams_name",
  "hparams_type",
  "datamodule_hyper_parameters",
  "lr_schedulers",
  "optimizer_states",
  "MixedPrecision",
  "optimizer",
  "scheduler",
  "args",
  "config",
  "meta",
  "epoch",
  "name",
];

/** Storage classes and dtypes: bytes of an element, and the engine's dtype where it has one. */
const ELEMENTS: readonly [storage: string | null, dtype: string, bytes: number, engine: DType | null][] = [
  ["DoubleStorage", "float64", 8, "float64"],
  ["FloatStorage", "float32", 4, "float32"],
  ["HalfStorage", "float16", 2, "float16"],
  ["BFloat16Storage", "bfloat16", 2, "bfloat16"],
  ["LongStorage", "int64", 8, "int64"],
  ["IntStorage", "int32", 4, "int32"],
  ["ShortStorage", "int16", 2, "int16"],
  ["CharStorage", "int8", 1, "int8"],
  ["ByteStorage", "uint8", 1, "uint8"],
  ["BoolStorage", "bool", 1, "bool"],
  ["ComplexFloatStorage", "complex64", 8, null],
  ["ComplexDoubleStorage", "complex128", 16, null],
  [null, "uint16", 2, null],
  [null, "uint32", 4, null],
  [null, "uint64", 8, null],
  [null, "float8_e4m3fn", 1, null],
  [null, "float8_e5m2", 1, null],
];

/** What `torch.save` begins a plain file with. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_PROTOCOL = 1001;
/** The pickle of that number: PROTO 2, LONG1 of 10 bytes. */
const LEGACY_START = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc];
const MAX_DIMENSIONS = 64;
/** A tensor that repeats its storage's values (strides of 0) may have this many elements. */
const MAX_EXPANDED = 2 ** 20;

/** A dtype as a value of its own. */
class TorchDtype extends PickleLeaf {
  constructor(
    readonly name: string,
    readonly itemBytes: number,
    readonly engine: DType | null,
  ) {
    super();
  }
}

/** The values that tensors are views of. */
class TorchStorage extends PickleLeaf {
  /** Position of the values in the file; found out when it is first needed. */
  place: number | null = null;

  constructor(
    readonly key: string,
    /** Null: bytes, which the tensor interprets. */
    readonly dtype: TorchDtype | null,
    readonly sizeBytes: number,
  ) {
    super();
  }
}

/** A tensor of a checkpoint, described; its values are in the file. Take it out with {@link TorchCheckpoint.read}. */
export class TorchTensor extends PickleLeaf implements StoredTensorInfo {
  constructor(
    /** PyTorch's name of the dtype. */
    readonly formatDtype: string,
    readonly dtype: DType | null,
    readonly shape: readonly number[],
    /** In elements. */
    readonly strides: readonly number[],
    /** @internal */
    readonly storage: object,
    /** Position of the first value in its storage, in elements. */
    readonly storageOffset: number,
    /** Bytes of an element. */
    readonly itemBytes: number,
  ) {
    super();
  }

  get numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }
}

const DTYPES = new Map(ELEMENTS.map(([, name, bytes, engine]) => [name, new TorchDtype(name, bytes, engine)] as const));

/** The names that a pickle may use, and what they make. Storage classes are marked by their dtype. */
class StorageClass extends Known {
  constructor(
    name: string,
    readonly dtype: TorchDtype | null,
  ) {
    super(name, null);
  }
}

class DtypeName extends Known {
  constructor(readonly dtype: TorchDtype) {
    super(`torch.${dtype.name}`, null);
  }
}

const KNOWN: ReadonlyMap<string, Known> = new Map(
  [
    new Known("collections.OrderedDict", (args) => {
      if (args.length > 0) throw new Error("expected no arguments");
      return new Map();
    }),
    new Known("torch.Size", ([sizes, ...rest]) => {
      if (rest.length > 0) throw new Error("expected one argument");
      return [...counts(sizes, "the sizes")];
    }),
    new Known("torch._utils._rebuild_tensor_v2", (args) => {
      if (args.length < 6 || args.length > 7) throw new Error(`expected 6 or 7 arguments, found ${args.length}`);
      const [storage] = args;
      if (!(storage instanceof TorchStorage) || storage.dtype === null) throw new Error("expected a typed storage");
      return tensorOf(storage, storage.dtype, args);
    }),
    new Known("torch._utils._rebuild_tensor_v3", (args) => {
      if (args.length < 7 || args.length > 8) throw new Error(`expected 7 or 8 arguments, found ${args.length}`);
      const [storage, , , , , , dtype] = args;
      if (!(storage instanceof TorchStorage)) throw new Error("expected a storage");
      if (!(dtype instanceof DtypeName)) throw new Error("expected a dtype");
      return tensorOf(storage, dtype.dtype, args);
    }),
    new Known("torch._utils._rebuild_parameter", ([tensor, ...rest]) => {
      if (!(tensor instanceof TorchTensor) || rest.length !== 2) throw new Error("expected a tensor, a flag and hooks");
      return tensor;
    }),
    new StorageClass("torch.storage.UntypedStorage", null),
    new StorageClass("torch.UntypedStorage", null),
    ...ELEMENTS.flatMap(([storage, dtype]) =>
      storage === null ? [] : [new StorageClass(`torch.${storage}`, DTYPES.get(dtype)!)],
    ),
    ...[...DTYPES.values()].map((dtype) => new DtypeName(dtype)),
  ].map((known) => [known.name, known]),
);

function counts(value: PickleValue | undefined, what: string): number[] {
  if (!Array.isArray(value) || value.length > MAX_DIMENSIONS)
    throw new Error(`${what}: expected at most ${MAX_DIMENSIONS} numbers`);
  for (const size of value)
    if (!Number.isSafeInteger(size) || (size as number) < 0) throw new Error(`${what}: expected counts`);
  return value as number[];
}

/** Puts a tensor together from (storage, offset, shape, strides, …); nothing may reach beyond the storage. */
function tensorOf(storage: TorchStorage, dtype: TorchDtype, [, offset, sizes, steps]: PickleValue[]): TorchTensor {
  const shape = [...counts(sizes, "the shape")];
  const strides = [...counts(steps, "the strides")];
  const [start] = counts([offset ?? null], "the offset");
  if (shape.length !== strides.length) throw new Error(`shape [${shape}] and strides [${strides}] differ in length`);
  // In BigInt: hostile sizes must not overflow into plausible ones.
  const numel = shape.reduce((product, size) => product * BigInt(size), 1n);
  const available = BigInt(Math.floor(storage.sizeBytes / dtype.itemBytes));
  const last = shape.reduce((sum, size, i) => sum + BigInt(size - 1) * BigInt(strides[i]!), BigInt(start!));
  if (numel > 0n && last >= available)
    throw new Error(`shape [${shape}] with strides [${strides}] reaches beyond its storage of ${available} elements`);
  if (numel > available && numel > BigInt(MAX_EXPANDED))
    throw new Error(`shape [${shape}] repeats the ${available} elements of its storage too often`);
  return new TorchTensor(dtype.name, dtype.engine, shape, strides, storage, start!, dtype.itemBytes);
}

/** Options of {@link TorchCheckpoint.open}. */
export interface TorchCheckpointOptions {
  /** Top-level keys below which objects of unknown classes are tolerated, default {@link OPAQUE_KEYS}. */
  opaqueKeys?: readonly string[];
}

/** An open checkpoint. Tensors read from it are copies and stay valid after {@link close}. */
export class TorchCheckpoint {
  readonly path: string;
  /** Everything the file holds: maps, arrays, numbers, texts, {@link TorchTensor}s. */
  readonly root: PickleValue;
  readonly #file: RegularFile;
  readonly #storages = new Map<string, TorchStorage>();
  /** Where a storage's values lie; checks that the file holds all of them. */
  readonly #locate: (storage: TorchStorage) => number;

  private constructor(file: RegularFile, { opaqueKeys = OPAQUE_KEYS }: TorchCheckpointOptions) {
    this.#file = file;
    this.path = file.path;
    const { root, locate } = ZipFile.detect(file) ? this.#readArchive() : this.#readPlain();
    this.root = root;
    this.#locate = locate;
    checkPlain(this.path, root, new Set(opaqueKeys));
    for (const storage of this.#storages.values()) this.#place(storage);
  }

  /**
   * Opens a file and checks its structure; values are not read.
   * @throws FormatError naming the class, opcode or rule that is not allowed; TorchError when the file cannot be read
   */
  static open(path: string, options: TorchCheckpointOptions = {}): TorchCheckpoint {
    const file = RegularFile.open(path);
    try {
      return new TorchCheckpoint(file, options);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Whether a file begins as one of `torch.save` does. @throws TorchError when it cannot be read */
  static detect(path: string): boolean {
    const file = RegularFile.open(path);
    try {
      return ZipFile.detect(file) || isPlain(file);
    } finally {
      file.close();
    }
  }

  /**
   * The tensors of a state dict by name.
   * @param key where it is in the file; default: under `state_dict` if there is one, else the whole file
   * @throws FormatError when there is no dictionary of tensors
   */
  stateDict(key?: string): TensorFile {
    const { root, path } = this;
    const fail = (message: string): never => {
      throw new FormatError({ path, rule: "NotAStateDict", message });
    };
    if (!(root instanceof Map)) return fail("the file holds no dictionary");
    const name = key ?? (root.has("state_dict") ? "state_dict" : undefined);
    const dictionary = name === undefined ? root : root.get(name);
    if (!(dictionary instanceof Map)) return fail(`there is no dictionary under ${JSON.stringify(name)}`);
    const tensors = new Map<string, TorchTensor>();
    for (const [entry, value] of dictionary) {
      if (typeof entry !== "string" || !(value instanceof TorchTensor))
        return fail(`${name === undefined ? "" : `${name}.`}${String(entry).slice(0, 100)} is no tensor`);
      tensors.set(entry, value);
    }
    return this.tensors(tensors);
  }

  /** Tensors of this checkpoint as a file of their own, under names of the caller's choice. */
  tensors(tensors: ReadonlyMap<string, TorchTensor>): TensorFile {
    const find = (key: string): TorchTensor => {
      const tensor = tensors.get(key);
      if (tensor === undefined) throw new TorchError(`${this.path}: holds no tensor ${JSON.stringify(key)}`);
      return tensor;
    };
    return {
      path: this.path,
      keys: () => [...tensors.keys()],
      has: (key) => tensors.has(key),
      info: find,
      copyTo: (key, target) => this.copyTo(find(key), target, key),
    };
  }

  /** A tensor's values, in its dtype, on the CPU, in C order; the caller owns it. Any value is allowed in it. */
  read(tensor: TorchTensor, name = "of the checkpoint"): Tensor {
    return scope(() => {
      const values = empty(tensor.shape as number[], { dtype: engineDtype(this.path, tensor, name) });
      this.#copy(tensor, values, name, false);
      return values;
    });
  }

  /**
   * Copies a tensor's values into one of as many elements, converting them to its dtype and device.
   * @param name for errors
   * @throws FormatError when a floating value is not finite
   */
  copyTo(tensor: TorchTensor, target: Tensor, name = "of the checkpoint"): void {
    this.#copy(tensor, target, name, true);
  }

  #copy(tensor: TorchTensor, target: Tensor, name: string, onlyFinite: boolean): void {
    const { shape, strides, itemBytes, storageOffset, path } = { ...tensor, path: this.path };
    const storage = tensor.storage as TorchStorage;
    const source: ValueSource = {
      path,
      key: name,
      byteOffset: this.#place(storage) + storageOffset * itemBytes,
      dtype: engineDtype(path, tensor, name),
      shape,
      readInto: (bytes, at) => this.#file.readInto(bytes, at),
    };
    checkTarget(source, target);
    if (tensor.numel === 0 || isContiguous(shape, strides)) {
      copyValues(source, target, { onlyFinite });
      return;
    }
    // Another order, or gaps: the part of the storage from the first to the last value, seen with the strides.
    const length = shape.reduce((sum, size, i) => sum + (size - 1) * strides[i]!, 1);
    scope(() => {
      const part = empty([length], { dtype: source.dtype });
      copyValues({ ...source, shape: [length] }, part, { onlyFinite });
      target.detach().copy_(aten.as_strided(part, shape, strides, 0).reshape(...target.shape));
    });
  }

  #place(storage: TorchStorage): number {
    storage.place ??= this.#locate(storage);
    return storage.place;
  }

  #fail(rule: string, message: string, byteOffset?: number): never {
    throw new FormatError({ path: this.path, rule, message, byteOffset });
  }

  #persistent(id: PickleValue, fields: number): PickleValue {
    if (!Array.isArray(id) || id.length !== fields) throw new Error(`expected ${fields} fields`);
    const [what, storageClass, key, , count] = id;
    if (what !== "storage") throw new Error("expected a storage");
    if (!(storageClass instanceof StorageClass)) throw new Error("expected a storage class");
    if (typeof key !== "string" || !/^[0-9]{1,20}$/.test(key)) throw new Error("expected digits as the storage's key");
    const [elements] = counts([count ?? null], "the size of a storage");
    const sizeBytes = elements! * (storageClass.dtype?.itemBytes ?? 1);
    if (!Number.isSafeInteger(sizeBytes)) throw new Error("the size of a storage overflows");
    const known = this.#storages.get(key);
    if (known !== undefined) {
      if (known.sizeBytes !== sizeBytes || known.dtype !== storageClass.dtype)
        throw new Error(`storage ${key} is described in two ways`);
      return known;
    }
    const storage = new TorchStorage(key, storageClass.dtype, sizeBytes);
    this.#storages.set(key, storage);
    return storage;
  }

  #readArchive(): { root: PickleValue; locate: (storage: TorchStorage) => number } {
    const zip = new ZipFile(this.#file);
    const names = zip.names();
    const folder = names[0]?.split("/")[0] ?? "";
    if (names.some((name) => /^[^/]+\/(code\/|constants\.pkl$)/.test(name)))
      this.#fail(
        "TorchScript",
        "a TorchScript archive, which holds a program; save its state_dict() with torch.save, or use a safetensors file of the same weights",
      );
    if (!zip.has(`${folder}/data.pkl`))
      this.#fail("NotACheckpoint", `a zip archive without ${JSON.stringify(`${folder}/data.pkl`)}: not of torch.save`);
    if (zip.has(`${folder}/byteorder`)) {
      const { offset, sizeBytes } = zip.member(`${folder}/byteorder`);
      const order = Buffer.from(this.#file.read(offset, Math.min(sizeBytes, 16))).toString("latin1");
      if (order !== "little") this.#fail("ByteOrder", `values are ${JSON.stringify(order)}-endian`, offset);
    }
    const pickle = zip.member(`${folder}/data.pkl`);
    const end = pickle.offset + pickle.sizeBytes;
    const { value } = readPickle(this.#file, {
      start: pickle.offset,
      end,
      known: KNOWN,
      persistent: (id) => this.#persistent(id, 5),
    });
    const locate = ({ key, sizeBytes }: TorchStorage): number => {
      const member = zip.member(`${folder}/data/${key}`);
      if (member.sizeBytes !== sizeBytes)
        this.#fail("SizeMismatch", `storage ${key} takes ${sizeBytes} bytes, its member has ${member.sizeBytes}`);
      return member.offset;
    };
    return { root: value, locate };
  }

  #readPlain(): { root: PickleValue; locate: (storage: TorchStorage) => number } {
    const file = this.#file;
    if (!isPlain(file))
      this.#fail("NotACheckpoint", "neither a zip archive nor a plain file of torch.save: not a PyTorch checkpoint", 0);
    let at = 0;
    const next = (persistentFields = 0): PickleValue => {
      const { value, end } = readPickle(file, {
        start: at,
        end: file.sizeBytes,
        known: KNOWN,
        persistent: (id) => {
          if (persistentFields === 0) throw new Error("there are no storages here");
          return this.#persistent(id, persistentFields);
        },
      });
      at = end;
      return value;
    };
    if (next() !== LEGACY_MAGIC) this.#fail("BadMagic", "the file does not begin with PyTorch's number", 0);
    const protocol = next();
    if (protocol !== LEGACY_PROTOCOL) this.#fail("UnknownProtocol", `file version ${String(protocol)}`, 0);
    const system = next();
    if (!(system instanceof Map) || system.get("little_endian") !== true)
      this.#fail("ByteOrder", "values are not little-endian", at);
    const root = next(6);
    const keysAt = at;
    const keys = next();
    if (!Array.isArray(keys)) return this.#fail("BadKeys", "the list of storages is missing", keysAt);
    const places = new Map<string, number>();
    for (const key of keys) {
      const storage = typeof key === "string" ? this.#storages.get(key) : undefined;
      if (storage === undefined || places.has(storage.key))
        return this.#fail("BadKeys", "the list of storages names one that no tensor has, or one twice", keysAt);
      if (at + 8 + storage.sizeBytes > file.sizeBytes)
        this.#fail("DataOutOfBounds", `storage ${storage.key} should end at byte ${at + 8 + storage.sizeBytes}`, at);
      const stated = Buffer.from(file.read(at, 8)).readBigInt64LE();
      const width = storage.dtype?.itemBytes ?? 1;
      if (stated * BigInt(width) !== BigInt(storage.sizeBytes))
        this.#fail(
          "SizeMismatch",
          `storage ${storage.key} has ${stated} elements, expected ${storage.sizeBytes / width}`,
          at,
        );
      places.set(storage.key, at + 8);
      at += 8 + storage.sizeBytes;
    }
    const locate = ({ key }: TorchStorage): number =>
      places.get(key) ?? this.#fail("MissingStorage", `storage ${key} is not in the list of storages`, keysAt);
    return { root, locate };
  }

  /** Closes the file. */
  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function isPlain(file: RegularFile): boolean {
  if (file.sizeBytes < LEGACY_START.length) return false;
  return file.read(0, LEGACY_START.length).every((byte, i) => byte === LEGACY_START[i]);
}

function engineDtype(path: string, { dtype, formatDtype }: TorchTensor, tensor: string): DType {
  if (dtype !== null) return dtype;
  const message = `dtype ${formatDtype} is not supported by the engine`;
  throw new FormatError({ path, rule: "UnsupportedDtype", message, tensor });
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}
