/**
 * PyTorch's checkpoint files (`torch.save`) without Python: state dicts and plain values, nothing else, and nothing is
 * executed.
 *
 *   zip archive (torch 1.6 and later)     NAME/data.pkl, NAME/data/0, NAME/data/1, …, NAME/byteorder
 *   plain file (before)                   five pickles, then each storage: count (int64), values
 *
 * The pickle is read by the machine of pickle.ts, which knows ordered dictionaries, sets, sizes, dtypes, storages, the
 * functions that put a tensor together from its storage, offset, shape and strides, and NumPy's scalars. Objects of
 * other classes come as `Opaque`: their names, nothing else. Every size is compared with the file before anything is
 * allocated; values are read when a tensor is asked for. Layout:
 * https://docs.pytorch.org/docs/stable/notes/serialization.html
 */
import { noGrad } from "../autograd.js";
import { empty } from "../creation.js";
import type { DType } from "../dtype.js";
import { TorchError } from "../errors.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { checkTarget, copyValues, type ValueSource } from "./copy-values.js";
import { FormatError, refuseStandIn } from "./format-error.js";
import { containEntries, Known, Opaque, PickledBytes, PickleLeaf, type PickleValue, readPickle } from "./pickle.js";
import { RegularFile } from "./regular-file.js";
import { type StoredTensorInfo, type TensorFile, takeAll, tensorFile } from "./tensor-file.js";
import { ZipFile } from "./zip-file.js";

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
  ["ComplexHalfStorage", "complex32", 4, null],
  ["QInt8Storage", "qint8", 1, null],
  ["QUInt8Storage", "quint8", 1, null],
  ["QInt32Storage", "qint32", 4, null],
  ["QUInt4x2Storage", "quint4x2", 1, null],
  ["QUInt2x4Storage", "quint2x4", 1, null],
  [null, "uint16", 2, null],
  [null, "uint32", 4, null],
  [null, "uint64", 8, null],
  [null, "float8_e4m3fn", 1, null],
  [null, "float8_e4m3fnuz", 1, null],
  [null, "float8_e5m2", 1, null],
  [null, "float8_e5m2fnuz", 1, null],
  [null, "float8_e8m0fnu", 1, null],
  [null, "float4_e2m1fn_x2", 1, null],
];

/** What `torch.save` begins a plain file with. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_PROTOCOL = 1001;
/** The pickle of that number: PROTO, from protocol 4 on FRAME, LONG1 of 10 bytes; in hexadecimal. */
const LEGACY_START = /^800[2-5](95.{16})?8a0a6cfc/;
const LEGACY_START_BYTES = 15;
/** Fields of what names a storage, in an archive and in a plain file. */
const ARCHIVE_ID_FIELDS = 5;
const PLAIN_ID_FIELDS = 6;
const KEY = /^[0-9]{1,20}$/;
const MAX_DIMENSIONS = 64;
/** Characters of NumPy's code of an element, as `<f8` or `M8[ns]`. */
const MAX_CODE = 32;
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
    /** Files before torch 1.6 hold storages that are a part of another, from a byte of it on. */
    readonly part: { of: TorchStorage; fromByte: number } | null = null,
  ) {
    super();
  }
}

/** A tensor of a checkpoint, described; its values are in the file. Take it out with {@link TorchCheckpoint.read}. */
export class TorchTensor extends PickleLeaf implements StoredTensorInfo {
  constructor(
    /** PyTorch's name of the dtype. */
    readonly formatDtype: string,
    /** The engine's dtype, or null when it has none for it. */
    readonly dtype: DType | null,
    /** Sizes of its dimensions. */
    readonly shape: readonly number[],
    /** In elements. */
    readonly strides: readonly number[],
    /** @internal */
    readonly storage: object,
    /** Position of the first value in its storage, in elements. */
    readonly storageOffset: number,
    /** Bytes of an element. */
    readonly itemBytes: number,
    /** Bits that a view carries: the values are the stored ones negated, or their conjugates. */
    readonly lazy: { negated: boolean; conjugated: boolean } = { negated: false, conjugated: false },
  ) {
    super();
  }

  /** Number of elements. */
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

/** NumPy's description of an element, which its scalars are read by. */
class NumpyDtype extends PickleLeaf {
  #littleEndian = true;

  constructor(readonly code: string) {
    super();
  }

  /** (version, byte order, …) */
  override setState(state: PickleValue): void {
    if (Array.isArray(state)) this.#littleEndian = state[1] !== ">";
  }

