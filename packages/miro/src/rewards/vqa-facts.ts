/** What is known of `vqa_score` without its networks. */
import type { ScorerFacts } from "./scorer.js";

export const VQA_KEY = "vqa_score";
/** The entries of `weights` for the vision tower and the tokenizer, where they are not beside T5. */
export const VQA_TOWER_KEY = "vqa_vision_tower";
export const VQA_TOKENIZER_KEY = "vqa_tokenizer";
export const VQA_NAME = "CLIP-FlanT5";

export const VQA_REPOSITORY = "zhiqiulin/clip-flant5-xxl";
export const VQA_TOWER_REPOSITORY = "openai/clip-vit-large-patch14-336";
export const VQA_TOKENIZER_REPOSITORY = "google/flan-t5-xxl";
export const VQA_TOKENIZER = "tokenizer.json";
/** What the weights, or their index, may be called; the first that is there is taken. */
export const VQA_WEIGHTS = [
  "model.safetensors.index.json",
  "model.safetensors",
  "pytorch_model.bin.index.json",
  "pytorch_model.bin",
];

/** What is known without loading it. */
export const vqaFacts: ScorerFacts = {
  key: VQA_KEY,
  name: VQA_NAME,
  description: "whether the picture shows the text, as a probability: 0 to 1 (VQAScore with CLIP-FlanT5-XXL)",
  stage: "vqa",
  usesText: true,
  pixels: "stored",
  onRequest: true,
  license: { name: "research only, trained on data under CC-BY-NC-4.0", nonCommercial: true },
  repositories: [
    { name: VQA_REPOSITORY, weights: VQA_WEIGHTS, sizeBytes: 22_300_000_000 },
    { name: VQA_TOWER_REPOSITORY, weights: VQA_WEIGHTS, sizeBytes: 1_711_974_081, givenAs: VQA_TOWER_KEY },
    { name: VQA_TOKENIZER_REPOSITORY, weights: [VQA_TOKENIZER], sizeBytes: 2_424_064, givenAs: VQA_TOKENIZER_KEY },
  ],
  memory: {
    parts: { "CLIP-FlanT5-XXL": 11_154_000_000, "CLIP ViT-L/14-336, pictures": 303_507_456 },
    workingBytes: 4e9,
    streams: true,
  },
};
