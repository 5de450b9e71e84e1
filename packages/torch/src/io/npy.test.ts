import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DType, scope, tensor } from "../index.js";
import { encodeNpy, FormatError, readNpy, writeNpy } from "./index.js";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "npy-"));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const path = (name = "file.npy"): string => join(folder, name);

interface Layout {
  major?: number;
  minor?: number;
  magic?: string;
  length?: number;
}

/** A file of the given header text (as it is) and data. */
function encode(
  header: string,
  data: number | Uint8Array = 0,
  { major = 1, minor = 0, magic, length }: Layout = {},
): Buffer {
  const text = Buffer.from(header, major === 3 ? "utf8" : "latin1");
  const size = Buffer.alloc(major === 1 ? 2 : 4);
  if (major === 1) size.writeUInt16LE(length ?? text.length);
  else size.writeUInt32LE(length ?? text.length);
  const start = Buffer.from(`${magic ?? "\x93NUMPY"}${String.fromCharCode(major, minor)}`, "latin1");
  return Buffer.concat([start, size, text, typeof data === "number" ? Buffer.alloc(data) : data]);
}
const dictionary = (descr: string, fortran: string, shape: string): string =>
  `{'descr': ${descr}, 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;
const float = (shape: string): string => dictionary("'<f4'", "False", shape);

function read(bytes: Uint8Array): unknown {
  fs.writeFileSync(path(), bytes);
  return scope(() => {
    const t = readNpy(path());
    return [t.dtype, t.shape, t.toList()];
  });
}

const VALID = float("(2,)");
const MALFORMED: [string, Uint8Array, string, number?][] = [
  ["an empty file", Buffer.alloc(0), "FileTooShort", 0],
  ["nine bytes", Buffer.from("\x93NUMPY\x01\x00\x10", "latin1"), "FileTooShort", 9],
  ["another magic", encode(VALID, 8, { magic: "\x93NUMPX" }), "BadMagic", 0],
  ["version 0", encode(VALID, 8, { major: 0 }), "UnknownVersion", 6],
  ["version 4", encode(VALID, 8, { major: 4 }), "UnknownVersion", 6],
  ["version 1.1", encode(VALID, 8, { minor: 1 }), "UnknownVersion", 6],
  ["a length that is cut off", Buffer.from("\x93NUMPY\x02\x00\x10\x00", "latin1"), "FileTooShort", 10],
  ["a header beyond the end", encode(VALID, 0, { length: 500 }), "HeaderOutOfBounds"],
  ["a header above the limit", encode(VALID, 8, { major: 2, length: 2 ** 31 }), "HeaderTooLarge", 8],
  ["an empty header", encode(""), "HeaderEnd"],
  ["a header without newline", encode(VALID.trimEnd(), 8), "HeaderEnd"],
  ["Latin letters in version 1", encode(dictionary("'<f4\u00e9'", "False", "(2,)"), 8), "HeaderNotAscii"],
  ["an expression", encode("__import__('os').system('true')\n"), "HeaderSyntax", 10],
  ["a call as value", encode(dictionary("str('<f4')", "False", "(2,)"), 8), "HeaderSyntax"],
  ["a missing key", encode("{'descr': '<f4', 'fortran_order': False, }\n", 8), "HeaderSyntax"],
  ["an unknown key", encode("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}\n", 8), "HeaderSyntax"],
  [
    "a repeated key",
    encode("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n", 8),
    "HeaderSyntax",
  ],
  ["no comma between", encode("{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}\n", 8), "HeaderSyntax"],
  ["text behind", encode("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} + 1\n", 8), "HeaderSyntax"],
  ["an order that is no boolean", encode(dictionary("'<f4'", "0", "(2,)"), 8), "HeaderSyntax"],
  ["a shape without comma", encode(float("(2)"), 8), "HeaderSyntax"],
  ["a list as shape", encode(float("[2]"), 8), "HeaderSyntax"],
  ["a negative size", encode(float("(-2,)"), 8), "HeaderSyntax"],
  ["a fractional size", encode(float("(2.0,)"), 8), "HeaderSyntax"],
  ["a size with an underscore", encode(float("(2_0,)"), 80), "HeaderSyntax"],
  ["a size above 2^53", encode(float("(9007199254740993,)")), "HeaderSyntax"],
  ["a shape that overflows", encode(float("(4294967296, 4294967296, 4)")), "ShapeOverflow"],
  ["big-endian values", encode(dictionary("'>f4'", "False", "(2,)"), 8), "UnsupportedDtype"],
  ["native order", encode(dictionary("'=f4'", "False", "(2,)"), 8), "UnsupportedDtype"],
  ["objects", encode(dictionary("'|O'", "False", "(2,)"), 16), "UnsupportedDtype"],
  ["strings", encode(dictionary("'<U4'", "False", "(2,)"), 32), "UnsupportedDtype"],
  ["complex numbers", encode(dictionary("'<c8'", "False", "(2,)"), 16), "UnsupportedDtype"],
  ["unsigned 16-bit integers", encode(dictionary("'<u2'", "False", "(2,)"), 4), "UnsupportedDtype"],
  ["a structured dtype", encode(dictionary("[('a', '<f4')]", "False", "(2,)"), 8), "HeaderSyntax"],
  ["too few values", encode(VALID, 7), "DataTooShort"],
  ["bytes behind the values", encode(VALID, 9), "TrailingBytes"],
  ["a boolean of 2", encode(dictionary("'|b1'", "False", "(2,)"), Buffer.from([1, 2])), "InvalidBoolean"],
];

describe("the reader", () => {
  test.each(MALFORMED)("refuses %s", (_, bytes, rule, byteOffset) => {
    let caught: unknown;
    try {
      read(bytes);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(FormatError);
    expect((caught as FormatError).rule).toBe(rule);
    expect((caught as FormatError).message).toContain(path());
    if (byteOffset !== undefined) expect((caught as FormatError).byteOffset).toBe(byteOffset);
  });

  test("takes any spelling that NumPy may write", () => {
    const data = new Uint8Array(new Float32Array([1, 2]).buffer);
    const want = ["float32", [2], [1, 2]];
    expect(read(encode(VALID, data))).toEqual(want);
    expect(read(encode(VALID, data, { major: 2 }))).toEqual(want);
    expect(read(encode(VALID, data, { major: 3 }))).toEqual(want);
    expect(read(encode(`{"shape":(2,),"fortran_order":False,"descr":"<f4"}   \n`, data))).toEqual(want);
    expect(read(encode(float("()"), data.subarray(0, 4)))).toEqual(["float32", [], 1]);
    expect(read(encode(float("(0, 3)")))).toEqual(["float32", [0, 3], []]);
  });

  test("lays Fortran order out anew", () => {
    const data = new Uint8Array(new Int16Array([1, 4, 2, 5, 3, 6]).buffer);
    expect(read(encode(dictionary("'<i2'", "True", "(2, 3)"), data))).toEqual([
      "int16",
      [2, 3],
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
    ]);
    expect(read(encode(dictionary("'<i2'", "True", "(6,)"), data))).toEqual(["int16", [6], [1, 4, 2, 5, 3, 6]]);
  });

  test("survives any change of any byte", () => {
    const whole = encode(VALID, 8);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (position, byte) => {
        const bytes = Buffer.from(whole);
        bytes[position] = byte;
        try {
          read(bytes);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }),
      { numRuns: 300 },
    );
  });
});

const DTYPES: DType[] = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"];

describe("the writer", () => {
  test("gives back what was written, for random shapes and dtypes", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(4), { maxLength: 4 }), fc.constantFrom(...DTYPES), (shape, dtype) => {
        scope(() => {
          const count = shape.reduce((product, size) => product * size, 1);
          const want = tensor(
            Array.from({ length: count }, (_, i) => (dtype === "bool" ? i % 2 : i)),
            { shape },
          ).to({ dtype });
          writeNpy(path(), want);
          expect(Buffer.compare(encodeNpy(want), fs.readFileSync(path()))).toBe(0);
          const got = readNpy(path());
          expect([got.dtype, got.shape, got.toList()]).toEqual([want.dtype, want.shape, want.toList()]);
        });
      }),
      { numRuns: 60 },
    );
  });

  test("writes numpy.save's bytes", () => {
    // Recorded: NumPy 2.4, numpy.save(file, numpy.array([[1, 2, 3]], dtype="<i2")).
    const header = "{'descr': '<i2', 'fortran_order': False, 'shape': (1, 3), }".padEnd(117);
    const expected = Buffer.from(`\x93NUMPY\x01\0\x76\0${header}\n\x01\0\x02\0\x03\0`, "latin1");
    scope(() => writeNpy(path(), tensor([[1, 2, 3]], { dtype: "int16" })));
    expect(fs.readFileSync(path())).toEqual(expected);
  });

  test("refuses bfloat16 and names the way out", () => {
    expect(() => scope(() => writeNpy(path("half.npy"), tensor([1], { dtype: "bfloat16" })))).toThrow(
      /convert the tensor/,
    );
    expect(fs.existsSync(path("half.npy"))).toBe(false);
  });
});
