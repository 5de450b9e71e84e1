/** What is known of `clip_score` without its networks. */
import type { ScorerFacts } from "./scorer.js";

export const JINA_KEY = "clip_score";
export const JINA_NAME = "jina-clip-v2";
export const JINA_REPOSITORY = "jinaai/jina-clip-v2";
export const JINA_TOKENIZER_FILE = "tokenizer.json";
export const JINA_WEIGHTS = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
const VISION_PARAMETERS = 304_000_000;
const TEXT_PARAMETERS = 561_000_000;

/** What is known without loading it. */
export const jinaFacts: ScorerFacts = {
  key: JINA_KEY,
  name: JINA_NAME,
  description: "how well picture and text agree, about 15 to 40 (jina-clip-v2: long texts, 89 languages)",
  stage: "rewards",
  usesText: true,
  pixels: "stored",
  onRequest: true,
  stored: { divisor: 100, offset: 0 },
  license: { name: "CC-BY-NC-4.0", nonCommercial: true },
  repositories: [
    { name: JINA_REPOSITORY, weights: JINA_WEIGHTS, sizeBytes: 2 * (VISION_PARAMETERS + TEXT_PARAMETERS) },
  ],
  memory: {
    parts: { "jina-clip-v2, pictures": VISION_PARAMETERS, "jina-clip-v2, text": TEXT_PARAMETERS },
    workingBytes: 500e6,
  },
};
