/** Features of the captions that were asked for lately, so that each is encoded once. */
import type { Tensor } from "@miro-t2i/torch";
import { KeptFeatures } from "./kept-features.js";

/** Captions whose features are kept. */
const KEPT = 256;

export class TextFeatures {
  readonly #encode: (captions: readonly string[]) => Tensor;
  readonly #kept = new KeptFeatures(KEPT);

  /** @param encode captions → features (B, D); what they are kept as */
  constructor(encode: (captions: readonly string[]) => Tensor) {
    this.#encode = encode;
  }

  /** Features of captions, which may be the same: (B, D) */
  of(captions: readonly string[]): Tensor {
    return this.#kept.of(captions, captions, this.#encode);
  }

  /** Frees the features. */
  dispose(): void {
    this.#kept.dispose();
  }
}
