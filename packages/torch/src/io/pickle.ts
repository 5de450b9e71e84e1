/**
 * A pickle machine that builds plain data and runs nothing: the opcodes that `torch.save` writes (protocol 2), with the objects a
 * caller knows by name. Format: Python's `pickletools` module documents every opcode.
 *
 * An object of a class that the caller does not know becomes an {@link Opaque}: its arguments and state are dropped, its name is
 * kept for the error. Whether one is tolerable depends on where it ends up; {@link checkPlain} decides that over the finished value.
 */
import { FormatError } from "./format-error.js";

/** Bytes of a pickle: tensors' values lie outside. A checkpoint of 6 GB with 5,000 tensors has 2 MB. */
const MAX_PICKLE_BYTES = 64 * 2 ** 20;
/** Each opcode makes at most one object. */
const MAX_OPCODES = 4_000_000;
const MAX_DEPTH = 100;
/** Values counted once for each way that leads to them. */
const MAX_VALUES = 16_000_000;
const WINDOW_BYTES = 2 ** 16;

/** An object of a class that is not known here: nothing of it but its name is kept. */
export class Opaque {
  /** @param name module and class, e.g. `builtins.eval` */
  constructor(readonly name: string) {}
}

/** A function or class that a pickle may name. */
export class Known {
  constructor(
    readonly name: string,
    /** Makes the object; null for names that are values themselves, as a dtype. @throws Error saying what is wrong */
    readonly call: ((args: PickleValue[]) => PickleValue) | null,
  ) {}
}

/** Something a {@link Known} or the caller made; the machine passes it on as it is. */
export abstract class PickleLeaf {}

/** Lists and tuples are arrays, dictionaries are maps. Parts may be shared; {@link checkPlain} refuses cycles. */
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
  readonly path: string;
  read(offset: number, length: number): Uint8Array;
}

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
 * @throws FormatError naming the opcode or object that is not allowed, the limit or the rule that is broken, and the byte
 */
export function readPickle(source: PickleSource, options: PickleOptions): { value: PickleValue; end: number } {
  return new Machine(source, options).run();
}

