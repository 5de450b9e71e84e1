import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { empty, scope, type Tensor, TorchError } from "../index.js";
import { FormatError, Opaque, TorchCheckpoint, TorchTensor } from "./index.js";
import {
  dictionary,
  int,
  type MemberContent,
  type PickledTensor,
  pickle,
  pickledTensor,
  text,
  tuple,
  writeArchive,
} from "./testing/archives.js";

const fixture = (name: string) => join(import.meta.dirname, "fixtures", name);
type Recorded = Record<string, { dtype: string; shape: number[]; base64: string }>;
const recorded = JSON.parse(fs.readFileSync(fixture("values.json"), "utf8")) as { tensors: Recorded; odd: Recorded };
const expected = recorded.tensors;

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "torch-checkpoint-"));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));
const path = (name = "file.pt"): string => join(folder, name);

const base64 = (tensor: Tensor): string => {
  const data = tensor.data();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
};

/** An archive with the pickle of one dictionary and storages by number. */
function archive(root: Uint8Array, storages: MemberContent[] = [Buffer.alloc(16)], name = "file.pt"): string {
  const members = storages.map((bytes, i): [string, MemberContent] => [`a/data/${i}`, bytes]);
  writeArchive(path(name), [["a/data.pkl", root], ...members]);
  return path(name);
}

function failure(file: string): FormatError {
  try {
    TorchCheckpoint.open(file).close();
  } catch (error) {
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).message).toContain(file);
    return error as FormatError;
  }
  throw new Error("the file was accepted");
}

