/**
 * Scores of the samples that a run draws, as curves: the mean of each scorer over all pictures of a step. Scorers are
 * in memory only meanwhile.
 */
import { loadAutoencoder } from "../../autoencoder/index.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { checkScorerFor, checkWeightKeys, loadScorer, scorerSpec } from "../../rewards/registry.js";
import type { LoadScorerOptions } from "../../rewards/scorer.js";

/** Pictures with what they should show. */
export interface CaptionedSamples {
  images: readonly RgbImage[];
  captions: readonly string[];
}

export class SampleScores {
  readonly #keys: readonly string[];
  readonly #options: LoadScorerOptions;

  /**
   * @param weights `KEY=DIR` each
   * @throws InvalidInputError for scorers that are not known
   */
  constructor(
    { scorers, scorerWeights }: { scorers: readonly string[]; scorerWeights: readonly string[] },
    options: Pick<LoadScorerOptions, "device" | "onMessage" | "signal">,
  ) {
    this.#keys = [...new Set(scorers)];
    for (const key of this.#keys) scorerSpec(key, "samples.scorers");
    const weights = Object.fromEntries(
      scorerWeights.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
    );
    checkWeightKeys(weights);
    this.#options = { ...options, weights };
  }

  /** @throws InvalidInputError for a scorer that has nothing to say about what an autoencoder shows */
  checkFor(name: string, autoencoderFolder: string): void {
    if (!this.#keys.some((key) => scorerSpec(key).refusal)) return;
    const autoencoder = loadAutoencoder(autoencoderFolder, { device: "cpu", dtype: "float32" });
    try {
      for (const key of this.#keys) checkScorerFor({ name, autoencoder }, key, "samples.scorers");
    } finally {
      autoencoder.dispose();
    }
  }

  /** `samples/KEY` for each scorer that has a finite score of one of the pictures at least. */
  async measure({ images, captions }: CaptionedSamples): Promise<Record<string, number>> {
    const figures: Record<string, number> = {};
    for (const key of this.#keys) {
      using scorer = await loadScorer(key, this.#options);
      const scores = await scorer.scoreOrNull(images, captions, { signal: this.#options.signal });
      const values = scores.filter((score) => score !== null);
      if (values.length > 0) figures[`samples/${key}`] = values.reduce((sum, value) => sum + value, 0) / values.length;
    }
    return figures;
  }
}