class Machine {
  readonly #stack: PickleValue[] = [];
  /** Heights of the stack at its marks. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  readonly #end: number;
  #at: number;
  #window: Uint8Array = new Uint8Array(0);
  #windowStart = 0;

  constructor(
    readonly source: PickleSource,
    readonly options: PickleOptions,
  ) {
    this.#at = options.start;
    this.#end = Math.min(options.end, options.start + MAX_PICKLE_BYTES);
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
        if (protocol !== 2)
          this.#fail("UnknownProtocol", `pickle protocol ${protocol}; torch.save writes protocol 2`, at);
        return undefined;
      }
      case "MARK":
        this.#marks.push(this.#stack.length);
        return undefined;
      case "NONE":
        return null;
      case "NEWTRUE":
        return true;
      case "NEWFALSE":
        return false;
      case "BININT":
        return this.#view(4).getInt32(0, true);
      case "BININT1":
        return this.#byte();
      case "BININT2":
        return this.#view(2).getUint16(0, true);
      case "LONG1":
        return toInteger(this.#take(this.#byte()));
      case "BINFLOAT":
        return this.#view(8).getFloat64(0, false);
      case "BINUNICODE":
        return this.#text(this.#view(4).getUint32(0, true), at);
      case "SHORT_BINSTRING":
        return this.#text(this.#byte(), at);
      case "EMPTY_TUPLE":
      case "EMPTY_LIST":
        return [];
      case "EMPTY_DICT":
        return new Map();
      case "EMPTY_SET":
        return new Set();
      case "TUPLE":
        return this.#popMark(at);
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
      case "SETITEM":
        this.#setItems(this.#popSome(2, at), at);
        return undefined;
      case "SETITEMS":
        this.#setItems(this.#popMark(at), at);
        return undefined;
      case "BINPUT":
        this.#store(this.#byte(), at);
        return undefined;
      case "LONG_BINPUT":
        this.#store(this.#view(4).getUint32(0, true), at);
        return undefined;
      case "BINGET":
        return this.#recall(this.#byte(), at);
      case "LONG_BINGET":
        return this.#recall(this.#view(4).getUint32(0, true), at);
      case "GLOBAL": {
        const name = `${this.#line(at)}.${this.#line(at)}`;
        return this.options.known.get(name) ?? new Opaque(name);
      }
      case "BINPERSID": {
        const [id] = this.#popSome(1, at);
        return this.#attempt("BadPersistentId", () => this.options.persistent(id!), at);
      }
      case "REDUCE":
      case "NEWOBJ": {
        const [callable, args] = this.#popSome(2, at) as [PickleValue, PickleValue];
        return this.#make(callable, args, at);
      }
      case "BUILD": {
        // The state of an ordered dictionary is `_metadata`, versions that modules keep of themselves.
        const [target] = this.#popSome(2, at);
        if (!(target instanceof Map || target instanceof Opaque)) this.#fail("BadState", "BUILD of no object", at);
        return target!;
      }
      case "":
        return this.#fail("UnknownOpcode", "a byte that is no opcode", at);
      default:
        return this.#fail("ForbiddenOpcode", `the opcode ${opcode} has no place in a checkpoint`, at);
    }
  }

  #make(callable: PickleValue, args: PickleValue, at: number): PickleValue {
    if (callable instanceof Opaque) return new Opaque(callable.name);
    if (!(callable instanceof Known) || callable.call === null || !Array.isArray(args))
      return this.#fail("BadCall", "a call of what is no function", at);
    const { call, name } = callable;
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

  #setItems(items: PickleValue[], at: number): void {
    const target = this.#top(at);
    if (items.length % 2 !== 0) this.#fail("BadItems", "a key without a value", at);
    if (target instanceof Opaque) return;
    if (!(target instanceof Map)) this.#fail("BadItems", "items are put into what is no dictionary", at);
    for (let i = 0; i < items.length; i += 2) (target as Map<PickleValue, PickleValue>).set(items[i]!, items[i + 1]!);
  }

  #store(index: number, at: number): void {
    this.#memo.set(index, this.#top(at));
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

  #text(length: number, at: number): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.#take(length));
    } catch (error) {
      if (error instanceof FormatError) throw error;
      return this.#fail("NotUtf8", "a text is not valid UTF-8", at);
    }
  }

  /** A name of a module or class: printable ASCII, ended by a newline. */
  #line(at: number): string {
    let line = "";
    for (let byte = this.#byte(); byte !== 0x0a; byte = this.#byte()) {
      if (byte < 0x21 || byte > 0x7e || line.length >= 200)
        this.#fail("BadName", "a name of a class is too long or not printable", at);
      line += String.fromCharCode(byte);
    }
    return line;
  }

  #byte(): number {
    return this.#take(1)[0]!;
  }

  #view(length: number): DataView {
    const bytes = this.#take(length);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  }

  /** The next bytes, valid until the next call. */
  #take(length: number): Uint8Array {
    const at = this.#at;
    if (at + length > this.#end) {
      if (this.#end < this.options.end)
        this.#fail("PickleTooLarge", `the pickle exceeds ${MAX_PICKLE_BYTES} bytes`, at);
      this.#fail("PickleCutShort", "the pickle ends in the middle of an opcode", at);
    }
    const from = at - this.#windowStart;
    this.#at += length;
    if (from >= 0 && from + length <= this.#window.length) return this.#window.subarray(from, from + length);
    this.#window = this.source.read(at, Math.min(this.#end - at, Math.max(WINDOW_BYTES, length)));
    this.#windowStart = at;
    return this.#window.subarray(0, length);
  }

  #fail(rule: string, message: string, byteOffset: number): never {
    throw new FormatError({ path: this.source.path, rule, message, byteOffset });
  }
}

/** Little-endian two's complement; numbers where they are exact. */
function toInteger(bytes: Uint8Array): number | bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  value = BigInt.asIntN(8 * bytes.length, value);
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** What is known of a part of a value that was looked through. */
interface Visited {
  depth: number;
  values: number;
  opaque: Opaque | null;
}

