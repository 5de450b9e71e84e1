import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import { Tokenizer } from "./tokenizer.js";
import { saveTokenizer, trainUnigram } from "./unigram-trainer.js";

const THINGS = [
  "cat",
  "dog",
  "apple",
  "umbrella",
  "fox face",
  "café cup",
  "ﬁre engine",
  "blue heart",
  "pineapple",
  "catfish",
];
const COLOURS = ["red", "light blue", "dark green", "grey"];
/** Every thing on every background; things that come first come oftener. */
const CORPUS = THINGS.flatMap((thing, i) =>
  COLOURS.map((colour): [string, number] => [`a picture of a ${thing} on a ${colour} background`, 20 - i]),
);

describe("trainUnigram", () => {
  const trained = trainUnigram(CORPUS, { vocabSize: 45 });
  const tokenizer = Tokenizer.fromJson(JSON.parse(JSON.stringify(trained)));

  it("makes a vocabulary of the wanted size, special pieces first, every character in it", () => {
    const pieces = trained.model.vocab.map(([piece]) => piece);
    expect(pieces.length).toBe(45);
    expect(new Set(pieces).size).toBe(45);
    expect(pieces.slice(0, 3)).toEqual(["<pad>", "</s>", "<unk>"]);
    for (const [text] of CORPUS) expect(tokenizer.encode(text)).not.toContain(tokenizer.unknownId);
    expect(pieces).toContain("f"); // of the ligature, after normalisation
  });

  it("gives log probabilities that sum to about one", () => {
    const sum = trained.model.vocab.slice(3).reduce((total, [, score]) => total + Math.exp(score), 0);
    expect(sum).toBeGreaterThan(0.8);
    expect(sum).toBeLessThan(1.02);
  });

  it("spends pieces on what is frequent", () => {
    const words = tokenizer.pieces("a picture of a cat on a red background").map((piece) => piece.text);
    expect(words).toEqual(expect.arrayContaining(["▁a", "▁picture", "▁of", "▁on", "▁background"]));
    const count = (vocabSize: number) => {
      const other = Tokenizer.fromJson(trainUnigram(CORPUS, { vocabSize }));
      return CORPUS.reduce((total, [text]) => total + other.encode(text).length, 0);
    };
    const counts = [30, 40, 60, 80].map(count);
    expect(counts).toEqual([...counts].sort((a, b) => b - a));
  });

  it("prefers the segmentation that explains the corpus", () => {
    // "pineapple" and "catfish" are rarer than "apple" and "cat": with no room for all they share pieces.
    const likelihood = (json: typeof trained) => {
      const scores = new Map(json.model.vocab);
      const model = Tokenizer.fromJson(json);
      return CORPUS.reduce(
        (total, [text, n]) => total + n * model.pieces(text).reduce((sum, piece) => sum + scores.get(piece.text)!, 0),
        0,
      );
    };
    expect(likelihood(trained)).toBeGreaterThan(likelihood(trainUnigram(CORPUS, { vocabSize: 32 })));
  });

  it("does not depend on the order of the corpus, nor on how equal texts are counted", () => {
    expect(trainUnigram([...CORPUS].reverse(), { vocabSize: 45 })).toEqual(trained);
    const halves = CORPUS.flatMap(([text, n]): [string, number][] => [
      [text, n - 1],
      [text, 1],
    ]);
    expect(trainUnigram(halves, { vocabSize: 45 })).toEqual(trained);
  });

  it("gives fewer pieces where the corpus has not so many", () => {
    const small = trainUnigram([["aa ab", 3]], { vocabSize: 1000 });
    expect(small.model.vocab.length).toBeLessThan(12);
    expect(Tokenizer.fromJson(small).encode("aa ab")).not.toContain(2);
  });

  it("keeps every character, also those of two UTF-16 units", () => {
    const corpus = ["🦊🦊🐱", "🐱🦊", "🦉 🐱🐱"].map((text): [string, number] => [text, 4]);
    const animals = trainUnigram(corpus, { vocabSize: 12 });
    const pieces = animals.model.vocab.map(([piece]) => piece);
    expect(pieces).toEqual(expect.arrayContaining(["🦊", "🐱", "🦉", "▁"]));
    expect(pieces.filter((piece) => Buffer.from(piece).toString() !== piece)).toEqual([]);
    for (const [text] of corpus) expect(Tokenizer.fromJson(animals).encode(text)).not.toContain(2);
  });

  it("refuses an empty corpus and a vocabulary without room for the characters", () => {
    expect(() => trainUnigram([[" \n", 1]], { vocabSize: 10 })).toThrow(/^corpus: expected at least one word/);
    expect(() => trainUnigram(CORPUS, { vocabSize: 20 })).toThrow(
      /^vocabSize: expected an integer of at least \d\d, one for each/,
    );
    expect(() => trainUnigram(CORPUS, { vocabSize: 60.5 })).toThrow(InvalidInputError);
  });

  it("is written with the configuration with which transformers takes it as it is", async () => {
    const folder = await mkdtemp(join(tmpdir(), "unigram-"));
    try {
      await saveTokenizer(folder, trained);
      const text = CORPUS[0]![0];
      expect((await Tokenizer.fromFile(folder)).encode(text)).toEqual(tokenizer.encode(text));
      const config = JSON.parse(await readFile(join(folder, "tokenizer_config.json"), "utf8"));
      expect(config).toMatchObject({ tokenizer_class: "PreTrainedTokenizerFast", pad_token: "<pad>" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
