import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { scope, tensor, zeros } from "@miro-t2i/torch";
import { encodeNpy } from "@miro-t2i/torch/io";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type PythonJson, parsePythonJson } from "../../files/python-json.js";
import { countReasons } from "./manifest.js";
import { formatScores, mergeScores, parseScores, type ScoreTable } from "./scores-csv.js";
import { captionsOfJson, captionsOfRow, SyntheticTable } from "./synthetic-captions.js";

const folder = mkdtempSync(join(tmpdir(), "miro-formats-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("score files", () => {
  const table: ScoreTable = new Map([
    [
      "b",
      new Map<string, number | string>([
        ["clip_score", 0.1],
        ["synthetic_caption", 'say "hi", twice\nor not'],
      ]),
    ],
    [
      "a",
      new Map<string, number | string>([
        ["clip_score", 1],
        ["aesthetic_score", 1e-7],
        ["synthetic_caption", "42"],
      ]),
    ],
    ["ä", new Map<string, number | string>([["clip_score", Number.NaN]])],
  ]);

  it("are written as Python's csv.DictWriter writes them", () => {
    expect(formatScores(table)).toBe(
      "key,aesthetic_score,clip_score,synthetic_caption\r\n" +
        "a,1e-07,1.0,42\r\n" +
        'b,,0.1,"say ""hi"", twice\nor not"\r\n' +
        "ä,,,\r\n",
    );
  });

  it("come back as they were: captions that look like numbers stay captions", () => {
    const back = parseScores(formatScores(table), "a.csv");
    expect(back.get("a")!.get("synthetic_caption")).toBe("42");
    expect([...back.keys()].sort()).toEqual(["a", "b", "ä"]);
    expect(back.get("b")).toEqual(new Map(table.get("b")!));
    expect(back.get("ä")).toEqual(new Map());
  });

  it("come back as they were for any captions and finite numbers", () => {
    const row = fc.record({
      clip_score: fc.double({ noNaN: true, noDefaultInfinity: true }),
      caption: fc.string({ minLength: 1 }),
    });
    fc.assert(
      fc.property(fc.dictionary(fc.string({ minLength: 1 }), row), (rows) => {
        const given: ScoreTable = new Map(
          Object.entries(rows).map(([key, values]) => [key, new Map(Object.entries(values))]),
        );
        expect(parseScores(formatScores(given), "x.csv")).toEqual(given);
      }),
    );
  });

  it("read nan and inf, as upstream writes them, and tell where a number is none", () => {
    const read = parseScores("key,a,b\r\nx,nan,-inf\r\ny,inf,1e-5\r\n", "s.csv");
    expect([...read.get("x")!.values()]).toEqual([Number.NaN, Number.NEGATIVE_INFINITY]);
    expect([...read.get("y")!.values()]).toEqual([Number.POSITIVE_INFINITY, 1e-5]);
    for (const cell of ["0x10", "constructor"])
      expect(() => parseScores(`key,a\r\nx,1\r\ny,${cell}\r\n`, "s.csv")).toThrow(
        `s.csv:3, column a: expected a number, received "${cell}"`,
      );
    expect(() => parseScores("key,a\r\nx,1,2\r\n", "s.csv")).toThrow(
      /s\.csv:2: expected 2 cells as in the header, found 3/,
    );
    expect(() => parseScores("name,a\r\n", "s.csv")).toThrow(/"key" first/);
    expect(() => parseScores("key,a\r\nx,1\r\nx,2\r\n", "s.csv")).toThrow(/"x" twice/);
  });

  it("merge by key and column, new values over old ones", () => {
    const old = parseScores("key,a,b\r\nx,1,2\r\ny,3,\r\n", "s.csv");
    const merged = mergeScores(old, parseScores("key,b,c\r\nx,5,6\r\nz,7,8\r\n", "s.csv"));
    expect(formatScores(merged)).toBe("key,a,b,c\r\nx,1.0,5.0,6.0\r\ny,3.0,,\r\nz,,7.0,8.0\r\n");
    expect(old.get("x")!.get("b")).toBe(2);
  });
});