describe("files of torch.save", () => {
  test.each(["values.pt", "plain.pt"])("%s: every dtype and layout comes with PyTorch's bytes", (name) => {
    using checkpoint = TorchCheckpoint.open(fixture(name));
    const tensors = (checkpoint.root as Map<string, Map<string, TorchTensor>>).get("state_dict")!;
    expect([...tensors.keys()]).toEqual(
      Object.keys(expected).filter((key) => name === "values.pt" || key !== "uint16"),
    );
    scope(() => {
      for (const [key, tensor] of tensors) {
        const want = expected[key]!;
        expect([key, tensor.formatDtype, tensor.shape]).toEqual([key, want.dtype, want.shape]);
        if (tensor.dtype !== null) expect([key, base64(checkpoint.read(tensor, key))]).toEqual([key, want.base64]);
        else expect(() => checkpoint.read(tensor, key)).toThrow(/"uint16": dtype uint16 is not supported/);
      }
    });
  });

  test.each(["values.pt", "plain.pt"])("%s: plain values come as they are", (name) => {
    using checkpoint = TorchCheckpoint.open(fixture(name));
    const root = checkpoint.root as Map<string, unknown>;
    expect(root.get("epoch")).toBe(3);
    const { dtype, ...plain } = Object.fromEntries(root.get("plain") as Map<string, unknown>);
    expect(plain).toEqual({
      none: null,
      yes: true,
      no: false,
      small: 7,
      negative: -3,
      wide: 2 ** 20,
      long: 2 ** 40,
      huge: -(2n ** 90n),
      float: 0.1,
      text: "naïve ☃",
      list: [1, [2, "three"]],
      tuple: [1],
      tuples: [[1, 2], [1, 2, 3, 4], []],
      size: [3, 4],
      numbers: new Map([
        [1, "one"],
        [2, "two"],
      ]),
    });
    expect(dtype).toMatchObject({ name: "torch.bfloat16" });
  });

  test("a state dict serves as a tensor file: converted to the target's dtype, in C order", () => {
    using checkpoint = TorchCheckpoint.open(fixture("values.pt"));
    const file = checkpoint.stateDict();
    expect(file.info("permuted")).toMatchObject({ shape: [4, 2, 3], dtype: "float32" });
    scope(() => {
      const [wide, exact] = [empty([4, 2, 3], { dtype: "float64" }), empty([4, 2, 3])];
      file.copyTo("permuted", wide);
      file.copyTo("permuted", exact);
      expect(wide.toList()).toEqual(exact.toList());
      expect(base64(exact)).toBe(expected.permuted!.base64);
      expect(() => file.copyTo("permuted", empty([3]))).toThrow(/"permuted" of shape \[4,2,3\] does not fit/);
      expect(() => file.copyTo("nothing", exact)).toThrow(/holds no tensor "nothing"/);
    });
  });

  test("objects of other classes come empty, with their names", () => {
    using checkpoint = TorchCheckpoint.open(fixture("objects.pt"));
    const root = checkpoint.root as Map<string, any>;
    expect(root.get("hyper_parameters")).toEqual(new Opaque("argparse.Namespace"));
    expect(root.get("callbacks").get("ModelCheckpoint").get("best_model_score")).toBeInstanceOf(TorchTensor);
    expect(root.get("optimizer_states")[0].get("note")).toBe(1);
  });

  test("a command that Python would run stands among the tensors as a name, and nothing runs", () => {
    using checkpoint = TorchCheckpoint.open(fixture("evil.pt"));
    const state = checkpoint.stateDict();
    expect(state.keys()).toEqual(["weight"]);
    expect([...state.others]).toEqual([["other", "an object of posix.system"]]);
    expect(() => state.info("other")).toThrow(/evil\.pt: holds no tensor "other": it is an object of posix\.system/);
  });

  test.each(["odd-2.pt", "odd-4.pt", "odd-5.pt", "odd-plain.pt"])(
    "%s: tensors come with PyTorch's values, whatever stands beside them",
    (name) => {
      using checkpoint = TorchCheckpoint.open(fixture(name));
      const state = checkpoint.stateDict();
      const plain = name === "odd-plain.pt";
      const want = Object.entries(recorded.odd).filter(([key]) => !plain || key !== "float8");
      expect(state.keys()).toEqual([...want.map(([key]) => key), "conjugate"]);
      expect([...state.others.keys()]).toEqual(
        ["tagged", "sparse", "none", "number", "quantized", "meta"].filter((key) => !plain || key !== "meta"),
      );
      const tensors = (checkpoint.root as Map<string, Map<string, TorchTensor>>).get("state_dict")!;
      scope(() => {
        for (const [key, { dtype, shape, base64: bytes }] of want) {
          const tensor = tensors.get(key)!;
          expect([key, tensor.formatDtype, tensor.shape]).toEqual([key, dtype, shape]);
          if (tensor.dtype === null) continue;
          expect([key, base64(checkpoint.read(tensor, key))]).toEqual([key, bytes]);
          const target = empty(shape);
          state.copyTo(key, target);
          expect([key, base64(target)]).toEqual([key, bytes]);
        }
        for (const key of ["conjugate", plain ? "conjugate" : "float8"])
          expect(() => checkpoint.read(tensors.get(key)!, key)).toThrow(/is not supported by the engine/);
      });
      const root = checkpoint.root as Map<string, any>;
      const values = ["global_step", "best_loss", "float32", "bool", "uint8", "int16", "big_endian"];
      expect(values.map((key) => root.get(key))).toEqual([5, 0.5, 1.5, true, 200, -2, 70000]);
      expect(root.get("huge")).toBe(1n << 5000n);
      expect([root.get("set"), root.get("frozenset")]).toEqual([new Set(["a"]), new Set([1, 2])]);
      expect([...root.get("ordered"), ...root.get("defaultdict")]).toEqual([
        ["b", 1],
        ["a", 2],
        ["a", 1],
      ]);
      expect([root.get("bytes").bytes, root.get("no_bytes").bytes]).toEqual(
        [Buffer.from([97, 98, 255]), Buffer.from([])].map((bytes) =>
          expect.objectContaining(plain || name === "odd-2.pt" ? bytes : new Uint8Array(bytes)),
        ),
      );
      expect(root.get("config")).toEqual(new Opaque("somebody.Config"));
      expect(root.get("path")).toEqual(new Opaque("pathlib.PosixPath"));
      for (const key of ["loop", "tuple_loop"])
        expect(root.get(key)).toEqual(new Opaque("a value that holds itself", "words"));
      expect(root.get("deep").description).toMatch(/deeper than 100 levels/);
      const opaque = [
        "float16",
        "datetime64",
        "array",
        "objects",
        "named",
        "many_bytes",
        "bytearray",
        "complex",
        "range",
      ];
      for (const key of [
        ...opaque,
        "date",
        "uuid",
        "counter",
        "deque",
        "class",
        "function",
        "device",
        "surrogate",
        "module",
      ])
        expect([key, root.get(key)]).toEqual([key, expect.any(Opaque)]);
    },
  );

  test("TorchScript archives are refused as such", () => {
    expect(failure(fixture("script.pt"))).toMatchObject({ rule: "TorchScript" });
  });

  test("values that are not finite are refused where they go into a network, and kept where they are asked for", () => {
    const file = archive(dictionary({ w: pickledTensor() }), [
      Buffer.from(new Float32Array([1, 2, Number.NaN, 4]).buffer),
    ]);
    using checkpoint = TorchCheckpoint.open(file);
    scope(() => {
      expect(() => checkpoint.stateDict().copyTo("w", empty([4]))).toThrow(/"w": element 2 is not finite/);
      const w = (checkpoint.root as Map<string, TorchTensor>).get("w")!;
      expect(checkpoint.read(w).toList()).toEqual([1, 2, Number.NaN, 4]);
    });
  });
});