interface Frame {
  node: object;
  key: PickleValue;
  children: Iterator<[PickleValue, PickleValue]>;
  /** What of its parts is known so far. */
  depth: number;
  values: number;
  opaque: Opaque | null;
}

/**
 * Refuses what a program that walks through the value could stumble over (cycles, depth, parts that are shared so often that the whole
 * is boundless) and objects of unknown classes, but those below the top-level keys that `tolerated` names.
 * @throws FormatError naming the class and where it is, or the limit
 */
export function checkPlain(path: string, root: PickleValue, tolerated: ReadonlySet<string>): void {
  const visited = new Map<object, Visited>();
  const frames: Frame[] = [];
  const where = (key?: PickleValue) =>
    [...frames.slice(1).map((frame) => frame.key), ...(key === undefined ? [] : [key])].map(describeKey).join(".");
  const fail = (rule: string, message: string): never => {
    throw new FormatError({ path, rule, message });
  };
  const enter = (node: object, key: PickleValue) => {
    if (frames.length >= MAX_DEPTH) fail("TooDeep", `values lie deeper than ${MAX_DEPTH} levels`);
    frames.push({ node, key, children: childrenOf(node), depth: 0, values: 1, opaque: null });
  };
  const onPath = new Set<object>();
  const account = (frame: Frame, key: PickleValue, part: Visited) => {
    frame.depth = Math.max(frame.depth, part.depth + 1);
    frame.values += part.values;
    if (frame.depth + frames.length > MAX_DEPTH) fail("TooDeep", `values lie deeper than ${MAX_DEPTH} levels`);
    if (frame.values > MAX_VALUES) fail("TooManyValues", `more than ${MAX_VALUES} values, counted wherever they occur`);
    if (part.opaque === null) return;
    if (frame.node === root && typeof key === "string" && tolerated.has(key)) return;
    frame.opaque = part.opaque;
    if (frame.node === root)
      fail("ForbiddenGlobal", `${describeKey(key)} holds a ${part.opaque.name}, which has no place in a state dict`);
  };

  if (root instanceof Opaque || root instanceof Known)
    fail("ForbiddenGlobal", `the file is a ${root.name}, not a state dict`);
  if (!isBranch(root)) return;
  enter(root, null);
  onPath.add(root);
  while (frames.length > 0) {
    const frame = frames.at(-1)!;
    const next = frame.children.next();
    if (next.done) {
      frames.pop();
      onPath.delete(frame.node);
      const summary = { depth: frame.depth, values: frame.values, opaque: frame.opaque };
      visited.set(frame.node, summary);
      if (frames.length > 0) account(frames.at(-1)!, frame.key, summary);
      continue;
    }
    const [key, value] = next.value;
    if (!isBranch(value)) {
      account(frame, key, { depth: 0, values: 1, opaque: value instanceof Opaque ? value : null });
      continue;
    }
    if (onPath.has(value)) fail("Cycle", `${where(key)} holds itself`);
    const known = visited.get(value);
    if (known !== undefined) account(frame, key, known);
    else {
      enter(value, key);
      onPath.add(value);
    }
  }
}

function isBranch(value: PickleValue): value is PickleValue[] | Map<PickleValue, PickleValue> | Set<PickleValue> {
  return Array.isArray(value) || value instanceof Map || value instanceof Set;
}

function* childrenOf(node: object): Generator<[PickleValue, PickleValue]> {
  if (node instanceof Map) {
    for (const [key, value] of node as Map<PickleValue, PickleValue>) {
      if (isBranch(key) || key instanceof Opaque) yield ["a key", key];
      yield [key, value];
    }
  } else {
    let index = 0;
    for (const value of node as Iterable<PickleValue>) yield [index++, value];
  }
}

function describeKey(key: PickleValue): string {
  return typeof key === "string" || typeof key === "number" ? String(key).slice(0, 100) : "(a key)";
}