describe("synthetic captions", () => {
  const write = (text: string) => {
    const path = join(folder, "captions.tsv");
    writeFileSync(path, text);
    return SyntheticTable.open(path);
  };

  it("are read without types, quotes or words that mean missing", async () => {
    const table = write(
      '\ufeff000.jpg\tNA\tnan\r\n1\t"quoted\t"long"\r\nb.tar.jpg\tshort\tmiddle\tlong\n2.jpg\tonly\n',
    );
    const rows = await table.forKeys(["000", "x/1", "2", "b", "nothing"]);
    expect(rows.get("000")).toEqual({ short: "NA", long: "nan" });
    expect(rows.get("x/1")).toEqual({ short: '"quoted', long: '"long"' });
    expect(rows.get("2")).toEqual({ short: "only", long: "only" });
    expect(rows.has("b")).toBe(false);
    expect(rows.has("nothing")).toBe(false);
  });

  it("end their lines where Python's text files do, whatever Node's version takes for line ends", async () => {
    const table = write("a.jpg\ta fox\u2028red\tA fox.\u2029It runs.\rb.jpg\ts\u0085\tl\fl\r\nc.jpg\ts\tl");
    const rows = await table.forKeys(["a", "b", "c"]);
    expect(rows.get("a")).toEqual({ short: "a fox\u2028red", long: "A fox.\u2029It runs." });
    expect(rows.get("b")).toEqual({ short: "s\u0085", long: "l\fl" });
    expect(rows.get("c")).toEqual({ short: "s", long: "l" });
  });

  it("are found by the whole key first, and with the dots that keys of pictures in folders lack", async () => {
    const table = write(
      "d.png\tbase\tbase\nsub/d.png\twhole\twhole\nat 10.11.png\ts\tdotted\nx/a.b.png\ts\tdeep\n" +
        "p.q.png\ts\tdotted\np_q.png\ts\texact\n",
    );
    const rows = await table.forKeys(["sub/d", "other/d", "at 10_11", "y/at 10_11", "x/a_b", "z/a_b", "p_q"]);
    const long = Object.fromEntries([...rows].map(([key, row]) => [key, row !== "ambiguous" && row.long]));
    expect(long).toEqual({
      "sub/d": "whole",
      "other/d": "base",
      "at 10_11": "dotted",
      "y/at 10_11": "dotted",
      "x/a_b": "deep",
      p_q: "exact",
    });
  });

  it("are ambiguous where rows of one name differ, and refused without a tab", async () => {
    const rows = await write("a.jpg\ts\tl\nb.jpg\ts\tl\na.png\ts\tother\nb.jpg\ts\tl\n").forKeys(["a", "b"]);
    expect(rows.get("a")).toBe("ambiguous");
    expect(rows.get("b")).toEqual({ short: "s", long: "l" });
    await expect(write("a.jpg\ts\tl\nno tab\n").forKeys(["a"])).rejects.toThrow(
      /captions\.tsv:2: expected a file name/,
    );
  });

  it("lose <PERSON>, and are none where there is no long text", () => {
    expect(captionsOfRow({ short: "<PERSON> s", long: "a <PERSON> and <PERSON>" })).toEqual({
      short: " s",
      long: "a  and ",
    });
    expect(captionsOfRow({ short: "s", long: "<PERSON>" })).toBeNull();
    const json = (value: object) => parsePythonJson(JSON.stringify(value)) as Map<string, PythonJson>;
    expect(captionsOfJson(json({ caption: "c" }))).toBeNull();
    expect(captionsOfJson(json({ synthetic_caption: "l", caption: "c" }))).toEqual({ long: "l", short: "c" });
    expect(captionsOfJson(json({ synthetic_caption: "l", short_synthetic_caption: "s", caption: "c" }))).toEqual({
      long: "l",
      short: "s",
    });
    expect(captionsOfJson(json({ synthetic_caption: 5, short_synthetic_caption: "s" }))).toBeNull();
    expect(captionsOfJson(json({ synthetic_caption: "l", short_synthetic_caption: 5 }))).toEqual({
      long: "l",
      short: "l",
    });
  });
});

describe("float16 arrays", () => {
  it("have NumPy's header: 128 bytes, data at a multiple of 64", () => {
    const file = Buffer.from(scope(() => encodeNpy(zeros([4, 32, 32], { dtype: "float16" }))));
    expect(file).toHaveLength(8320);
    expect(file.subarray(0, 10)).toEqual(Buffer.from("\x93NUMPY\x01\x00\x76\x00", "latin1"));
    const header = file.subarray(10, 128).toString("latin1");
    expect(header.trimEnd()).toBe("{'descr': '<f2', 'fortran_order': False, 'shape': (4, 32, 32), }");
    expect(header.endsWith(" \n")).toBe(true);
    expect(() => scope(() => void encodeNpy(tensor(new Float32Array(3), { shape: [2] })))).toThrow(
      /shape \[2\] has 2 elements, the data \d+$/,
    );
  });
});

it("samples that lack a column alone do not count as left out", () => {
  const gap = { key: "b", reason: "score-failed", message: "no", column: "clip_score" } as const;
  const whole = { key: "a", reason: "bad-image", message: "cut" } as const;
  expect(countReasons([gap, whole, gap, { ...whole, key: "c" }])).toEqual({ "bad-image": 2 });
});