describe("large files", () => {
  test("storages beyond 4 GiB are found and read alone", () => {
    const values = Buffer.from(new Float32Array([1, -2, 3, 0.5]).buffer);
    const elements = (5 * 2 ** 30) / 4;
    const root = dictionary({
      large: pickledTensor({ key: "0", elements, shape: [elements] }),
      small: pickledTensor({ key: "1" }),
    });
    const file = archive(root, [5 * 2 ** 30, values], "large.pt"); // a hole: takes no room
    using checkpoint = TorchCheckpoint.open(file);
    scope(() => {
      const target = empty([4]);
      checkpoint.stateDict().copyTo("small", target);
      expect(target.toList()).toEqual([1, -2, 3, 0.5]);
      expect(checkpoint.stateDict().info("large").shape).toEqual([elements]);
    });
    fs.rmSync(file);
  });

  test("wide fields are read where no size needs them", () => {
    writeArchive(
      path(),
      [
        ["a/data.pkl", dictionary({ w: pickledTensor() })],
        ["a/data/0", Buffer.alloc(16)],
      ],
      true,
    );
    using checkpoint = TorchCheckpoint.open(path());
    expect(checkpoint.stateDict().keys()).toEqual(["w"]);
  });
});

const tensorFault = (fault: PickledTensor): Uint8Array => dictionary({ w: pickledTensor(fault) });
const rootFault = (...parts: (string | Uint8Array)[]): Uint8Array => pickle("\x80\x02", ...parts, ".");

