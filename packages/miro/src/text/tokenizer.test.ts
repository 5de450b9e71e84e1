import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import { specialToken } from "./added-tokens.js";
import { nmtNfkcCharsMap } from "./nmt-nfkc.js";
import { Tokenizer } from "./tokenizer.js";

const fixture = (name: string) =>
  JSON.parse(gunzipSync(readFileSync(new URL(`fixtures/${name}.json.gz`, import.meta.url))).toString());

/** The recorded tokenizer.json, its character map put back. */
function recordedFile() {
  const file = fixture("tokenizer");
  const charsMap = Buffer.from(nmtNfkcCharsMap()).toString("base64");
  const digest = createHash("sha256").update(charsMap).digest("hex");
  expect(file.normalizer.precompiled_charsmap).toBe(`sha256:${digest}`);
  file.normalizer.precompiled_charsmap = charsMap;
  return file;
}

/** The recorded vocabulary as `record_xlmr.py` puts it in XLM-RoBERTa's order. */
function xlmrFile(t5: any) {
  const first = ["<s>", "<pad>", "</s>", "<unk>"];
  const pieces = t5.model.vocab.filter(([piece]: [string]) => !/^<(?:pad|\/s|unk|extra_id_\d+)>$/.test(piece));
  const vocab = [...first.map((token) => [token, 0]), ...pieces, ["<mask>", 0]];
  const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
  return {
    version: "1.0",
    added_tokens: [
      ...first.map((token, id) => specialToken(id, token)),
      { ...specialToken(vocab.length - 1, "<mask>"), lstrip: true },
    ],
    normalizer: {
      type: "Sequence",
      normalizers: [t5.normalizer, { type: "Replace", pattern: { Regex: " {2,}" }, content: " " }],
    },
    pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "WhitespaceSplit" }, metaspace] },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }, { SpecialToken: { id: "</s>" } }],
      special_tokens: { "<s>": { ids: [0] }, "</s>": { ids: [2] } },
    },
    decoder: metaspace,
    model: { type: "Unigram", unk_id: 3, vocab, byte_fallback: false },
  };
}

