/** Features of the captions that were asked for lately, so that each is encoded once. */
import type { Tensor } from "@miro-t2i/torch";
import { KeptFeatures } from "./kept-features.js";

/** Captions whose features are kept. */
const KEPT = 256;

/** Captions → features (B, D), stopped by the signal; the caller frees them. */
export type EncodeTexts = (captions: readonly string[], signal: AbortSignal | undefined) => Promise<Tensor>;

export class TextFeatures {
  readonly #encode: EncodeTexts;
  readonly #kept = new KeptFeatures(KEPT);

  /** @param encode what features are made with, as they are kept */
  constructor(encode: EncodeTexts) {
    this.#encode = encode;
  }

  /** Features of captions, which may be the same: (B, D). The caller frees them. */
  of(captions: readonly string[], signal?: AbortSignal): Promise<Tensor> {
    return this.#kept.of(captions, captions, (missing) => this.#encode(missing, signal));
  }

  /** Frees the features. */
  dispose(): void {
    this.#kept.dispose();
  }
}
