/** Features of the captions that were asked for lately, so that each is encoded once. */
import { scope, stack, type Tensor } from "@miro-t2i/torch";

/** Captions whose features are kept. */
const KEPT = 256;

export class TextFeatures {
  readonly #encode: (captions: readonly string[]) => Tensor;
  /** (D) each; the one that was used last is the last. */
  readonly #features = new Map<string, Tensor>();

  /** @param encode captions → features (B, D); what they are kept as */
  constructor(encode: (captions: readonly string[]) => Tensor) {
    this.#encode = encode;
  }

  /** Features of captions, which may be the same: (B, D) */
  of(captions: readonly string[]): Tensor {
    const missing = [...new Set(captions)].filter((caption) => !this.#features.has(caption));
    if (missing.length > 0)
      scope(() => {
        const features_BD = this.#encode(missing);
        missing.forEach((caption, i) => {
          this.#features.set(caption, features_BD.select(0, i).clone().keep());
        });
      });
    const asked = captions.map((caption) => {
      const feature = this.#features.get(caption)!;
      this.#features.delete(caption);
      this.#features.set(caption, feature);
      return feature;
    });
    const stacked = stack(asked);
    for (const [caption, feature] of this.#features) {
      if (this.#features.size <= KEPT) break;
      feature.dispose();
      this.#features.delete(caption);
    }
    return stacked;
  }

  /** Frees the features. */
  dispose(): void {
    for (const feature of this.#features.values()) feature.dispose();
    this.#features.clear();
  }
}
