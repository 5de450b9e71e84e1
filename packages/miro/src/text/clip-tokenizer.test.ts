import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliDecompressSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MiroError } from "../errors.js";
import { CLIP_CONTEXT, type ClipCleaning, ClipTokenizer } from "./clip-tokenizer.js";
import { fixText } from "./fix-text.js";

const recorded: { texts: string[]; openai: string[]; hf: string[] } = JSON.parse(
  brotliDecompressSync(readFileSync(new URL("fixtures/clip-ids.json.br", import.meta.url))).toString(),
);

describe("ClipTokenizer", () => {
  let openai: ClipTokenizer;
  let huggingFace: ClipTokenizer;
  beforeAll(() => {
    openai = ClipTokenizer.published("openai");
    huggingFace = ClipTokenizer.published("hugging-face");
  });

  /** Up to the first end token, where CLIP pools; what is cut keeps an end token. */
  function pooled(tokenizer: ClipTokenizer, text: string): string {
    const ids = tokenizer.encode(text);
    const row = ids.length > CLIP_CONTEXT ? [...ids.slice(0, CLIP_CONTEXT - 1), tokenizer.endId] : ids;
    return row.slice(0, row.indexOf(tokenizer.endId) + 1).join(" ");
  }
  const upToEnd = (row: string) => row.slice(0, row.indexOf("49407") + 5);

  it("gives Python's ids on 3,000 odd strings with either cleaning", () => {
    expect(recorded.texts.length).toBeGreaterThanOrEqual(3000);
    for (const [tokenizer, rows] of [
      [openai, recorded.openai],
      [huggingFace, recorded.hf],
    ] as const) {
      const wrong = recorded.texts.filter((text, i) => pooled(tokenizer, text) !== upToEnd(rows[i]!));
      expect(wrong).toEqual([]);
    }
  });

  it.each([
    ["", "49406 49407"],
    ["a photo of a red-colored bench", "49406 320 1125 539 320 736 268 11775 8771 49407"],
    ["A cat with two horns on its head", "49406 320 2368 593 1237 22109 525 902 1375 49407"],
  ])("gives the published ids of %j", (text, ids) => {
    expect(openai.encode(text).join(" ")).toBe(ids);
    expect(huggingFace.encode(text).join(" ")).toBe(ids);
  });

  it("repairs quotes and entities for OpenAI's cleaning only", () => {
    const text = "naïve café &amp; l’été — 20%";
    expect(openai.encode(text).join(" ")).toBe(
      "49406 1097 35689 563 15304 261 331 262 3459 39694 2005 273 271 260 49407",
    );
    expect(huggingFace.encode(text).join(" ")).toBe(
      "49406 1097 35689 563 15304 261 6259 282 331 728 503 3459 39694 2005 273 271 260 49407",
    );
  });

  it("cuts rows to 77 with the end token kept, pads with it, and says which were cut", () => {
    const { ids, cut } = openai.encodeBatch(["word ".repeat(100), "a"]);
    const rows = [...(ids.data() as BigInt64Array)].map(Number);
    expect(ids.shape).toEqual([2, CLIP_CONTEXT]);
    expect(cut).toEqual([true, false]);
    expect(rows.slice(0, 2)).toEqual([49406, 2653]);
    expect(rows.slice(75, 77)).toEqual([2653, 49407]);
    expect(rows.slice(77, 80)).toEqual([49406, 320, 49407]);
    expect(rows[153]).toBe(49407);
    ids.dispose();
  });

  it("splits one word of 100,000 letters in a moment, as it does many words", () => {
    const before = performance.now();
    const ids = openai.encode("xyzzy".repeat(20_000));
    expect(ids.length).toBeGreaterThan(20_000);
    expect(performance.now() - before).toBeLessThan(5000);
  });

  describe("from a folder", () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), "clip-tokenizer-"));
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    const merges = ["a b", "ab c</w>", "x y</w>"];
    const load = (name: string, content: string | Buffer, cleaning: ClipCleaning = "openai") => {
      const path = join(folder, name);
      writeFileSync(path, content);
      try {
        return ClipTokenizer.fromFolder(folder, cleaning);
      } finally {
        rmSync(path);
      }
    };

    it("reads merges.txt, tokenizer.json and the packed table alike", () => {
      const text = `#version: 0.2\n${merges.join("\n")}\n`;
      for (const tokenizer of [
        load("merges.txt", text),
        load("tokenizer.json", JSON.stringify({ model: { merges } })),
        load("tokenizer.json", JSON.stringify({ model: { merges: merges.map((pair) => pair.split(" ")) } })),
        load("bpe_simple_vocab_16e6.txt.gz", gzipSync(text)),
      ]) {
        expect(tokenizer.vocabSize).toBe(512 + 3 + 2);
        expect(tokenizer.encode("abc xy")).toEqual([515, 513, 514, 516]);
      }
    });

    it("takes the published table where there is none", () => {
      expect(ClipTokenizer.fromFolder(folder, "openai").vocabSize).toBe(49_408);
    });

    it.each([
      ["merges.txt", "#version: 0.2\na b\nabc d\n", /merges\.txt: merge 2: .*"abc d"/],
      ["tokenizer.json", '{"model": {"merges": 3}}', /tokenizer\.json: model\.merges/],
      ["bpe_simple_vocab_16e6.txt.gz", "no gzip", /bpe_simple.*cannot be unpacked/],
    ])("refuses a broken %s", (name, content, message) => {
      expect(() => load(name, content)).toThrow(MiroError);
      expect(() => load(name, content)).toThrow(message);
    });
  });
});

describe("fixText", () => {
  it.each([
    ["schoÌˆn cafÃ© â€œquotesâ€\x9d", 'schön café "quotes"'],
    ["\ufeffBOM é", "BOM é"],
    ["&EACUTE;t&eacute;", "Été"],
    ["<b>&eacute;", "<b>&eacute;"],
    ["voilÃ le travail", "voilà le travail"],
    ["l’humanitÃ©", "l'humanité"],
    ["ＬＯＵＤ　ﬁve", "LOUD five"],
    ["\x1b[36;44mblue\x1b[0m", "blue"],
  ])("repairs %j", (text, repaired) => {
    expect(fixText(text)).toBe(repaired);
  });
});