/** What is wrong → pickle → rule. */
const HOSTILE: [string, Uint8Array, string][] = [
  ["protocol 6", pickle("\x80\x06N."), "UnknownProtocol"],
  ["an opcode of protocol 0 that evaluates text", rootFault("S'x'\n"), "ForbiddenOpcode"],
  ["a class whose name is a number", rootFault("K\x01K\x02\x93"), "BadName"],
  ["a class whose name has no end", rootFault("c", "x".repeat(5000)), "BadName"],
  ["bytes of more than the file", rootFault("\x8e\xff\xff\xff\xff\xff\xff\xff\xff"), "PickleCutShort"],
  ["a text of more than the file, longer than any that is read", rootFault("X\xff\xff\xff\xff"), "PickleCutShort"],
  ["an integer of words", rootFault("Ione\n"), "BadNumber"],
  ["a place in the memo that is no count", rootFault("Np-1\n"), "BadMemo"],
  ["a state for a list", rootFault("]Nb"), "BadState"],
  ["a state for a tensor", dictionary({ w: pickle(pickledTensor(), "Nb") }), "BadState"],
  ["items added to a list", rootFault("](N\x90"), "BadItems"],
  ["nothing under a mark called", rootFault("(o"), "BadCall"],
  ["a byte that is no opcode", rootFault("\xff"), "UnknownOpcode"],
  ["no end", pickle("\x80\x02}"), "PickleCutShort"],
  ["a text beyond the end", pickle("\x80\x02X\xff\xff\xff\x7fab."), "PickleCutShort"],
  ["an empty stack", rootFault(), "BadStack"],
  ["two values", rootFault("NN"), "BadStack"],
  ["a mark without values above it taken from below", rootFault("N(\x85"), "BadStack"],
  ["TUPLE without a mark", rootFault("Nt"), "BadStack"],
  ["a memo that was never stored", rootFault("h\x07"), "BadMemo"],
  ["a list that holds itself", rootFault("]q\x00h\x00a"), "Cycle"],
  ["lists in lists, 100,000 deep", rootFault("]".repeat(100_000), "a".repeat(99_999)), "TooDeep"],
  ["tuples in tuples, 100,000 deep", rootFault(")", "\x85".repeat(100_000)), "TooDeep"],
  [
    "pairs of pairs, 60 times",
    rootFault(")", ...Array.from({ length: 60 }, (_, i) => `q${String.fromCharCode(i)}h${String.fromCharCode(i)}\x86`)),
    "TooManyValues",
  ],
  [
    "a list of a million items made a set, five times",
    rootFault(pickle("](", "N".repeat(1_000_000), "eq\x00"), "c__builtin__\nset\nq\x01", "h\x01h\x00\x85R0".repeat(5)),
    "TooManyCopies",
  ],
  ["five million opcodes", rootFault("](", "N".repeat(5_000_000), "e"), "TooManyOpcodes"],
  ["items without a value", rootFault("}(NNNu"), "BadItems"],
  ["items put into a list", rootFault("](NNu"), "BadItems"],
  ["values appended to a dictionary", rootFault("}(Ne"), "BadAppend"],
  ["a call of a list", rootFault("])R"), "BadCall"],
  ["a storage class called", rootFault("ctorch\nFloatStorage\n)R"), "BadCall"],
  [
    "an ordered dictionary of what is no pair",
    rootFault("ccollections\nOrderedDict\n", tuple("](Ne"), "R"),
    "BadArguments",
  ],
  [
    "a size of a million dimensions",
    rootFault("ctorch\nSize\n", tuple(pickle("](", "N".repeat(1_000_000), "e")), "R"),
    "BadArguments",
  ],
  ["a persistent id that is a path", rootFault(text("../../etc/passwd"), "Q"), "BadPersistentId"],
  ["a storage whose key is a path", tensorFault({ key: "../data.pkl" }), "BadPersistentId"],
  ["a storage of negative size", tensorFault({ elements: -4 }), "BadPersistentId"],
  ["a storage whose size overflows", tensorFault({ elements: 2 ** 52, storage: "DoubleStorage" }), "BadPersistentId"],
  ["a storage that is not there", tensorFault({ key: "7" }), "MissingMember"],
  ["a storage of another size than its member", tensorFault({ elements: 5 }), "SizeMismatch"],
  ["a terabyte of storage in 16 bytes", tensorFault({ elements: 2 ** 38, shape: [2 ** 38] }), "SizeMismatch"],
  ["a shape beyond the storage", tensorFault({ shape: [5] }), "BadArguments"],
  ["an offset beyond the storage", tensorFault({ offset: 1 }), "BadArguments"],
  ["strides beyond the storage", tensorFault({ shape: [2, 2], strides: [3, 1] }), "BadArguments"],
  ["a negative stride", tensorFault({ strides: [-1] }), "BadArguments"],
  ["a negative offset", tensorFault({ offset: -1 }), "BadArguments"],
  ["a negative size", tensorFault({ shape: [-4] }), "BadArguments"],
  ["a shape that overflows", tensorFault({ shape: [2 ** 40, 2 ** 40], strides: [0, 0] }), "BadArguments"],
  ["one value repeated into a terabyte", tensorFault({ shape: [2 ** 38], strides: [0] }), "BadArguments"],
  ["more strides than sizes", tensorFault({ strides: [1, 1] }), "BadArguments"],
  ["65 dimensions", tensorFault({ shape: Array(65).fill(1), strides: Array(65).fill(1) }), "BadArguments"],
  [
    "a storage that is two things",
    dictionary({ w: pickledTensor(), v: pickledTensor({ storage: "IntStorage" }) }),
    "BadPersistentId",
  ],
];

