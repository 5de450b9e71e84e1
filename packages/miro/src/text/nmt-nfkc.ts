/**
 * The character map `nmt_nfkc` that SentencePiece builds into its models by default (NFKC, white space unified, control
 * characters removed), as the bytes of a `precompiled_charsmap`. From SentencePiece, Apache License 2.0,
 * https://github.com/google/sentencepiece (`src/normalization_rule.h`); stored Brotli-compressed in `assets/`.
 */
import { readFileSync } from "node:fs";
import { brotliDecompressSync } from "node:zlib";

/** The table's bytes: what `CharsMap` reads and a `tokenizer.json` holds in base64. */
export function nmtNfkcCharsMap(): Uint8Array {
  return brotliDecompressSync(readFileSync(new URL("../../assets/nmt_nfkc.charsmap.br", import.meta.url)));
}
