import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MiroError } from "../errors.js";
import { WordPieceTokenizer } from "./wordpiece-tokenizer.js";

const recorded: { vocabulary: string[]; texts: string[]; ids: string[] } = JSON.parse(
  brotliDecompressSync(readFileSync(new URL("fixtures/wordpiece-ids.json.br", import.meta.url))).toString(),
);
const SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const ADDED = ["[DEC]", "[ENC]"];

describe("WordPieceTokenizer", () => {
  it("gives Python's ids on 4,000 odd strings", () => {
    const tokenizer = new WordPieceTokenizer(recorded.vocabulary, ADDED);
    expect(recorded.texts.length).toBeGreaterThanOrEqual(4000);
    expect(recorded.texts.filter((text, i) => tokenizer.encode(text).join(" ") !== recorded.ids[i])).toEqual([]);
  });

  const small = new WordPieceTokenizer([...SPECIAL, "un", "##aff", "##able", "a", "é", "e", "日", "!", "x"], ADDED);
  const [UNK, CLS, SEP] = [1, 2, 3];

  it.each([
    ["", []],
    ["Unaffable", [5, 6, 7]],
    ["unaffables", [UNK]],
    ["a!a é", [8, 12, 8, 10]],
    ["日日", [11, 11]],
    ["a\u200ba\u0000!", [UNK, 12]],
    ["[SEP][enc]", [SEP, UNK, UNK, UNK]],
    ["a[ENC]a", [8, 15, 8]],
    ["\ud800a", [8]],
    ["x".repeat(100), [UNK]],
  ])("segments %j", (text, ids) => {
    expect(small.encode(text)).toEqual([CLS, ...ids, SEP]);
  });

  it("takes words of 100 characters and no longer ones", () => {
    const pieces = [...SPECIAL, "x", "##x"];
    const tokenizer = new WordPieceTokenizer(pieces);
    expect(tokenizer.encode("x".repeat(100)).length).toBe(102);
    expect(tokenizer.encode("x".repeat(101))).toEqual([CLS, UNK, SEP]);
  });

  it("cuts rows with the last token kept, pads them, and says which were cut", () => {
    const { ids, mask, cut } = small.encodeBatch(["a a a a a a", "a", ""], 5);
    expect(ids.shape).toEqual([3, 5]);
    expect(cut).toEqual([true, false, false]);
    expect([...(ids.data() as BigInt64Array)].map(Number)).toEqual([2, 8, 8, 8, 3, 2, 8, 3, 0, 0, 2, 3, 0, 0, 0]);
    expect([...(mask.data() as Uint8Array)]).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0]);
    expect(small.truncates("a a a a", 5)).toBe(true);
    expect(small.truncates("a a a", 5)).toBe(false);
    ids.dispose();
    mask.dispose();
  });

  it("segments a million characters in a moment", () => {
    const before = performance.now();
    expect(small.encode("unaff".repeat(200_000))).toEqual([CLS, UNK, SEP]);
    expect(small.encode("a ".repeat(500_000)).length).toBe(500_002);
    expect(small.encode("un".repeat(49) + " ".repeat(900_000)).length).toBe(3);
    expect(performance.now() - before).toBeLessThan(5000);
  });

  describe("from a folder", () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), "wordpiece-"));
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    const pieces = [...SPECIAL, "a", "##b"];
    const load = (name: string, content: string) => {
      const path = join(folder, name);
      mkdirSync(join(path, ".."), { recursive: true });
      writeFileSync(path, content);
      try {
        return WordPieceTokenizer.fromFolder(folder, ADDED);
      } finally {
        rmSync(path);
      }
    };
    const json = (vocab: unknown, type = "WordPiece") => JSON.stringify({ model: { type, vocab } });

    it("reads vocab.txt and tokenizer.json alike", () => {
      const ids = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
      for (const tokenizer of [
        load("vocab.txt", `${pieces.join("\n")}\n`),
        load("tokenizer/vocab.txt", pieces.join("\r\n")),
        load("tokenizer.json", json(ids)),
        load("tokenizer/tokenizer.json", json({ ...ids, "[DEC]": 7, "[ENC]": 8 })),
      ]) {
        expect(tokenizer?.vocabSize).toBe(9);
        expect(tokenizer?.encode("ab [ENC]")).toEqual([2, 5, 6, 8, 3]);
      }
    });

    it("is null where there is none", () => {
      expect(WordPieceTokenizer.fromFolder(folder)).toBeNull();
    });

    it.each([
      ["vocab.txt", "[PAD]\n[UNK]\n[CLS]\n", /vocab\.txt: lacks \[SEP\]/],
      ["vocab.txt", `${pieces.join("\n")}\na\n`, /vocab\.txt: piece 7: "a" is piece 5 too/],
      ["vocab.txt", `${pieces.join("\n")}\n\nb\n`, /vocab\.txt: piece 7: .*empty line/],
      ["tokenizer.json", json({ "[PAD]": 0 }, "BPE"), /tokenizer\.json: model: expected a WordPiece/],
      ["tokenizer.json", json({ "[PAD]": 0, a: 7 }), /tokenizer\.json: model\.vocab: "a": .* below 2, found 7/],
      ["tokenizer.json", json({ "[PAD]": 0, a: 0 }), /tokenizer\.json: model\.vocab: "a"/],
    ])("refuses a broken %s: %#", (name, content, message) => {
      expect(() => load(name, content)).toThrow(MiroError);
      expect(() => load(name, content)).toThrow(message);
    });
  });
});
