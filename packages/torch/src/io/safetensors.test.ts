import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DType, memory, scope, type Tensor, TorchError, tensor, zeros } from "../index.js";
import { FormatError, readSafetensors, SafetensorsFile, writeSafetensors } from "./index.js";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "safetensors-"));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const path = (name = "file.safetensors"): string => join(folder, name);

/** A file of the given header text (as it is) and data. */
function encode(header: string | Uint8Array, data: number | Uint8Array = 0, declared?: bigint): Buffer {
  const json = Buffer.from(header as string);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(declared ?? BigInt(json.length));
  return Buffer.concat([prefix, json, typeof data === "number" ? Buffer.alloc(data) : data]);
}
const entry = (dtype: unknown, shape: unknown, offsets: unknown): string =>
  JSON.stringify({ dtype, shape, data_offsets: offsets });
const one = (dtype: unknown, shape: unknown, offsets: unknown): string => `{"x":${entry(dtype, shape, offsets)}}`;

function failure(bytes: Uint8Array): FormatError {
  fs.writeFileSync(path(), bytes);
  try {
    scope(() => readSafetensors(path()));
  } catch (error) {
    expect(error).toBeInstanceOf(FormatError);
    expect(error).toBeInstanceOf(TorchError);
    expect((error as FormatError).message).toContain(path());
    return error as FormatError;
  }
  throw new Error("the file was accepted");
}