  /** The value of a scalar, or null where it is none of a plain kind or has another size. */
  read(bytes: Uint8Array): number | bigint | boolean | null {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const little = this.#littleEndian;
    const size = Number(this.code.slice(1));
    if (bytes.byteLength !== size) return null;
    const safe = (value: bigint) => (BigInt(Number(value)) === value ? Number(value) : value);
    switch (this.code) {
      case "b1":
        return bytes[0] !== 0;
      case "i1":
        return view.getInt8(0);
      case "u1":
        return view.getUint8(0);
      case "i2":
        return view.getInt16(0, little);
      case "u2":
        return view.getUint16(0, little);
      case "i4":
        return view.getInt32(0, little);
      case "u4":
        return view.getUint32(0, little);
      case "i8":
        return safe(view.getBigInt64(0, little));
      case "u8":
        return safe(view.getBigUint64(0, little));
      case "f4":
        return view.getFloat32(0, little);
      case "f8":
        return view.getFloat64(0, little);
      default:
        return null;
    }
  }
}

/** Classes that a tensor may be of without being something else. */
const PLAIN_TENSORS = new Set(["torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"]);
/** How the names of the functions begin that put a tensor together from its storage. */
const TENSOR_REBUILDERS = "torch._utils._rebuild_tensor";
const UNTYPED_STORAGES = ["torch", "torch.storage"].flatMap((module) =>
  ["UntypedStorage", "_UntypedStorage"].map((name) => `${module}.${name}`),
);

/** What a function that puts a tensor together makes. `Opaque` where the storage or dtype is not known. */
type Rebuild = (args: PickleValue[]) => PickleValue;

const rebuildTyped =
  (least: number, most: number): Rebuild =>
  (args) => {
    if (args.length < least || args.length > most)
      throw new Error(`expected ${least} to ${most} arguments, found ${args.length}`);
    const [storage, , , , , , metadata] = args;
    if (storage instanceof Opaque) return new Opaque(`torch.Tensor of ${storage.name}`);
    if (!(storage instanceof TorchStorage) || storage.dtype === null) throw new Error("expected a typed storage");
    return tensorOf(storage, storage.dtype, args, metadata);
  };

const rebuildUntyped: Rebuild = (args) => {
  if (args.length < 7 || args.length > 8) throw new Error(`expected 7 or 8 arguments, found ${args.length}`);
  const [storage, , , , , , dtype, metadata] = args;
  for (const part of [storage, dtype]) if (part instanceof Opaque) return new Opaque(`torch.Tensor of ${part.name}`);
  if (!(storage instanceof TorchStorage)) throw new Error("expected a storage");
  if (!(dtype instanceof DtypeName)) throw new Error("expected a dtype");
  return tensorOf(storage, dtype.dtype, args, metadata);
};

/** A parameter is its tensor; attributes that were added to it are left out. */
const rebuildParameter =
  (least: number, most: number): Rebuild =>
  ([tensor, ...rest]) => {
    if (rest.length < least || rest.length > most) throw new Error("expected a tensor, a flag and hooks");
    if (tensor instanceof Opaque || tensor instanceof TorchTensor) return tensor;
    throw new Error("expected a tensor");
  };

/** A tensor with attributes, (function, class, arguments, state): of a class of its own it is not read. */
const rebuildFromType: Rebuild = ([rebuild, type, args, ...rest]) => {
  if (rest.length !== 1) throw new Error(`expected 4 arguments, found ${rest.length + 3}`);
  const name = type instanceof Opaque || type instanceof Known ? type.name : "no class";
  const isTensor = PLAIN_TENSORS.has(name) && rebuild instanceof Known && rebuild.name.startsWith(TENSOR_REBUILDERS);
  if (!isTensor || rebuild.call === null || !Array.isArray(args)) return new Opaque(name);
  return rebuild.call(args);
};

/** A set, or a frozen one, of a list. */
const makeSet: Rebuild = ([items = [], ...rest]) => {
  if (rest.length > 0) throw new Error("expected one argument");
  return Array.isArray(items) || items instanceof Set ? new Set(items) : new Opaque("set");
};

/** An ordered dictionary; Python 2 gives the items as pairs. */
const makeDictionary = (items: PickleValue): PickleValue => {
  if (items instanceof Opaque) return items;
  if (items instanceof Map) return new Map(items);
  if (!Array.isArray(items)) throw new Error("expected pairs");
  return new Map(
    items.map((pair): [PickleValue, PickleValue] => {
      if (!Array.isArray(pair) || pair.length !== 2) throw new Error("expected pairs");
      return [pair[0]!, pair[1]!];
    }),
  );
};

/** Protocols before 3 have no bytes: they are a text of the same numbers, and a function that takes it apart. */
const encodeText: Rebuild = ([text, encoding]) => {
  if (typeof text !== "string" || text.length > 1024 || encoding !== "latin1" || /[^\0-\xff]/.test(text))
    return new Opaque("bytes");
  return new PickledBytes(Buffer.from(text, "latin1"));
};

const numpyScalar: Rebuild = ([dtype, bytes]) => {
  const value = dtype instanceof NumpyDtype && bytes instanceof PickledBytes ? dtype.read(bytes.bytes) : null;
  return value ?? new Opaque(`a scalar of numpy${dtype instanceof NumpyDtype ? ` (${dtype.code})` : ""}`, "words");
};

const FUNCTIONS: Record<string, Rebuild> = {
  "collections.OrderedDict": ([items = [], ...rest]) => {
    if (rest.length > 0) throw new Error("expected at most one argument");
    return makeDictionary(items);
  },
  "collections.defaultdict": ([, items = []]) => makeDictionary(items),
  "builtins.set": makeSet,
  "builtins.frozenset": makeSet,
  "__builtin__.set": makeSet,
  "__builtin__.frozenset": makeSet,
  "_codecs.encode": encodeText,
  "builtins.bytes": (args) => (args.length === 0 ? new PickledBytes(new Uint8Array(0)) : new Opaque("bytes")),
  "__builtin__.bytes": (args) => (args.length === 0 ? new PickledBytes(new Uint8Array(0)) : new Opaque("bytes")),
  "numpy.dtype": ([code]) =>
    typeof code === "string" && code.length <= MAX_CODE
      ? new NumpyDtype(code.replace(/^[<=|]/, ""))
      : new Opaque("numpy.dtype"),
  "numpy.core.multiarray.scalar": numpyScalar,
  "numpy._core.multiarray.scalar": numpyScalar,
  "torch.Size": ([sizes, ...rest]) => {
    if (rest.length > 0) throw new Error("expected one argument");
    return [...counts(sizes, "the sizes")];
  },
  "torch._utils._rebuild_tensor": rebuildTyped(4, 4),
  "torch._utils._rebuild_tensor_v2": rebuildTyped(6, 7),
  "torch._utils._rebuild_tensor_v3": rebuildUntyped,
  "torch._utils._rebuild_parameter": rebuildParameter(2, 2),
  "torch._utils._rebuild_parameter_with_state": rebuildParameter(3, 3),
  "torch.nn.parameter.Parameter": rebuildParameter(0, 1),
  "torch._tensor._rebuild_from_type": rebuildFromType,
  "torch._tensor._rebuild_from_type_v2": rebuildFromType,
  // The module's name before torch 1.9.
  "torch.tensor._rebuild_from_type": rebuildFromType,
};

const KNOWN: ReadonlyMap<string, Known> = new Map(
  [
    ...Object.entries(FUNCTIONS).map(([name, call]) => new Known(name, call)),
    ...UNTYPED_STORAGES.map((name) => new StorageClass(name, null)),
    ...ELEMENTS.flatMap(([storage, dtype]) =>
      storage === null
        ? []
        : ["torch", "torch.cuda"].map((module) => new StorageClass(`${module}.${storage}`, DTYPES.get(dtype)!)),
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

/**
 * Puts a tensor together from (storage, offset, shape, strides, …); nothing may reach beyond the storage.
 * @param metadata names of bits that are set; PyTorch looks at the names alone
 */
function tensorOf(
  storage: TorchStorage,
  dtype: TorchDtype,
  [, offset, sizes, steps]: PickleValue[],
  metadata: PickleValue = null,
): TorchTensor {
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
  if (metadata !== null && !(metadata instanceof Map)) throw new Error("the metadata: expected a dictionary");
  const lazy = { negated: metadata?.has("neg") ?? false, conjugated: metadata?.has("conj") ?? false };
  if (lazy.negated && dtype.name === "bool") throw new Error("a negative bit on bool");
  if (lazy.conjugated && !dtype.name.startsWith("complex")) throw new Error(`a conjugate bit on ${dtype.name}`);
  return new TorchTensor(dtype.name, dtype.engine, shape, strides, storage, start!, dtype.itemBytes, lazy);
}

/** A state dict: its tensors, and what else stands among them. */
export interface TorchStateDict extends TensorFile {
  /** Entries that are no tensors, by name, each with what it is; they cannot be read. */
  readonly others: ReadonlyMap<string, string>;
}

/** An open checkpoint. Tensors read from it are copies and stay valid after {@link close}. */
export class TorchCheckpoint {
  /** The file. */
  readonly path: string;
  /** Everything the file holds: maps, arrays, numbers, texts, {@link TorchTensor}s. */
  readonly root: PickleValue;
  readonly #file: RegularFile;
  readonly #storages = new Map<string, TorchStorage>();
  /** Where a storage's values lie; checks that the file holds all of them. */
  readonly #locate: (storage: TorchStorage) => number;

  private constructor(file: RegularFile) {
    this.#file = file;
    this.path = file.path;
    const { root, locate } = ZipFile.detect(file) ? this.#readArchive() : this.#readPlain();
    this.root = root;
    this.#locate = locate;
    containEntries(this.path, root);
    for (const storage of this.#storages.values()) this.#place(storage);
  }

  /**
   * Opens a file and checks its structure; values are not read.
   * @throws FormatError naming the opcode or rule that is not allowed; TorchError when the file cannot be read
   */
  static open(path: string): TorchCheckpoint {
    const file = RegularFile.open(path);
    try {
      return new TorchCheckpoint(file);
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
  stateDict(key?: string): TorchStateDict {
    const { root, path } = this;
    const fail = (message: string): never => {
      throw new FormatError({ path, rule: "NotAStateDict", message });
    };
    if (!(root instanceof Map))
      return fail(`the file holds ${describeValue(root)}, no dictionary; save a module's state_dict() instead`);
    const name = key ?? (root.has("state_dict") ? "state_dict" : undefined);
    const dictionary = name === undefined ? root : root.get(name);
    if (!(dictionary instanceof Map))
      return fail(
        dictionary === undefined
          ? `there is no dictionary under ${JSON.stringify(name)}`
          : `${JSON.stringify(name)} is ${describeValue(dictionary)}, no dictionary of tensors`,
      );
    const tensors = new Map<string, TorchTensor>();
    const others = new Map<string, string>();
    for (const [entry, value] of dictionary)
      if (typeof entry === "string" && value instanceof TorchTensor) tensors.set(entry, value);
      else others.set(String(entry), describeValue(value));
    const [other] = others;
    if (tensors.size === 0 && other !== undefined)
      return fail(
        `${name === undefined ? "the file" : name} holds no tensor: ${other[0].slice(0, 100)} is ${other[1]}; it holds ` +
          `${others.size} such ${others.size === 1 ? "entry" : "entries"}`,
      );
    return { ...this.tensors(tensors, others), others };
  }

  /**
   * Tensors of this checkpoint as a file of their own, under names of the caller's choice.
   * @param others what stands under further names, for errors
   */
  tensors(tensors: ReadonlyMap<string, TorchTensor>, others?: ReadonlyMap<string, string>): TensorFile {
    const find = (key: string): TorchTensor => {
      const tensor = tensors.get(key);
      if (tensor === undefined) {
        const other = others?.get(key);
        const found = other === undefined ? "" : `: it is ${other}`;
        throw new TorchError(`${this.path}: holds no tensor ${JSON.stringify(key)}${found}`);
      }
      return tensor;
    };
    return tensorFile({
      path: this.path,
      keys: () => [...tensors.keys()],
      has: (key) => tensors.has(key),
      info: find,
      copyInPieces: (key, target) => this.#copy(find(key), target, key, true),
    });
  }

  /** A tensor's values, in its dtype, on the CPU, in C order; the caller owns it. Any value is allowed in it. */
  read(tensor: TorchTensor, name = "of the checkpoint"): Tensor {
    return scope(() => {
      const values = empty(tensor.shape as number[], { dtype: engineDtype(this.path, tensor, name) });
      takeAll(this.#copy(tensor, values, name, false));
      return values;
    });
  }

  /**
   * Copies a tensor's values into one of as many elements, converting them to its dtype and device.
   * @param name for errors
   * @throws FormatError when a floating value is not finite
   */
  copyTo(tensor: TorchTensor, target: Tensor, name = "of the checkpoint"): void {
    takeAll(this.#copy(tensor, target, name, true));
  }

  *#copy(tensor: TorchTensor, target: Tensor, name: string, onlyFinite: boolean): Generator<void, void, void> {
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
    if (tensor.numel === 0) return;
    yield* this.#copyStored(source, strides, target, onlyFinite);
    if (tensor.lazy.negated) noGrad(() => scope(() => void target.detach().neg_()));
  }

  *#copyStored(
    source: ValueSource,
    strides: readonly number[],
    target: Tensor,
    onlyFinite: boolean,
  ): Generator<void, void, void> {
    const shape = source.shape as number[];
    if (isContiguous(shape, strides)) {
      yield* copyValues(source, target, { onlyFinite });
      return;
    }
    // Another order, or gaps: the part of the storage from the first to the last value, seen with the strides.
    const length = shape.reduce((sum, size, i) => sum + (size - 1) * strides[i]!, 1);
    using part = empty([length], { dtype: source.dtype });
    yield* copyValues({ ...source, shape: [length] }, part, { onlyFinite });
    scope(
      () => void target.detach().copy_(aten.as_strided(part, shape, strides as number[], 0).reshape(...target.shape)),
    );
  }

  #place(storage: TorchStorage): number {
    const { part } = storage;
    storage.place ??= part === null ? this.#locate(storage) : this.#place(part.of) + part.fromByte;
    return storage.place;
  }

  #fail(rule: string, message: string, byteOffset?: number): never {
    throw new FormatError({ path: this.path, rule, message, byteOffset });
  }

  /** ("storage", class, key, device, count), with a part of a storage behind that in files before torch 1.6. */
  #persistent(id: PickleValue, fields: number): PickleValue {
    if (!Array.isArray(id)) throw new Error(`expected ${fields} fields`);
    // A class of modules that was saved with its source.
    if (id[0] === "module" && id[1] instanceof Opaque) return id[1];
    if (id.length !== fields) throw new Error(`expected ${fields} fields`);
    const [what, storageClass, key, , count, part] = id;
    if (what !== "storage") throw new Error("expected a storage");
    if (storageClass instanceof Opaque) return this.#unknownStorage(storageClass, fields);
    if (!(storageClass instanceof StorageClass)) throw new Error("expected a storage class");
    if (typeof key !== "string" || !KEY.test(key)) throw new Error("expected digits as the storage's key");
    const [elements] = counts([count ?? null], "the size of a storage");
    const width = storageClass.dtype?.itemBytes ?? 1;
    const sizeBytes = elements! * width;
    if (!Number.isSafeInteger(sizeBytes)) throw new Error("the size of a storage overflows");
    const whole = this.#storage(key, storageClass.dtype, sizeBytes);
    if (part === undefined || part === null) return whole;
    if (!Array.isArray(part) || part.length !== 3) throw new Error("a part of a storage: expected 3 fields");
    const [partKey, ...places] = part;
    if (typeof partKey !== "string" || !KEY.test(partKey)) throw new Error("expected digits as the part's key");
    const [from, length] = counts(places, "a part of a storage");
    if (from! + length! > elements!) throw new Error("a part of a storage reaches beyond it");
    return new TorchStorage(partKey, whole.dtype, length! * width, { of: whole, fromByte: from! * width });
  }

  #storage(key: string, dtype: TorchDtype | null, sizeBytes: number): TorchStorage {
    const known = this.#storages.get(key);
    if (known !== undefined) {
      if (known.sizeBytes !== sizeBytes || known.dtype !== dtype)
        throw new Error(`storage ${key} is described in two ways`);
      return known;
    }
    const storage = new TorchStorage(key, dtype, sizeBytes);
    this.#storages.set(key, storage);
    return storage;
  }

  /** In an archive each storage has its member; in a plain file those behind one of unknown size cannot be found. */
  #unknownStorage({ name }: Opaque, fields: number): Opaque {
    if (fields !== ARCHIVE_ID_FIELDS) throw new Error(`the size of a value of ${name} is not known`);
    return new Opaque(name);
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
      persistent: (id) => this.#persistent(id, ARCHIVE_ID_FIELDS),
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
    refuseStandIn(file);
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
    const root = next(PLAIN_ID_FIELDS);
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
  const start = file.read(0, Math.min(file.sizeBytes, LEGACY_START_BYTES));
  return LEGACY_START.test(Buffer.from(start).toString("hex"));
}

/** What a value is that is no tensor, for errors. */
function describeValue(value: PickleValue): string {
  if (value instanceof Opaque) return value.description;
  if (value instanceof Known) return `an object of ${value.name}`;
  if (value instanceof TorchTensor) return "a tensor";
  if (value instanceof Map) return "a dictionary";
  if (value instanceof Set) return "a set";
  if (value instanceof PickledBytes) return "bytes";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return "a text";
  return value === null ? "None" : typeof value === "boolean" ? "a boolean" : "a number";
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