describe("hostile pickles are refused by rule", () => {
  test.each(HOSTILE)("%s", (_, root, rule) => {
    expect(failure(archive(root))).toMatchObject({ rule });
  });

  test("opcodes outside of the list are refused by name", () => {
    expect(failure(archive(rootFault("S'x'\n"))).message).toMatch(
      /the opcode STRING, of pickle protocol 0, has no place/,
    );
  });
});

describe("what stands beside the tensors", () => {
  /** What a pickle of one value, beside a tensor, is read as. */
  function beside(...value: (string | Uint8Array)[]): unknown {
    using checkpoint = TorchCheckpoint.open(archive(dictionary({ value: pickle(...value), w: pickledTensor() })));
    expect(checkpoint.stateDict().keys()).toEqual(["w"]);
    return (checkpoint.root as Map<string, unknown>).get("value");
  }
  const opaque = (name: string) => new Opaque(name);
  const length64 = (length: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(length));
    return bytes;
  };
  const scalar = (module: string, code: string, value: string) =>
    pickle(
      `cnumpy.${module}.multiarray\nscalar\n`,
      tuple(dtype(code), `C${String.fromCharCode(value.length)}${value}`),
      "R",
    );
  const dtype = (code: string) =>
    pickle("cnumpy\ndtype\n", tuple(text(code), "\x89\x88"), "R", tuple("K\x03", text("<"), "N"), "b");

  test.each<[string, (string | Uint8Array)[], unknown]>([
    ["a class", ["cbuiltins\neval\n"], opaque("builtins.eval")],
    ["a class in a list", ["](cbuiltins\neval\ne"], [opaque("builtins.eval")]],
    ["a class as a key", ["}cbuiltins\neval\nNs"], new Map([[opaque("builtins.eval"), null]])],
    ["a call", ["cos\nsystem\n", tuple(text("ls")), "R"], opaque("os.system")],
    ["a call with state and items", ["cx\nY\n)\x81}b(NNu(Ne(N\x90"], opaque("x.Y")],
    ["a call with named arguments", ["cx\nY\n)}", text("a"), "Ns\x92"], opaque("x.Y")],
    ["OBJ", ["(cx\nY\nNNo"], opaque("x.Y")],
    ["INST", ["(Nix\nY\n"], opaque("x.Y")],
    ["a class found by two texts", [text("x"), text("Y.z"), "\x93)R"], opaque("x.Y.z")],
    [
      "a class whose name would write to the terminal",
      [text("x"), text("\x1b[2J\u202e"), "\x93"],
      opaque("x.\\u{1b}[2J\\u{202e}"),
    ],
    ["an extension", ["\x82\x05"], new Opaque("the copyreg extension 5", "words")],
    ["a buffer out of band", ["\x97\x98"], new Opaque("an out-of-band buffer", "words")],
    ["a text of two megabytes", [text("x".repeat(2 ** 21))], opaque("str")],
    ["ten megabytes", ["\x8e", length64(1e7), Buffer.alloc(1e7)], opaque("bytes")],
    ["a byte array", ["\x96", length64(2), "ab"], opaque("bytearray")],
    [
      "an integer of 5,000 bytes",
      ["\x8b", Buffer.from(Uint32Array.of(5000).buffer), Buffer.alloc(5000, 1)],
      opaque("int"),
    ],
    ["a text that is not UTF-8", ["X\x01\x00\x00\x00\xff"], new Opaque("a text that is not UTF-8", "words")],
    ["a string of Python 2 that is no text", ["U\x01\xff"], expect.objectContaining({ bytes: new Uint8Array([255]) })],
    ["numbers of Python 2", ["(I01\nI-5\nL7L\nI4294967296\nt"], [true, -5, 7, 2 ** 32]],
    ["values that were made and dropped", ["(N0(NN1K\x022t"], [2, 2]],
    [
      "an old and a new scalar of NumPy",
      ["(", scalar("core", "i8", "\x07\0\0\0\0\0\0\0"), scalar("_core", "f4", "\0\0\xc0\x3f"), "t"],
      [7, 1.5],
    ],
    ["a scalar of another size", [scalar("core", "i8", "\x07")], new Opaque("a scalar of numpy (i8)", "words")],
    [
      "an ordered dictionary of Python 2",
      ["ccollections\nOrderedDict\n", tuple("](](K\x01K\x02ee"), "R"],
      new Map([[1, 2]]),
    ],
    ["a set of protocol 2", ["c__builtin__\nset\n(](K\x01K\x02etR"], new Set([1, 2])],
    ["a frozen set of protocol 4", ["(K\x01\x91"], new Set([1])],
    [
      "a tensor of storage that is not known",
      [pickledTensor({ storage: "FutureStorage", key: "9" })],
      opaque("torch.Tensor of torch.FutureStorage"),
    ],
    [
      "a plain tensor that another function is said to put together",
      ["ctorch._tensor\n_rebuild_from_type_v2\n", tuple("cbuiltins\nset\n", "ctorch\nTensor\n", tuple("]"), "N"), "R"],
      opaque("torch.Tensor"),
    ],
    [
      "20,000 names of classes out of one text of a megabyte",
      [text("n".repeat(2 ** 20)), "q\x000](", "h\x00h\x00\x93".repeat(20_000), "e"],
      Array(20_000).fill(expect.objectContaining({ name: `${"n".repeat(200)}…` })),
    ],
    [
      "a class of modules with its source",
      [tuple(text("module"), "cx\nY\n", text("x.py"), text("code")), "Q"],
      opaque("x.Y"),
    ],
  ])("%s is read or named, and never a reason to refuse", (_, value, expected) => {
    expect(beside(...value)).toEqual(expected);
  });
});

