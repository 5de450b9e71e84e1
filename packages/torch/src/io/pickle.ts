/**
 * A pickle machine that builds plain data and runs nothing: the opcodes of protocols 1 to 5, with the objects a caller
 * knows by name. Format: Python's `pickletools` module documents every opcode.
 *
 * Everything else becomes an {@link Opaque}: an object of a class that the caller does not know, a text or number of no
 * sensible length. Its arguments, items and state are dropped; its name is kept for callers that ask for it. A
 * checkpoint holds much that is never read, so an Opaque is never a reason to refuse the file.
 */
import { FormatError } from "./format-error.js";

/**
 * Bytes of a pickle that are looked at. Tensors' values lie outside: a checkpoint of 6 GB with 5,000 tensors has 2 MB.
 */
const MAX_PICKLE_BYTES = 64 * 2 ** 20;
/** Longer texts and bytes are stepped over: arrays of NumPy lie inside of the pickle. */
const MAX_TEXT_BYTES = 2 ** 20;
const MAX_BYTES = 2 ** 10;
/** Bytes of a whole number. */
const MAX_INTEGER_BYTES = 2 ** 10;
/** Characters of a class's name that are kept. */
const MAX_NAME = 200;
/** Each opcode makes at most one object. */
const MAX_OPCODES = 4_000_000;
const MAX_DEPTH = 100;
/** Values counted once for each way that leads to them. */
const MAX_VALUES = 16_000_000;
/** Items of the collections that functions are given: a copy takes one opcode, however large the collection is. */
const MAX_COPIED = MAX_OPCODES;
const WINDOW_BYTES = 2 ** 16;

/** An object that is not read: nothing of it but its name is kept. */
export class Opaque {
  /** Module and class, e.g. `builtins.eval`, or what it is in words; printable. */
  readonly name: string;
  /** What it is, in words. */
  readonly description: string;

