/** Archives and pickles for tests, byte by byte: what `torch.save` would write, and what it never would. */
import fs from "node:fs";

/** Bytes, or so many zeros that take no room on the disk. */
export type MemberContent = Uint8Array | number;

/** Writes an archive of stored members; wide (ZIP64) fields where `zip64` or the offsets ask for them. */
export function writeArchive(path: string, members: [name: string, content: MemberContent][], zip64 = false): void {
  const file = fs.openSync(path, "w");
  let at = 0;
  const write = (bytes: Uint8Array) => {
    fs.writeSync(file, bytes, 0, bytes.length, at);
    at += bytes.length;
  };
  const entries: Buffer[] = [];
  for (const [name, content] of members) {
    const label = Buffer.from(name);
    const size = typeof content === "number" ? content : content.length;
    const wide = zip64 || size >= 0xffffffff || at >= 0xffffffff;
    const header = Buffer.alloc(46);
    header.writeUInt32LE(0x02014b50, 0);
    header.writeUInt32LE(wide ? 0xffffffff : size, 20);
    header.writeUInt32LE(wide ? 0xffffffff : size, 24);
    header.writeUInt16LE(label.length, 28);
    header.writeUInt16LE(wide ? 28 : 0, 30);
    header.writeUInt32LE(wide ? 0xffffffff : at, 42);
    const extra = Buffer.alloc(wide ? 28 : 0);
    if (wide) {
      extra.writeUInt16LE(1, 0);
      extra.writeUInt16LE(24, 2);
      for (const [i, value] of [size, size, at].entries()) extra.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
    }
    entries.push(header, label, extra);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(label.length, 26);
    write(local);
    write(label);
    if (typeof content === "number") at += content;
    else write(content);
  }
  const start = at;
  const directory = Buffer.concat(entries);
  write(directory);
  const wide = zip64 || start >= 0xffffffff;
  if (wide) {
    const record = Buffer.alloc(76);
    record.writeUInt32LE(0x06064b50, 0);
    record.writeBigUInt64LE(44n, 4);
    record.writeBigUInt64LE(BigInt(members.length), 24);
    record.writeBigUInt64LE(BigInt(members.length), 32);
    record.writeBigUInt64LE(BigInt(directory.length), 40);
    record.writeBigUInt64LE(BigInt(start), 48);
    record.writeUInt32LE(0x07064b50, 56);
    record.writeBigUInt64LE(BigInt(at), 64);
    write(record);
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(wide ? 0xffff : members.length, 8);
  end.writeUInt16LE(wide ? 0xffff : members.length, 10);
  end.writeUInt32LE(wide ? 0xffffffff : directory.length, 12);
  end.writeUInt32LE(wide ? 0xffffffff : start, 16);
  write(end);
  fs.closeSync(file);
}

/** Pieces of a pickle: texts are opcodes and their arguments as they are. */
export const pickle = (...parts: (string | Uint8Array)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part, "latin1") : part)));

/** BINUNICODE. */
export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const head = Buffer.alloc(5, "X");
  head.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** BININT or LONG1 of 8 bytes. */
export function int(value: number): Buffer {
  const small = Math.abs(value) < 2 ** 31;
  const bytes = Buffer.alloc(small ? 5 : 10);
  if (small) {
    bytes.write("J");
    bytes.writeInt32LE(value, 1);
  } else {
    bytes.writeUInt8(0x8a, 0);
    bytes.writeUInt8(8, 1);
    bytes.writeBigInt64LE(BigInt(value), 2);
  }
  return bytes;
}

export const tuple = (...items: (string | Uint8Array)[]): Buffer => pickle("(", ...items, "t");

export interface PickledTensor {
  key?: string;
  storage?: string;
  elements?: number;
  offset?: number;
  shape?: number[];
  strides?: number[];
}

/** A tensor as `torch.save` writes it. */
export function pickledTensor({
  key = "0",
  storage = "FloatStorage",
  elements = 4,
  offset = 0,
  shape = [4],
  strides = [1],
}: PickledTensor = {}): Buffer {
  const id = tuple(text("storage"), `ctorch\n${storage}\n`, text(key), text("cpu"), int(elements));
  const hooks = "ccollections\nOrderedDict\n)R";
  return pickle(
    "ctorch._utils\n_rebuild_tensor_v2\n",
    tuple(id, "Q", int(offset), tuple(...shape.map(int)), tuple(...strides.map(int)), "\x89", hooks),
    "R",
  );
}

/** A whole pickle of one dictionary. */
export const dictionary = (items: Record<string, Uint8Array | string>): Buffer =>
  pickle("\x80\x02}(", ...Object.entries(items).flatMap(([key, value]) => [text(key), value]), "u.");
