/**
 * The tokenizer of the bundled model: a Unigram model of captions that reads "A Red Apple." as "a red apple". Case and
 * the marks that end sentences are folded by the tokenizer file itself, so every reader of `tokenizer.json` does the
 * same.
 */
import { trainUnigram, type UnigramTokenizerJson } from "../../text/unigram-trainer.js";

const FOLDING = [
  { type: "Lowercase" },
  ...[".", "!", "?"].map((mark) => ({ type: "Replace", pattern: { String: mark }, content: " " })),
];

/** Trains on captions with their numbers of occurrences. */
export function trainCaptionTokenizer(
  corpus: Iterable<readonly [text: string, count: number]>,
  vocabSize: number,
): UnigramTokenizerJson {
  const folded = Array.from(corpus, ([text, count]) => [text.toLowerCase().replace(/[.!?]+/g, " "), count] as const);
  const trained = trainUnigram(folded, { vocabSize });
  return { ...trained, normalizer: { type: "Sequence", normalizers: [trained.normalizer, ...FOLDING] } };
}