  constructor(name: string, kind: "class" | "words" = "class") {
    const start = name.slice(0, MAX_NAME);
    const printable = start.replace(/[^\P{C}]|[\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0)!.toString(16)}}`);
    this.name = name.length > MAX_NAME ? `${printable.slice(0, MAX_NAME)}…` : printable;
    this.description = kind === "class" ? `an object of ${this.name}` : this.name;
  }

  /** What it is, in words. */
  toString(): string {
    return this.description;
  }
}

/** A function or class that a pickle may name. */
export class Known {
  constructor(
    /** Module and name, e.g. `collections.OrderedDict`. */
    readonly name: string,
    /** Makes the object; null for names that are values themselves, as a dtype. @throws Error saying what is wrong */
    readonly call: ((args: PickleValue[]) => PickleValue) | null,
  ) {}
}

/** Something a `Known` or the caller made; the machine passes it on as it is. */
export abstract class PickleLeaf {
  /** Takes the state that a BUILD gives. @throws Error saying what is wrong */
  setState(_state: PickleValue): void {
    throw new Error("this object takes no state");
  }
}

/** A few bytes, Python's `bytes`. */
export class PickledBytes extends PickleLeaf {
  /** @param bytes the bytes */
  constructor(readonly bytes: Uint8Array) {
    super();
  }
}

/** Lists and tuples are arrays, dictionaries are maps. Parts may be shared; `containEntries` takes out cycles. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | Set<PickleValue>
  | Opaque
  | Known
  | PickleLeaf;

/** Where a pickle lies. */
export interface PickleSource {
  /** The file, for errors. */
  readonly path: string;
  /** Bytes from an offset on; fewer where the file ends. */
  read(offset: number, length: number): Uint8Array;
}

/** Which part of the file is the pickle, and what it may name. */
export interface PickleOptions {
  /** First byte of the pickle. */
  start: number;
  /** Byte behind the last one that may belong to it. */
  end: number;
  /** By `module.name`. */
  known: ReadonlyMap<string, Known>;
  /** The object behind a persistent id. @throws Error saying what is wrong */
  persistent(id: PickleValue): PickleValue;
}

/** Opcodes by their byte, with pickletools' names. */
const NAMES: Record<number, string> = Object.fromEntries(
  Object.entries({
    "(": "MARK",
    ".": "STOP",
    "0": "POP",
    "1": "POP_MARK",
    "2": "DUP",
    F: "FLOAT",
    I: "INT",
    J: "BININT",
    K: "BININT1",
    L: "LONG",
    M: "BININT2",
    N: "NONE",
    P: "PERSID",
    Q: "BINPERSID",
    R: "REDUCE",
    S: "STRING",
    T: "BINSTRING",
    U: "SHORT_BINSTRING",
    V: "UNICODE",
    X: "BINUNICODE",
    a: "APPEND",
    b: "BUILD",
    c: "GLOBAL",
    d: "DICT",
    "}": "EMPTY_DICT",
    e: "APPENDS",
    g: "GET",
    h: "BINGET",
    i: "INST",
    j: "LONG_BINGET",
    l: "LIST",
    "]": "EMPTY_LIST",
    o: "OBJ",
    p: "PUT",
    q: "BINPUT",
    r: "LONG_BINPUT",
    s: "SETITEM",
    t: "TUPLE",
    ")": "EMPTY_TUPLE",
    u: "SETITEMS",
    G: "BINFLOAT",
    "\x80": "PROTO",
    "\x81": "NEWOBJ",
    "\x82": "EXT1",
    "\x83": "EXT2",
    "\x84": "EXT4",
    "\x85": "TUPLE1",
    "\x86": "TUPLE2",
    "\x87": "TUPLE3",
    "\x88": "NEWTRUE",
    "\x89": "NEWFALSE",
    "\x8a": "LONG1",
    "\x8b": "LONG4",
    B: "BINBYTES",
    C: "SHORT_BINBYTES",
    "\x8c": "SHORT_BINUNICODE",
    "\x8d": "BINUNICODE8",
    "\x8e": "BINBYTES8",
    "\x8f": "EMPTY_SET",
    "\x90": "ADDITEMS",
    "\x91": "FROZENSET",
    "\x92": "NEWOBJ_EX",
    "\x93": "STACK_GLOBAL",
    "\x94": "MEMOIZE",
    "\x95": "FRAME",
    "\x96": "BYTEARRAY8",
    "\x97": "NEXT_BUFFER",
    "\x98": "READONLY_BUFFER",
  }).map(([character, name]) => [character.charCodeAt(0), name]),
);

/**
 * Reads one pickle.
 * @returns its value, and the byte behind it
 * @throws FormatError naming the opcode or object that is not allowed, the limit or the rule that is broken, and the
 *   byte
 */
export function readPickle(source: PickleSource, options: PickleOptions): { value: PickleValue; end: number } {
  return new Machine(source, options).run();
}

class Machine {
  readonly #stack: PickleValue[] = [];
  /** Heights of the stack at its marks. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #at: number;
  /** Bytes looked at so far. */
  #taken = 0;
  /** Items of collections that functions were given so far. */
  #copied = 0;
  #window: Uint8Array = new Uint8Array(0);
  #windowStart = 0;

  constructor(
    readonly source: PickleSource,
    readonly options: PickleOptions,
  ) {
    this.#at = options.start;
  }

  run(): { value: PickleValue; end: number } {
    for (let count = 0; count < MAX_OPCODES; count++) {
      const at = this.#at;
      const opcode = NAMES[this.#byte()] ?? "";
      if (opcode === "STOP") {
        if (this.#stack.length !== 1 || this.#marks.length > 0)
          this.#fail("BadStack", `${this.#stack.length} values at the end of the pickle instead of 1`, at);
        return { value: this.#stack[0]!, end: this.#at };
      }
      const value = this.#execute(opcode, at);
      if (value !== undefined) this.#stack.push(value);
    }
    return this.#fail("TooManyOpcodes", `more than ${MAX_OPCODES} opcodes`, this.#at);
  }

  /** What the opcode pushes, if anything. */
  #execute(opcode: string, at: number): PickleValue | undefined {
    switch (opcode) {
      case "PROTO": {
        const protocol = this.#byte();
        if (protocol < 1 || protocol > 5)
          this.#fail("UnknownProtocol", `pickle protocol ${protocol}, expected 1 to 5`, at);
        return undefined;
      }
      case "FRAME":
        this.#length(8, at);
        return undefined;
      case "MARK":
        this.#marks.push(this.#stack.length);
        return undefined;
      case "POP":
        if (this.#marks.at(-1) === this.#stack.length) this.#marks.pop();
        else this.#popSome(1, at);
        return undefined;
      case "POP_MARK":
        this.#popMark(at);
        return undefined;
      case "DUP":
        return this.#top(at);
      case "NONE":
        return null;
      case "NEWTRUE":
        return true;
      case "NEWFALSE":
        return false;
      case "INT":
      case "LONG":
        return this.#decimal(opcode, at);
      case "BININT":
        return this.#view(4).getInt32(0, true);
      case "BININT1":
        return this.#byte();
      case "BININT2":
        return this.#view(2).getUint16(0, true);
      case "LONG1":
        return toInteger(this.#take(this.#byte()));
      case "LONG4": {
        const length = this.#length(4, at);
        return length > MAX_INTEGER_BYTES ? this.#skip(length, "int", at) : toInteger(this.#take(length));
      }
      case "BINFLOAT":
        return this.#view(8).getFloat64(0, false);
      case "BINUNICODE":
        return this.#text(this.#length(4, at), at);
      case "SHORT_BINUNICODE":
        return this.#text(this.#byte(), at);
      case "BINUNICODE8":
        return this.#text(this.#length(8, at), at);
      case "SHORT_BINSTRING":
        return this.#string(this.#byte(), at);
      case "BINSTRING":
        return this.#string(this.#length(4, at), at);
      case "SHORT_BINBYTES":
        return this.#bytes(this.#byte(), at);
      case "BINBYTES":
        return this.#bytes(this.#length(4, at), at);
      case "BINBYTES8":
        return this.#bytes(this.#length(8, at), at);
      case "BYTEARRAY8":
        return this.#skip(this.#length(8, at), "bytearray", at);
      case "NEXT_BUFFER":
        return new Opaque("an out-of-band buffer", "words");
      case "READONLY_BUFFER":
        this.#top(at);
        return undefined;
      case "EMPTY_TUPLE":
      case "EMPTY_LIST":
        return [];
      case "EMPTY_DICT":
        return new Map();
      case "EMPTY_SET":
        return new Set();
      case "TUPLE":
      case "LIST":
        return this.#popMark(at);
      case "FROZENSET":
        return new Set(this.#popMark(at));
      case "DICT": {
        const dictionary = new Map<PickleValue, PickleValue>();
        this.#setItems(dictionary, this.#popMark(at), at);
        return dictionary;
      }
      case "TUPLE1":
        return this.#popSome(1, at);
      case "TUPLE2":
        return this.#popSome(2, at);
      case "TUPLE3":
        return this.#popSome(3, at);
      case "APPEND":
        this.#append(this.#popSome(1, at), at);
        return undefined;
      case "APPENDS":
        this.#append(this.#popMark(at), at);
        return undefined;
      case "ADDITEMS":
        this.#addItems(this.#popMark(at), at);
        return undefined;
      case "SETITEM": {
        const items = this.#popSome(2, at);
        this.#setItems(this.#top(at), items, at);
        return undefined;
      }
      case "SETITEMS": {
        const items = this.#popMark(at);
        this.#setItems(this.#top(at), items, at);
        return undefined;
      }
      case "PUT":
        this.#memo.set(this.#index(at), this.#top(at));
        return undefined;
      case "BINPUT":
        this.#memo.set(this.#byte(), this.#top(at));
        return undefined;
      case "LONG_BINPUT":
        this.#memo.set(this.#length(4, at), this.#top(at));
        return undefined;
      case "MEMOIZE":
        this.#memo.set(this.#memo.size, this.#top(at));
        return undefined;
      case "GET":
        return this.#recall(this.#index(at), at);
      case "BINGET":
        return this.#recall(this.#byte(), at);
      case "LONG_BINGET":
        return this.#recall(this.#length(4, at), at);
      case "GLOBAL":
        return this.#global(this.#line(at), this.#line(at));
      case "STACK_GLOBAL": {
        const [module, name] = this.#popSome(2, at);
        if (typeof module !== "string" || typeof name !== "string")
          return this.#fail("BadName", "the name of a class is no text", at);
        return this.#global(module, name);
      }
      case "EXT1":
        return new Opaque(`the copyreg extension ${this.#byte()}`, "words");
      case "EXT2":
        return new Opaque(`the copyreg extension ${this.#view(2).getUint16(0, true)}`, "words");
      case "EXT4":
        return new Opaque(`the copyreg extension ${this.#length(4, at)}`, "words");
      case "BINPERSID": {
        const [id] = this.#popSome(1, at);
        return this.#attempt("BadPersistentId", () => this.options.persistent(id!), at);
      }
      case "REDUCE":
      case "NEWOBJ": {
        const [callable, args] = this.#popSome(2, at) as [PickleValue, PickleValue];
        return this.#make(callable, args, at);
      }
      case "NEWOBJ_EX": {
        const [callable, args, named] = this.#popSome(3, at) as [PickleValue, PickleValue, PickleValue];
        if (named instanceof Map && named.size === 0) return this.#make(callable, args, at);
        if (callable instanceof Opaque || callable instanceof Known) return new Opaque(callable.name);
        return this.#fail("BadCall", "a call of what is no function", at);
      }
      case "OBJ": {
        const [callable, ...args] = this.#popMark(at);
        return this.#make(callable ?? null, args, at);
      }
      case "INST": {
        const callable = this.#global(this.#line(at), this.#line(at));
        return this.#make(callable, this.#popMark(at), at);
      }
      case "BUILD": {
        const [state] = this.#popSome(1, at);
        const target = this.#top(at);
        if (target instanceof PickleLeaf) {
          const build = () => {
            target.setState(state!);
            return target;
          };
          this.#attempt("BadState", build, at);
          return undefined;
        }
        // The state of an ordered dictionary is `_metadata`, versions that modules keep of themselves.
        if (!(target instanceof Map || target instanceof Set || target instanceof Opaque))
          this.#fail("BadState", "BUILD of no object", at);
        return undefined;
      }
      case "":
        return this.#fail("UnknownOpcode", "a byte that is no opcode", at);
      default:
        return this.#fail(
          "ForbiddenOpcode",
          `the opcode ${opcode}, of pickle protocol 0, has no place in a checkpoint`,
          at,
        );
    }
  }

  /** Cut before they are joined: two long texts that the memo holds make as many long names as there are opcodes. */
  #global(module: string, name: string): PickleValue {
    const full = `${module.slice(0, MAX_NAME)}.${name.slice(0, MAX_NAME)}`;
    return this.options.known.get(full) ?? new Opaque(full);
  }

  #make(callable: PickleValue, args: PickleValue, at: number): PickleValue {
    if (callable instanceof Opaque) return new Opaque(callable.name);
    if (callable instanceof Known && args instanceof Opaque) return new Opaque(callable.name);
    if (!(callable instanceof Known) || callable.call === null || !Array.isArray(args))
      return this.#fail("BadCall", "a call of what is no function", at);
    const { call, name } = callable;
    for (const arg of args) this.#copied += Array.isArray(arg) ? arg.length : isBranch(arg) ? arg.size : 0;
    if (this.#copied > MAX_COPIED)
      this.#fail("TooManyCopies", `functions are given collections of more than ${MAX_COPIED} items in all`, at);
    return this.#attempt("BadArguments", () => call(args), at, `${name}: `);
  }

  #attempt(rule: string, make: () => PickleValue, at: number, prefix = ""): PickleValue {
    try {
      return make();
    } catch (error) {
      if (error instanceof FormatError) throw error;
      return this.#fail(rule, `${prefix}${(error as Error).message}`, at);
    }
  }

  #append(values: PickleValue[], at: number): void {
    const target = this.#top(at);
    if (target instanceof Opaque) return;
    if (!Array.isArray(target)) this.#fail("BadAppend", "values are appended to what is no list", at);
    for (const value of values) (target as PickleValue[]).push(value);
  }

  #addItems(values: PickleValue[], at: number): void {
    const target = this.#top(at);
    if (target instanceof Opaque) return;
    if (!(target instanceof Set)) this.#fail("BadItems", "items are added to what is no set", at);
    for (const value of values) (target as Set<PickleValue>).add(value);
  }

  #setItems(target: PickleValue, items: PickleValue[], at: number): void {
    if (items.length % 2 !== 0) this.#fail("BadItems", "a key without a value", at);
    if (target instanceof Opaque) return;
    if (!(target instanceof Map)) this.#fail("BadItems", "items are put into what is no dictionary", at);
    for (let i = 0; i < items.length; i += 2) (target as Map<PickleValue, PickleValue>).set(items[i]!, items[i + 1]!);
  }

  #recall(index: number, at: number): PickleValue {
    const value = this.#memo.get(index);
    return value === undefined ? this.#fail("BadMemo", `nothing was stored under ${index}`, at) : value;
  }

  #top(at: number): PickleValue {
    if (this.#stack.length <= this.#floor()) this.#fail("BadStack", "the stack is empty", at);
    return this.#stack.at(-1)!;
  }

  #popSome(count: number, at: number): PickleValue[] {
    if (this.#stack.length - count < this.#floor()) this.#fail("BadStack", "the stack is empty", at);
    return this.#stack.splice(-count);
  }

  #popMark(at: number): PickleValue[] {
    const mark = this.#marks.pop();
    if (mark === undefined) return this.#fail("BadStack", "there is no mark", at);
    return this.#stack.splice(mark);
  }

  /** Height that the stack may not fall below: values under a mark are out of reach. */
  #floor(): number {
    return this.#marks.at(-1) ?? 0;
  }

  /**
   * Python writes lone surrogates into its UTF-8, as in names of files that are no Unicode; those texts are not read.
   */
  #text(length: number, at: number): PickleValue {
    if (length > MAX_TEXT_BYTES) return this.#skip(length, "str", at);
    return decoded(this.#take(length)) ?? new Opaque("a text that is not UTF-8", "words");
  }

  /** What Python 2 calls a string: a text, or any bytes. */
  #string(length: number, at: number): PickleValue {
    if (length > MAX_TEXT_BYTES) return this.#skip(length, "str", at);
    const bytes = this.#take(length);
    return decoded(bytes) ?? (length > MAX_BYTES ? new Opaque("bytes") : new PickledBytes(bytes.slice()));
  }

  #bytes(length: number, at: number): PickleValue {
    return length > MAX_BYTES ? this.#skip(length, "bytes", at) : new PickledBytes(this.#take(length).slice());
  }

  /** A name of a module or class, ended by a newline. */
  #line(at: number): string {
    return decoded(this.#untilNewline(at)) ?? this.#fail("BadName", "a name of a class is not UTF-8", at);
  }

  /** A whole number in digits; Python 2 writes those of more than 32 bits so. `01` and `00` are booleans. */
  #decimal(opcode: string, at: number): PickleValue {
    const digits = Buffer.from(this.#untilNewline(at)).toString("latin1");
    if (opcode === "INT" && (digits === "00" || digits === "01")) return digits === "01";
    if (!/^-?[0-9]+L?$/.test(digits)) return this.#fail("BadNumber", "a number is not in digits", at);
    return toSafe(BigInt(digits.replace("L", "")));
  }

  #index(at: number): number {
    const index = this.#decimal("INT", at);
    if (typeof index !== "number" || index < 0) return this.#fail("BadMemo", "a place in the memo is no count", at);
    return index;
  }

  #untilNewline(at: number): Uint8Array {
    const bytes: number[] = [];
    for (let byte = this.#byte(); byte !== 0x0a; byte = this.#byte()) {
      if (bytes.length >= MAX_BYTES) this.#fail("BadName", "a line is too long", at);
      bytes.push(byte);
    }
    return Uint8Array.from(bytes);
  }

  #byte(): number {
    return this.#take(1)[0]!;
  }

  #view(length: number): DataView {
    const bytes = this.#take(length);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  }

  /** A count of 4 or 8 bytes. */
  #length(width: 4 | 8, at: number): number {
    const view = this.#view(width);
    if (width === 4) return view.getUint32(0, true);
    const length = view.getBigUint64(0, true);
    if (length > BigInt(Number.MAX_SAFE_INTEGER)) this.#fail("PickleCutShort", `${length} bytes are no length`, at);
    return Number(length);
  }

  /** Steps over the next bytes, which stand for an object of a class. */
  #skip(length: number, name: string, at: number): Opaque {
    if (this.#at + length > this.options.end)
      this.#fail("PickleCutShort", "the pickle ends in the middle of an opcode", at);
    this.#at += length;
    return new Opaque(name);
  }

  /** The next bytes, valid until the next call. */
  #take(length: number): Uint8Array {
    const at = this.#at;
    if (at + length > this.options.end) this.#fail("PickleCutShort", "the pickle ends in the middle of an opcode", at);
    this.#taken += length;
    if (this.#taken > MAX_PICKLE_BYTES)
      this.#fail("PickleTooLarge", `the pickle exceeds ${MAX_PICKLE_BYTES} bytes`, at);
    const from = at - this.#windowStart;
    this.#at += length;
    if (from >= 0 && from + length <= this.#window.length) return this.#window.subarray(from, from + length);
    this.#window = this.source.read(at, Math.min(this.options.end - at, Math.max(WINDOW_BYTES, length)));
    this.#windowStart = at;
    return this.#window.subarray(0, length);
  }

  #fail(rule: string, message: string, byteOffset: number): never {
    throw new FormatError({ path: this.source.path, rule, message, byteOffset });
  }
}