describe("Tokenizer", () => {
  let file: any;
  let tokenizer: Tokenizer;
  let recorded: { strings: string[]; ids: number[][]; newer: number[][]; decoded: string[] };
  beforeAll(() => {
    file = recordedFile();
    tokenizer = Tokenizer.fromJson(file);
    recorded = fixture("recorded");
  });

  it("gives the reference's ids on 12,000 odd strings", () => {
    expect(recorded.strings.length).toBeGreaterThanOrEqual(12_000);
    const wrong = recorded.strings.filter((text, i) => String(tokenizer.encode(text)) !== String(recorded.ids[i]));
    expect(wrong).toEqual([]);
  });

  it("gives the reference's ids with the normaliser and pre-tokeniser of newer conversions", () => {
    const newer = structuredClone(file);
    newer.normalizer = {
      type: "Sequence",
      normalizers: [
        file.normalizer,
        { type: "Strip", strip_left: false, strip_right: true },
        { type: "Replace", pattern: { Regex: " {2,}" }, content: "▁" },
      ],
    };
    newer.pre_tokenizer = { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true };
    const other = Tokenizer.fromJson(newer);
    const wrong = recorded.newer.filter((ids, i) => String(other.encode(recorded.strings[i]!)) !== String(ids));
    expect(wrong).toEqual([]);
    expect(String(recorded.newer)).not.toBe(String(recorded.ids.slice(0, recorded.newer.length)));
  });

  it("gives the reference's ids with a file of XLM-RoBERTa's kind, on 10,000 odd strings cut to 1,024 tokens", () => {
    const { strings, ids, newer }: Record<"strings" | "ids" | "newer", any[]> = fixture("xlmr");
    expect(strings.length).toBeGreaterThanOrEqual(10_000);
    const compare = (json: unknown, expected: number[][]) => {
      const other = Tokenizer.fromJson(json);
      const cut = (text: string) => String(other.encode(text, { maxLength: 1024 }));
      expect(expected.flatMap((row, i) => (cut(strings[i]) === String(row) ? [] : [strings[i]]))).toEqual([]);
    };
    const xlmr = xlmrFile(file);
    compare(xlmr, ids);
    const { normalizers } = xlmr.normalizer;
    compare({ ...xlmr, normalizer: normalizers[0], pre_tokenizer: xlmr.decoder }, newer);
    expect(String(newer)).not.toBe(String(ids.slice(0, newer.length)));
    expect(() => Tokenizer.fromJson(xlmr).encode("a", { maxLength: 1 })).toThrow(/maxLength: expected at least 2/);
  });

  it("reads the pre-tokeniser of files from before tokenizers 0.15", () => {
    const older = structuredClone(file);
    older.pre_tokenizer.pretokenizers[1] = { type: "Metaspace", replacement: "▁", add_prefix_space: true };
    older.decoder = { type: "Metaspace", replacement: "▁", add_prefix_space: true };
    const other = Tokenizer.fromJson(older);
    for (const text of recorded.strings.slice(0, 500)) expect(other.encode(text)).toEqual(tokenizer.encode(text));
  });

  it("decodes as the reference does", () => {
    const wrong = recorded.decoded.filter((text, i) => tokenizer.decode(recorded.ids[i]!) !== text);
    expect(wrong).toEqual([]);
  });

  it("takes a lone surrogate for U+FFFD", () => {
    expect(tokenizer.encode("a\ud800b \udc00")).toEqual(tokenizer.encode("a\ufffdb \ufffd"));
    expect(tokenizer.encode("\u{1f600}")).not.toEqual(tokenizer.encode("\ufffd"));
  });

  it("gives ids in range, one </s> at the end, for any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 40 }), (text) => {
        const ids = tokenizer.encode(text);
        expect(ids.at(-1)).toBe(tokenizer.idOf("</s>"));
        for (const id of ids) expect(tokenizer.tokenOf(id)).toBeTypeOf("string");
        expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(ids.slice(0, -1));
      }),
      { numRuns: 500 },
    );
  });

  it("stays linear on long words", () => {
    expect(tokenizer.encode("a".repeat(200_000)).length).toBeGreaterThan(1000);
    expect(tokenizer.encode(` ${"\u0301".repeat(100_000)}`).length).toBeGreaterThan(1);
    expect(tokenizer.encode(`x${" ".repeat(200_000)}y`)).toEqual(tokenizer.encode("x y"));
  });

  describe("added tokens that take white space along", () => {
    const token = (id: number, content: string, flags: object) => ({ ...specialToken(id, content), ...flags });
    /** Ids that tokenizers 0.23.3 gives. */
    it.each<[string, object[], number[]]>([
      ["b\n\n<a>", [token(4, "\n", { lstrip: true, rstrip: true })], [1, 3, 4, 1, 0, 2, 0]],
      ["x\n  x", [token(4, " ", { lstrip: true, rstrip: true })], [1, 0, 4, 1, 0]],
      ["  a", [token(4, " ", { lstrip: true, rstrip: true })], [4, 1, 2]],
      ["  a", [token(4, " ", { rstrip: true })], [4, 4, 1, 2]],
      ["<s> \n a", [token(4, "<s>", { rstrip: true }), token(5, "\n", {})], [4, 5, 1, 2]],
      ["<s> \n a", [token(4, "<s>", { rstrip: true }), token(5, "\n", { lstrip: true, rstrip: true })], [4, 1, 2]],
    ])("%j: what was taken is not taken again", (text, added_tokens, ids) => {
      const small = Tokenizer.fromJson({
        version: "1.0",
        added_tokens,
        normalizer: null,
        post_processor: null,
        pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
        decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
        model: {
          type: "Unigram",
          unk_id: 0,
          vocab: [
            ["<unk>", 0],
            ["▁", -1],
            ["a", -1.5],
            ["b", -1.6],
          ],
        },
      });
      expect(small.encode(text)).toEqual(ids);
    });
  });

  describe("encodeBatch", () => {
    const texts = ["a photo of a cat", "", "two grinning faces with umbrellas in the rain"];

    it("pads behind the text and masks the padding", () => {
      const { ids, mask, overflow } = tokenizer.encodeBatch(texts, { maxLength: 32 });
      expect(ids.shape).toEqual([3, 32]);
      expect([ids.dtype, mask.dtype]).toEqual(["int64", "bool"]);
      for (const [b, text] of texts.entries()) {
        const row = tokenizer.encode(text);
        expect((ids.toList() as number[][])[b]!.map(Number)).toEqual([...row, ...Array(32 - row.length).fill(0)]);
        expect((mask.toList() as boolean[][])[b]!.map(Number)).toEqual(
          Array.from({ length: 32 }, (_, t) => Number(t < row.length)),
        );
      }
      expect(overflow).toEqual(["", "", ""]);
    });

    it("trims to the longest text or pads to a length on request", () => {
      const longest = Math.max(...texts.map((text) => tokenizer.encode(text).length));
      expect(tokenizer.encodeBatch(texts, { maxLength: 77, padTo: "longest" }).ids.shape).toEqual([3, longest]);
      expect(tokenizer.encodeBatch(texts, { maxLength: 77, padTo: 40 }).mask.shape).toEqual([3, 40]);
      expect(() => tokenizer.encodeBatch(texts, { maxLength: 77, padTo: 3 })).toThrow(InvalidInputError);
    });

    it("cuts what is too long before </s> and reports it from the first word that is not whole", () => {
      const text = texts[2]!;
      const all = tokenizer.encode(text, { addSpecialTokens: false });
      const pieces = tokenizer.pieces(text).map((piece) => piece.text);
      for (let room = 0; room <= all.length; room++) {
        const { ids, overflow } = tokenizer.encodeBatch([text], { maxLength: room + 1 });
        expect((ids.toList() as number[][])[0]!.map(Number)).toEqual(
          room < all.length ? [...all.slice(0, room), 1] : [...all, 1],
        );
        const cut = pieces.slice(room).join("").replaceAll("▁", " ").trimStart();
        expect(overflow[0]!.endsWith(cut)).toBe(true);
        expect(text.endsWith(overflow[0]!)).toBe(true);
        expect(overflow[0] === "" || text === overflow[0] || text.at(-overflow[0]!.length - 1) === " ").toBe(true);
      }
    });

    it("refuses a length without room for </s>", () => {
      expect(() => tokenizer.encodeBatch(texts, { maxLength: 0 })).toThrow(
        "maxLength: expected an integer of at least 1, received 0",
      );
      expect(() => tokenizer.encodeBatch(texts, { maxLength: Number.NaN })).toThrow(InvalidInputError);
    });
  });

  describe("reading", () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "tokenizer-"));
    });
    afterAll(() => rm(folder, { recursive: true }));

    it("reads a file or the folder that holds it", async () => {
      await writeFile(join(folder, "tokenizer.json"), JSON.stringify(file));
      const text = "a photo of a cat";
      expect((await Tokenizer.fromFile(folder)).encode(text)).toEqual(tokenizer.encode(text));
      expect((await Tokenizer.fromFile(join(folder, "tokenizer.json"))).encode(text)).toEqual(tokenizer.encode(text));
    });

    it("says what is missing or where the JSON breaks", async () => {
      await expect(Tokenizer.fromFile(join(folder, "none"))).rejects.toThrow(
        /cannot read the tokenizer: .*none: no such file/,
      );
      const path = join(folder, "cut.json");
      await writeFile(path, JSON.stringify(file).slice(0, 1000));
      await expect(Tokenizer.fromFile(path)).rejects.toThrow(/cut\.json: not valid JSON: .*position/);
    });

    it.each(['{"version":"1.0","model":{"a":1},"model":{}}', '{"x":[{"a\\"":1,"b":{"a":2},"a\\u0022":"}"}]}'])(
      "refuses a key that stands twice: %s",
      async (text) => {
        const path = join(folder, "twice.json");
        await writeFile(path, text);
        await expect(Tokenizer.fromFile(path)).rejects.toThrow(/twice\.json: the key "(model|a\\")" stands twice/);
      },
    );

    const replace = (from: string, content: string) => ({ type: "Replace", pattern: { String: from }, content });
    it.each([
      ["doubles 60 times", { type: "Sequence", normalizers: Array(60).fill(replace("a", "aa")) }],
      ["takes turns in nested sequences", nested(replace("a", "bbbb"), replace("b", "aaaa"))],
      ["writes a long text once", replace("a", "x".repeat(100_000))],
      ["writes a long text for a class", { type: "Replace", pattern: { Regex: "\\s" }, content: "x".repeat(5_000) }],
    ])("ends a normaliser that %s in one line, before the memory does", (_, normalizer) => {
      const hostile = Tokenizer.fromJson({ ...file, normalizer }, "folder/tokenizer.json");
      expect(() => hostile.encode("a ".repeat(40))).toThrow(
        /^folder\/tokenizer\.json: normalizer: expected rules that make at most 3584 characters of 80, received/,
      );
    });

    function nested(...parts: object[]): object {
      let inner: object = { type: "Sequence", normalizers: parts };
      for (let depth = 0; depth < 5; depth++) inner = { type: "Sequence", normalizers: [inner, inner] };
      return inner;
    }

    it("refuses more normalisers than any tokeniser has, and takes those that rewrite much", () => {
      const many = {
        type: "Sequence",
        normalizers: Array(5).fill({ type: "Sequence", normalizers: Array(20).fill({ type: "NFC" }) }),
      };
      expect(() => Tokenizer.fromJson({ ...file, normalizer: many })).toThrow(/normalizers\[3\].*at most 64 rules/);
      const widest = "\ufdfa".repeat(200);
      const nfkc = Tokenizer.fromJson({ ...file, normalizer: { type: "NFKC" } });
      expect(
        nfkc
          .pieces(widest)
          .map(({ text }) => text)
          .join("").length,
      ).toBeGreaterThan(17 * widest.length);
    });

    /** What is put where (dots separate keys), and the message it must give. */
    const hostile: [name: string, path: string, value: unknown, message: RegExp][] = [
      ["no model", "model", undefined, /model/],
      ["another model", "model.type", "BPE", /model\.type: expected "Unigram".*received "BPE"/],
      ["an empty vocabulary", "model.vocab", [], /model\.vocab/],
      ["a vocabulary that is an object", "model.vocab", { a: 1 }, /model\.vocab/],
      ["a piece that is a number", "model.vocab.7", [7, -1], /model\.vocab\[7\]\[0\]/],
      ["a piece of lone surrogates", "model.vocab.7.0", "\ud800", /model\.vocab\[7\]\[0\]/],
      ["a score that is text", "model.vocab.7", ["x", "-1"], /model\.vocab\[7\]\[1\]: expected a finite number/],
      ["an infinite score", "model.vocab.7.1", Number.NEGATIVE_INFINITY, /model\.vocab\[7\]\[1\]/],
      ["a bare piece", "model.vocab.7", "x", /model\.vocab\[7\]: expected \[piece, score\]/],
      ["unk_id out of range", "model.unk_id", 1e6, /model\.unk_id: expected an index into/],
      ["no unk_id", "model.unk_id", null, /model\.unk_id/],
      ["an added token at the wrong id", "added_tokens.0.id", 1, /added_tokens\[0\]\.id: expected 0/],
      ["an added token twice", "added_tokens.1.content", "<pad>", /added_tokens\[1\]\.content/],
      ["an added token without flags", "added_tokens.0", { id: 0, content: "<pad>" }, /added_tokens\[0\]\.single_word/],
      [
        "an unknown normaliser",
        "normalizer.type",
        "Nope",
        /normalizer\.type: expected a supported kind, received "Nope"/,
      ],
      ["a normaliser that is text", "normalizer", "NFKC", /normalizer/],
      [
        "a character map that is not base64",
        "normalizer.precompiled_charsmap",
        "@@@@",
        /precompiled_charsmap: expected base64/,
      ],
      ["an empty character map", "normalizer.precompiled_charsmap", "", /precompiled_charsmap/],
      [
        "a character map that claims more than it has",
        "normalizer.precompiled_charsmap",
        Buffer.from([255, 255, 255, 127, 1, 2, 3, 4]).toString("base64"),
        /precompiled_charsmap: expected a SentencePiece character map.*claims 2147483647 bytes of the 4/,
      ],
      [
        "a character map that makes a megabyte of a character",
        "normalizer.precompiled_charsmap",
        Buffer.concat([Buffer.from(Uint32Array.of(4, 0).buffer), Buffer.alloc(2 ** 20, "a")]).toString("base64"),
        /precompiled_charsmap: .*a replacement string of 1048576 bytes/,
      ],
      [
        "a regular expression that may run for ever",
        "normalizer",
        { type: "Replace", pattern: { Regex: "(a+)+$" }, content: "" },
        /pattern\.Regex/,
      ],
      ["an unknown pre-tokeniser", "pre_tokenizer", { type: "ByteLevel" }, /pre_tokenizer\.type/],
      [
        "a mark of two characters",
        "pre_tokenizer.pretokenizers.1.replacement",
        "__",
        /pretokenizers\[1\]\.replacement/,
      ],
      ["another post-processor", "post_processor.type", "BertProcessing", /post_processor\.type/],
      ["a template with an unlisted token", "post_processor.special_tokens", {}, /post_processor\.single\[1\]/],
      ["a template without the text", "post_processor.single", [], /post_processor\.single: expected the text once/],
      ["no decoder", "decoder", null, /decoder/],
      [
        "normalisers nested without end",
        "normalizer",
        Array.from({ length: 5000 }).reduce((inner) => ({ type: "Sequence", normalizers: [inner] }), null),
        /nested at most 8 deep/,
      ],
    ];
    it.each(hostile)("refuses %s in one line", (_, path, value, message) => {
      const broken = structuredClone(file);
      const keys = path.split(".");
      const last = keys.pop()!;
      keys.reduce((object, key) => object[key], broken)[last] = value;
      let error: unknown;
      try {
        Tokenizer.fromJson(broken, "folder/tokenizer.json");
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(InvalidInputError);
      expect((error as Error).message).toMatch(message);
      expect((error as Error).message).toMatch(/^folder\/tokenizer\.json: [^\n]*$/);
    });

    it.each([null, [], 3, "text"])("refuses %j for a file", (json) => {
      expect(() => Tokenizer.fromJson(json)).toThrow(/^tokenizer\.json: content: expected a JSON object/);
    });

    it("refuses added tokens of ten megabytes, which one expression would have to find", () => {
      const broken = structuredClone(file);
      const first = Tokenizer.fromJson(file).vocabSize;
      for (let i = 0; i < 2500; i++) broken.added_tokens.push(specialToken(first + i, `${i}${"x".repeat(4090)}`));
      expect(() => Tokenizer.fromJson(broken)).toThrow(
        /added_tokens: expected at most 1048576 characters in all of them together, received 102\d{5}/,
      );
    });

    it("survives a character map of random bytes", () => {
      fc.assert(
        fc.property(fc.uint8Array({ minLength: 64, maxLength: 256 }), fc.string({ unit: "binary" }), (bytes, text) => {
          new DataView(bytes.buffer).setUint32(0, 40, true);
          bytes.fill(0, 44); // replacement strings: any offset finds UTF-8
          const broken = {
            ...file,
            normalizer: { type: "Precompiled", precompiled_charsmap: Buffer.from(bytes).toString("base64") },
          };
          Tokenizer.fromJson(broken).encode(text);
        }),
        { numRuns: 30 },
      );
    });
  });
});