describe("hostile archives are refused", () => {
  const good = () => fs.readFileSync(archive(dictionary({ w: pickledTensor() })));
  const changed = (change: (bytes: Buffer) => Buffer | undefined): string => {
    const bytes = good();
    fs.writeFileSync(path("changed.pt"), change(bytes) ?? bytes);
    return path("changed.pt");
  };
  const entryOf = (bytes: Buffer, name: string): number => bytes.lastIndexOf(name) - 46;

  test.each<[string, (bytes: Buffer) => Buffer | undefined, string]>([
    ["cut short", (bytes) => bytes.subarray(0, -1), "NoDirectory"],
    ["nothing but a beginning", (bytes) => bytes.subarray(0, 40), "NoDirectory"],
    ["bytes behind the end", (bytes) => Buffer.concat([bytes, Buffer.from("x")]), "NoDirectory"],
    ["bytes before the beginning", (bytes) => Buffer.concat([Buffer.from("x"), bytes]), "NotACheckpoint"],
    ["a compressed member", (bytes) => void bytes.writeUInt16LE(8, entryOf(bytes, "a/data/0") + 10), "Compressed"],
    ["an encrypted member", (bytes) => void bytes.writeUInt16LE(1, entryOf(bytes, "a/data/0") + 8), "Encrypted"],
    [
      "a member beyond the directory",
      (bytes) => void bytes.writeUInt32LE(2 ** 31, entryOf(bytes, "a/data/0") + 42),
      "MemberOutOfBounds",
    ],
    [
      "a member where there is none",
      (bytes) => void bytes.writeUInt32LE(1, entryOf(bytes, "a/data/0") + 42),
      "BadMember",
    ],
    [
      "a member that runs into the directory",
      (bytes) => {
        const entry = entryOf(bytes, "a/data/0");
        for (const at of [20, 24]) bytes.writeUInt32LE(17, entry + at);
      },
      "MemberOutOfBounds",
    ],
    ["a directory elsewhere", (bytes) => void bytes.writeUInt32LE(0, bytes.length - 6), "BadDirectory"],
    ["a directory of more entries", (bytes) => void bytes.writeUInt16LE(3, bytes.length - 12), "BadDirectory"],
    [
      "a damaged entry",
      (bytes) => void bytes.fill(0, entryOf(bytes, "a/data/0"), entryOf(bytes, "a/data/0") + 4),
      "BadDirectory",
    ],
    [
      "a wide field that is missing",
      (bytes) => void bytes.writeUInt32LE(0xffffffff, entryOf(bytes, "a/data/0") + 42),
      "BadDirectory",
    ],
  ])("%s", (_, change, rule) => {
    expect(failure(changed(change))).toMatchObject({ rule });
  });

  test("two members of one name, other byte orders, archives of something else", () => {
    writeArchive(path(), [
      ["a/data.pkl", dictionary({})],
      ["a/data.pkl", dictionary({})],
    ]);
    expect(failure(path())).toMatchObject({ rule: "DuplicateMember" });
    writeArchive(path(), [
      ["a/data.pkl", dictionary({})],
      ["a/byteorder", Buffer.from("big")],
    ]);
    expect(failure(path())).toMatchObject({ rule: "ByteOrder" });
    writeArchive(path(), [["word/document.xml", Buffer.from("<a/>")]]);
    expect(failure(path())).toMatchObject({ rule: "NotACheckpoint" });
    fs.writeFileSync(path(), "no checkpoint at all");
    expect(failure(path())).toMatchObject({ rule: "NotACheckpoint" });
  });

  test("a file cut short after it was opened is an error of the read", () => {
    const file = archive(dictionary({ w: pickledTensor() }));
    using checkpoint = TorchCheckpoint.open(file);
    fs.truncateSync(file, 60);
    scope(() => expect(() => checkpoint.stateDict().copyTo("w", empty([4]))).toThrow(/cut short while it was read/));
  });

  test("without a dictionary of tensors there is no state dict", () => {
    const dict = (items: Record<string, Uint8Array | string>, key?: string) => () =>
      TorchCheckpoint.open(archive(dictionary(items))).stateDict(key);
    expect(dict({ w: int(3) })).toThrow(/the file holds no tensor: w is a number.*\(NotAStateDict\)/);
    expect(dict({ w: pickledTensor() }, "ema")).toThrow(/no dictionary under "ema"/);
    expect(dict({ w: "}q\x00Nh\x00s" }, "w")).toThrow(/"w" is a value that holds itself, no dictionary of tensors/);
    const whole = rootFault("cos\nsystem\n", tuple(text("ls")), "R");
    expect(() => TorchCheckpoint.open(archive(whole)).stateDict()).toThrow(
      /the file holds an object of os\.system, no dictionary; save a module's state_dict\(\) instead/,
    );
  });
});

