// What other rooms use of text: tokens, the encoder, and making both anew.

export { T5Encoder, type T5LoadOptions } from "./t5.js";
export { type T5Config, type T5ConfigInput, t5ConfigFromJson } from "./t5-config.js";
export { type EncodeBatchOptions, type EncodedBatch, Tokenizer } from "./tokenizer.js";
export type { Piece } from "./unigram.js";
export { saveTokenizer, type TrainUnigramOptions, trainUnigram, type UnigramTokenizerJson } from "./unigram-trainer.js";
