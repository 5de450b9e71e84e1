/**
 * Features of what was asked for lately, by its content, so that each is encoded once: captions of several pictures,
 * pictures with several captions, and pictures that several scorers look at with one tower.
 */
import { createHash } from "node:crypto";
import { noGrad, scope, stack, type Tensor } from "@miro-t2i/torch";
import type { RgbImage } from "../pictures/rgb.js";

export class KeptFeatures {
  readonly #most: number;
  /** The one that was used last is the last. */
  readonly #features = new Map<string, Tensor>();
  /** The end of the call before: a call may wait for its encoder, and another must not encode the same meanwhile. */
  #turn: Promise<unknown> = Promise.resolve();

  /** @param most features that are kept; the ones that were not asked for longest go first */
  constructor(most: number) {
    this.#most = most;
  }

  /**
   * Features of items, which may be the same: (B, …). The caller frees them.
   *
   * @param keys what tells items apart: their content
   * @param encode features (b, …) of those items that are not kept; they are freed here
   */
  of<T>(
    items: readonly T[],
    keys: readonly string[],
    encode: (items: readonly T[]) => Promise<Tensor>,
  ): Promise<Tensor> {
    const features = this.#turn.then(() => this.#of(items, keys, encode));
    this.#turn = features.catch(() => {});
    return features;
  }

  async #of<T>(
    items: readonly T[],
    keys: readonly string[],
    encode: (items: readonly T[]) => Promise<Tensor>,
  ): Promise<Tensor> {
    const missing = new Map<string, T>();
    keys.forEach((key, i) => {
      if (!this.#features.has(key)) missing.set(key, items[i]!);
    });
    if (missing.size > 0) {
      using features = await encode([...missing.values()]);
      noGrad(() =>
        scope(() => {
          [...missing.keys()].forEach((key, i) => {
            this.#features.set(key, features.select(0, i).clone().keep());
          });
        }),
      );
    }
    const asked = keys.map((key) => {
      const feature = this.#features.get(key)!;
      this.#features.delete(key);
      this.#features.set(key, feature);
      return feature;
    });
    const stacked = noGrad(() => stack(asked));
    for (const [key, feature] of this.#features) {
      if (this.#features.size <= this.#most) break;
      feature.dispose();
      this.#features.delete(key);
    }
    return stacked;
  }

  /** Frees the features. */
  dispose(): void {
    for (const feature of this.#features.values()) feature.dispose();
    this.#features.clear();
  }
}

/** The content of a picture in a few letters: size and SHA-256 of its pixels. */
export function pictureKey({ width, height, data }: RgbImage): string {
  return `${width} ${height} ${createHash("sha256").update(data).digest("base64")}`;
}