describe("random damage", () => {
  /** Opens a file and reads everything that is in it. */
  function readAll(file: string): void {
    using checkpoint = TorchCheckpoint.open(file);
    const seen = new Set<unknown>();
    const walk = (value: unknown): void => {
      if (typeof value !== "object" || value === null || seen.has(value)) return;
      seen.add(value);
      if (value instanceof TorchTensor) {
        if (value.dtype !== null) scope(() => expect(checkpoint.read(value).shape).toEqual(value.shape));
      } else if (value instanceof Map) for (const [key, item] of value) [key, item].forEach(walk);
      else if (Symbol.iterator in value) for (const item of value as Iterable<unknown>) walk(item);
    };
    walk(checkpoint.root);
  }

  test.each(["values.pt", "plain.pt", "odd-2.pt", "odd-5.pt", "odd-plain.pt"])(
    "%s: changed bytes and lengths are read or refused, never more",
    (name) => {
      const whole = fs.readFileSync(fixture(name));
      const edit = fc.record({ at: fc.nat(whole.length - 1), value: fc.nat(255) });
      fc.assert(
        fc.property(
          fc.array(edit, { minLength: 1, maxLength: 8 }),
          fc.option(fc.nat(whole.length)),
          (edits, length) => {
            const bytes = Buffer.from(whole);
            for (const { at, value } of edits) bytes[at] = value;
            fs.writeFileSync(path(), length === null ? bytes : bytes.subarray(0, length));
            try {
              readAll(path());
            } catch (error) {
              expect(error).toBeInstanceOf(TorchError);
            }
          },
        ),
        { numRuns: 300 },
      );
    },
  );

  test("pickles of random opcodes are read or refused", () => {
    const opcodes = [
      ..."().012N\x88\x89K]}\x85\x86\x87tRQseaubq\x00h\x00cio\n\x81\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98ldI1",
      pickledTensor(),
    ];
    fc.assert(
      fc.property(fc.array(fc.constantFrom<string | Uint8Array>(...opcodes), { maxLength: 200 }), (parts) => {
        try {
          readAll(archive(rootFault(...parts)));
        } catch (error) {
          expect(error).toBeInstanceOf(TorchError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