/** The text, or null where it is not UTF-8. */
function decoded(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Little-endian two's complement; numbers where they are exact. */
function toInteger(bytes: Uint8Array): number | bigint {
  const digits = Buffer.from(bytes).reverse().toString("hex");
  return toSafe(BigInt.asIntN(8 * bytes.length, BigInt(`0x0${digits}`)));
}

function toSafe(value: bigint): number | bigint {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** How much lies below a part that was looked through. */
interface Extent {
  depth: number;
  values: number;
}

/** Why a value cannot be walked through. */
interface Fault {
  rule: string;
  message: string;
}

interface Frame extends Extent {
  node: object;
  children: Iterator<PickleValue>;
}

/**
 * Takes out what a program that walks through the value could stumble over (cycles, depth, parts that are shared so
 * often that the whole is boundless): an entry of the outermost dictionary that holds such a thing becomes an {@link
 * Opaque} which names it.
 * @throws FormatError when the value is no dictionary and such a thing itself
 */
export function containEntries(path: string, root: PickleValue): void {
  const visited = new Map<object, Extent | Fault>();
  if (!(root instanceof Map)) {
    const fault = faultOf(root, null, visited);
    if (fault !== null) throw new FormatError({ path, ...fault });
    return;
  }
  for (const [key, value] of [...root]) {
    const keyFault = faultOf(key, root, visited);
    const fault = keyFault ?? faultOf(value, root, visited);
    if (fault === null) continue;
    if (keyFault !== null) root.delete(key);
    root.set(keyFault === null ? key : new Opaque(keyFault.message, "words"), new Opaque(fault.message, "words"));
  }
}

/** @param parent what the value may not lead back to */
function faultOf(root: PickleValue, parent: object | null, visited: Map<object, Extent | Fault>): Fault | null {
  if (!isBranch(root)) return null;
  const onPath = new Set<object>(parent === null ? [] : [parent]);
  const frames: Frame[] = [];
  const enter = (node: object): void => {
    frames.push({ node, children: childrenOf(node), depth: 0, values: 1 });
    onPath.add(node);
  };
  // What leads to a fault is not looked through again.
  const fail = (fault: Fault): Fault => {
    for (const { node } of frames) visited.set(node, fault);
    return fault;
  };
  /** Adds a part to the frame that holds it. */
  const account = (part: Extent): Fault | null => {
    const holder = frames.at(-1)!;
    holder.depth = Math.max(holder.depth, part.depth + 1);
    holder.values += part.values;
    if (holder.depth + frames.length > MAX_DEPTH) return TOO_DEEP;
    return holder.values > MAX_VALUES ? TOO_MANY : null;
  };
  const known = visited.get(root);
  if (known !== undefined) return "rule" in known ? known : null;
  enter(root);
  while (frames.length > 0) {
    const frame = frames.at(-1)!;
    const next = frame.children.next();
    let part: Extent | Fault = { depth: 0, values: 1 };
    if (next.done) {
      frames.pop();
      onPath.delete(frame.node);
      part = { depth: frame.depth, values: frame.values };
      visited.set(frame.node, part);
      if (frames.length === 0) return null;
    } else if (isBranch(next.value)) {
      if (onPath.has(next.value)) return fail({ rule: "Cycle", message: "a value that holds itself" });
      const seen = visited.get(next.value);
      if (seen === undefined) {
        if (frames.length >= MAX_DEPTH) return fail(TOO_DEEP);
        enter(next.value);
        continue;
      }
      part = seen;
    }
    const fault = "rule" in part ? part : account(part);
    if (fault !== null) return fail(fault);
  }
  return null;
}

const TOO_DEEP: Fault = { rule: "TooDeep", message: `values that lie deeper than ${MAX_DEPTH} levels` };
const TOO_MANY: Fault = {
  rule: "TooManyValues",
  message: `more than ${MAX_VALUES} values, counted wherever they occur`,
};

function isBranch(value: PickleValue): value is PickleValue[] | Map<PickleValue, PickleValue> | Set<PickleValue> {
  return Array.isArray(value) || value instanceof Map || value instanceof Set;
}

function* childrenOf(node: object): Generator<PickleValue> {
  if (!(node instanceof Map)) return yield* node as Iterable<PickleValue>;
  for (const [key, value] of node as Map<PickleValue, PickleValue>) {
    if (isBranch(key)) yield key;
    yield value;
  }
}