/** What is wrong → file → rule, byte offset (from the format: 8 bytes of length, then the header). */
const MALFORMED: [string, Uint8Array, string, number?][] = [
  ["an empty file", Buffer.alloc(0), "FileTooShort", 0],
  ["seven bytes", Buffer.alloc(7), "FileTooShort", 7],
  ["a header length of 0", encode(""), "HeaderStart", 8],
  ["a header beyond the end", encode("{}", 0, 3n), "HeaderOutOfBounds", 10],
  ["a header length above the limit", encode("{}", 0, 100_000_001n), "HeaderTooLarge", 0],
  ["a header length of 2^64 - 1", encode("{}", 0, 2n ** 64n - 1n), "HeaderTooLarge", 0],
  ["white space before the header", encode(" {}"), "HeaderStart", 8],
  ["an array as header", encode("[]"), "HeaderStart", 8],
  ["an unclosed object", encode("{"), "HeaderNotJson", 9],
  ["text behind the header", encode("{} x"), "HeaderNotJson", 11],
  ["a trailing comma", encode(`{"x":${entry("U8", [1], [0, 1])},}`, 1), "HeaderNotJson"],
  ["a comment", encode("{/**/}"), "HeaderNotJson", 9],
  ["an unclosed string", encode('{"x'), "HeaderNotJson", 9],
  ["a bad escape", encode('{"\\q":1}'), "HeaderNotJson", 9],
  ["a control character in a string", encode('{"a\nb":1}'), "HeaderNotJson", 9],
  ["half of a surrogate pair", encode('{"\\ud800":1}'), "HeaderNotJson", 9],
  ["invalid UTF-8", encode(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), "HeaderNotUtf8", 9],
  ["deep nesting", encode(`{"x":${"[".repeat(100)}`), "HeaderNotJson"],
  [
    "a duplicate tensor",
    encode(`{"x":${entry("U8", [1], [0, 1])},"x":${entry("U8", [1], [0, 1])}}`, 1),
    "DuplicateKey",
  ],
  [
    "a duplicate field",
    encode('{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
    "DuplicateKey",
    27,
  ],
  [
    "a duplicate by escape",
    encode(`{"x":${entry("U8", [0], [0, 0])},"\\u0078":${entry("U8", [0], [0, 0])}}`),
    "DuplicateKey",
  ],
  ["an unknown dtype", encode(one("F31", [1], [0, 4]), 4), "UnknownDtype"],
  ["a dtype in lower case", encode(one("f32", [1], [0, 4]), 4), "UnknownDtype"],
  ["a dtype named like a property of objects", encode(one("constructor", [1], [0, 4]), 4), "UnknownDtype"],
  ["a dtype that is no string", encode(one(1, [1], [0, 4]), 4), "UnknownDtype"],
  ["a negative size", encode(one("U8", [-1], [0, 1]), 1), "NumberNotAnInteger"],
  ["a fractional size", encode('{"x":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', 1), "NumberNotAnInteger"],
  [
    "a size with an exponent",
    encode('{"x":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', 1),
    "NumberNotAnInteger",
  ],
  ["a size with a leading zero", encode('{"x":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', 1), "HeaderNotJson"],
  [
    "a size above 2^53",
    encode('{"x":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,1]}}', 1),
    "NumberOverflow",
  ],
  ["a shape that is no array", encode(one("U8", 1, [0, 1]), 1), "InvalidShape"],
  ["a shape of strings", encode(one("U8", ["1"], [0, 1]), 1), "InvalidShape"],
  ["a shape whose product overflows", encode(one("F32", [2 ** 40, 2 ** 40], [0, 4]), 4), "ShapeOverflow"],
  ["a product that wraps to the size at 64 bits", encode(one("F32", [2 ** 32, 2 ** 32, 2], [0, 0])), "ShapeOverflow"],
  [
    "a shape of 200,000 sizes whose product takes a minute",
    encode(one("U8", Array(200_000).fill(Number.MAX_SAFE_INTEGER), [0, 1]), 1),
    "ShapeOverflow",
  ],
  ["one offset", encode(one("U8", [1], [1]), 1), "InvalidOffsets"],
  ["three offsets", encode(one("U8", [1], [0, 1, 1]), 1), "InvalidOffsets"],
  ["offsets in reverse", encode(one("U8", [1], [1, 0]), 1), "InvalidOffsets"],
  ["fewer bytes than the shape takes", encode(one("F32", [2], [0, 4]), 4), "SizeMismatch"],
  ["more bytes than the shape takes", encode(one("U8", [1], [0, 2]), 2), "SizeMismatch"],
  ["a shape that ends within a byte", encode(one("F4", [3], [0, 1]), 1), "MisalignedSize"],
  ["data beyond the end", encode(one("F32", [2], [0, 8]), 7), "DataOutOfBounds"],
  ["bytes behind the data", encode(one("U8", [1], [0, 1]), 2), "TrailingBytes"],
  ["bytes without tensors", encode("{}", 1), "TrailingBytes", 10],
  ["a hole at the start", encode(one("U8", [1], [1, 2]), 2), "Hole"],
  ["a hole between", encode(`{"x":${entry("U8", [1], [0, 1])},"y":${entry("U8", [1], [2, 3])}}`, 3), "Hole"],
  ["overlapping tensors", encode(`{"x":${entry("U8", [2], [0, 2])},"y":${entry("U8", [2], [1, 3])}}`, 3), "Overlap"],
  ["a missing field", encode('{"x":{"dtype":"U8","shape":[1]}}', 1), "InvalidEntry"],
  ["an additional field", encode('{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"y":1}}'), "InvalidEntry"],
  ["an entry that is no object", encode('{"x":[]}'), "InvalidEntry"],
  ["metadata that is no object", encode('{"__metadata__":"x"}'), "InvalidMetadata"],
  ["metadata of numbers", encode('{"__metadata__":{"a":1}}'), "InvalidMetadata"],
  ["a boolean of 2", encode(one("BOOL", [3], [0, 3]), Buffer.from([0, 1, 2])), "InvalidBoolean"],
  ["a dtype without an equivalent", encode(one("F8_E4M3", [1], [0, 1]), 1), "UnsupportedDtype"],
];

describe("the reader", () => {
  test.each(MALFORMED)("refuses %s", (_, bytes, rule, byteOffset) => {
    const error = failure(bytes);
    expect(error.rule).toBe(rule);
    if (byteOffset !== undefined) expect(error.byteOffset).toBe(byteOffset);
  });

  test("a file does not decide how long its error is", () => {
    const name = "n".repeat(100_000);
    const long = [`{"${name}":${entry("F32", [2], [0, 4])}}`, `{"${name}":1,"${name}":1}`, one(name, [1], [0, 4])];
    for (const header of long) expect(failure(encode(header, 4)).message.length).toBeLessThan(2000);
  });

  test("names the tensor and the byte", () => {
    const error = failure(encode(one("F32", [2], [0, 8]), 7));
    expect(error.tensor).toBe("x");
    expect(error.byteOffset).toBe(8 + one("F32", [2], [0, 8]).length);
    expect(error.message).toContain('tensor "x"');
  });

  test("refuses what is no readable file, by its path", () => {
    expect(() => SafetensorsFile.open(path("missing"))).toThrow(/missing: cannot be read: no such file/);
    expect(() => SafetensorsFile.open(folder)).toThrow(/not a regular file/);
  });

  test("refuses every truncation and never reads past it", () => {
    scope(() => writeSafetensors(path("whole"), { a: zeros([3, 2]), b: zeros([5], { dtype: "uint8" }) }, { k: "v" }));
    const whole = fs.readFileSync(path("whole"));
    for (let length = 0; length < whole.length; length++) failure(whole.subarray(0, length));
  });

  test("survives any change of any header byte", () => {
    scope(() => writeSafetensors(path("whole"), { a: zeros([3, 2]), b: zeros([5], { dtype: "uint8" }) }, { k: "v" }));
    const whole = fs.readFileSync(path("whole"));
    fc.assert(
      fc.property(fc.nat(7 + whole.readUInt32LE(0)), fc.nat(255), (position, byte) => {
        const bytes = Buffer.from(whole);
        bytes[position] = byte;
        fs.writeFileSync(path(), bytes);
        try {
          scope(() => readSafetensors(path()));
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }),
      { numRuns: 300 },
    );
  });

  test("accepts the least file, padding, empty tensors and names like those of object properties", () => {
    fs.writeFileSync(path(), encode("{}"));
    expect(readSafetensors(path()).size).toBe(0);
    fs.writeFileSync(
      path(),
      encode(`{"__proto__":${entry("F32", [0, 3], [0, 0])},"s":${entry("I64", [], [0, 8])}}   `, 8),
    );
    using file = SafetensorsFile.open(path());
    expect(file.keys()).toEqual(["__proto__", "s"]);
    scope(() => {
      expect(file.get("__proto__").shape).toEqual([0, 3]);
      expect(file.get("s").toList()).toBe(0);
    });
  });

  test("opens a file with a dtype the engine lacks, and gives the others", () => {
    fs.writeFileSync(path(), encode(`{"x":${entry("U16", [1], [0, 2])},"y":${entry("U8", [1], [2, 3])}}`, 3));
    using file = SafetensorsFile.open(path());
    expect(file.info("x")).toMatchObject({ formatDtype: "U16", dtype: null, byteLength: 2 });
    expect(() => file.get("x")).toThrow(/U16 is not supported/);
    expect(scope(() => file.get("y").toList())).toEqual([0]);
  });

  test("gives aligned tensors without copying, unaligned ones right", () => {
    const size = 4 * 2 ** 20;
    const header = `{"big":${entry("F32", [size], [0, 4 * size])},"odd":${entry("F32", [1], [4 * size, 4 * size + 4])}}`;
    const aligning = 8 - (header.length % 8);
    for (const [padding, copies] of [
      [aligning, false],
      [aligning + 1, true],
    ] as const) {
      const data = Buffer.alloc(4 * size + 4);
      data.writeFloatLE(1.5, 4 * size);
      fs.writeFileSync(path(), encode(header + " ".repeat(padding), data));
      const before = memory.stats().liveBytes;
      const tensors = readSafetensors(path());
      expect(memory.stats().liveBytes - before >= 4 * size).toBe(copies);
      expect(tensors.get("odd")!.item()).toBe(1.5);
      for (const t of tensors.values()) t.dispose();
    }
  });

  test("keeps tensors usable after close, and the file unchanged when they are written to", () => {
    scope(() => {
      writeSafetensors(path(), { x: tensor([1, 2, 3]) });
      const before = fs.readFileSync(path());
      const file = SafetensorsFile.open(path());
      const x = file.get("x");
      file.close();
      x.add_(1);
      expect(x.toList()).toEqual([2, 3, 4]);
      expect(fs.readFileSync(path())).toEqual(before);
      expect(() => file.get("x")).toThrow(/is closed/);
    });
  });
});

const DTYPES: DType[] = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "int64",
  "int32",
  "int16",
  "int8",
  "uint8",
  "bool",
];

describe("the writer", () => {
  test("gives back what was written, for random names, shapes, dtypes and metadata", () => {
    const named = fc.record({
      name: fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
      dtype: fc.constantFrom(...DTYPES),
      seed: fc.nat(100),
    });
    const metadata = fc.dictionary(fc.string(), fc.string());
    fc.assert(
      fc.property(fc.uniqueArray(named, { selector: ({ name }) => name, maxLength: 6 }), metadata, (items, strings) => {
        scope(() => {
          const written = new Map<string, Tensor>();
          for (const { name, shape, dtype, seed } of items) {
            const count = shape.reduce((product, size) => product * size, 1);
            const values = Array.from({ length: count }, (_, i) =>
              dtype === "bool" ? (i + seed) % 2 : (i * 7 + seed) % 100,
            );
            written.set(name, tensor(values, { shape }).to({ dtype }));
          }
          writeSafetensors(path(), written, strings);
          using file = SafetensorsFile.open(path());
          expect(new Set(file.keys())).toEqual(new Set(written.keys()));
          expect(Object.fromEntries(file.metadata)).toEqual({ ...strings });
          for (const [name, want] of written) {
            const got = file.get(name);
            expect([got.dtype, got.shape, got.toList()]).toEqual([want.dtype, want.shape, want.toList()]);
          }
        });
      }),
      { numRuns: 100 },
    );
  });

  test("lays files out as the reference implementation does", () => {
    // Recorded: Python safetensors 0.8.0, save({"b": int8 [1, 2], "a": float32 [[0.5]], "c": int8 [3]}, {"format":
    // "pt"}).
    const header =
      '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},' +
      '"b":{"dtype":"I8","shape":[2],"data_offsets":[4,6]},"c":{"dtype":"I8","shape":[1],"data_offsets":[6,7]}} ';
    const expected = Buffer.from(`\xc0\0\0\0\0\0\0\0${header}\0\0\0?\x01\x02\x03`, "latin1");
    scope(() => {
      const int8 = (values: number[]): Tensor => tensor(values, { dtype: "int8" });
      writeSafetensors(path(), { b: int8([1, 2]), a: tensor([[0.5]]), c: int8([3]) }, { format: "pt" });
      expect(fs.readFileSync(path())).toEqual(expected);
    });
  });

  test("writes strided tensors in row-major order and needs one piece of memory at a time", () => {
    scope(() => {
      const base = tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
      writeSafetensors(path(), { t: base.t(), s: base.slice(1, 0, 3, 2), g: base.clone().requiresGrad_() });
      const read = readSafetensors(path());
      expect(read.get("t")!.toList()).toEqual([
        [1, 4],
        [2, 5],
        [3, 6],
      ]);
      expect(read.get("s")!.toList()).toEqual([
        [1, 3],
        [4, 6],
      ]);
      expect(read.get("g")!.requiresGrad).toBe(false);
    });
  });

  test("refuses what the format cannot hold and leaves the old file", () => {
    scope(() => {
      writeSafetensors(path(), { x: tensor([7]) });
      expect(() => writeSafetensors(path(), { __metadata__: tensor([1]) })).toThrow(/__metadata__/);
      expect(() => writeSafetensors(path(), { "\ud800": tensor([1]) })).toThrow(/Unicode/);
      expect(() => writeSafetensors(path(), { x: tensor([1]) }, { a: 1 as unknown as string })).toThrow(/metadata "a"/);
      for (const [value, found] of [
        [5, "5"],
        [null, "null"],
        [[1], "an array"],
      ] as const)
        expect(() => writeSafetensors(path(), { x: value as never })).toThrow(`x: expected a Tensor, got ${found}`);
      expect(() => writeSafetensors(path(), null as never)).toThrow("expected tensors by name, got null");
      expect(readSafetensors(path()).get("x")!.toList()).toEqual([7]);
    });
  });
});
