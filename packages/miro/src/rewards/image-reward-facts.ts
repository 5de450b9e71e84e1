/** What is known of `image_reward_score` without its networks. */
import type { ScorerFacts } from "./scorer.js";

export const IMAGE_REWARD_KEY = "image_reward_score";
export const IMAGE_REWARD_NAME = "ImageReward v1.0";
export const IMAGE_REWARD_REPOSITORY = "THUDM/ImageReward";
export const IMAGE_REWARD_WEIGHTS = ["ImageReward.pt"];

/** Where the vocabulary comes from that the published repository lacks. */
export const BERT_VOCABULARY = {
  repository: "google-bert/bert-base-uncased",
  file: "vocab.txt",
  bytes: 231_508,
  sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
};

/** What is known without loading it. */
export const imageRewardFacts: ScorerFacts = {
  key: IMAGE_REWARD_KEY,
  name: IMAGE_REWARD_NAME,
  description: "how well people find that a picture shows a text, about -2.3 to 2.1 (ImageReward)",
  stage: "rewards",
  usesText: true,
  pixels: "stored",
  onRequest: true,
  stored: { offset: 2, divisor: 4 },
  syntheticCaption: "short",
  license: { name: "Apache-2.0", nonCommercial: false },
  repositories: [
    { name: IMAGE_REWARD_REPOSITORY, weights: IMAGE_REWARD_WEIGHTS, sizeBytes: 1_790_000_000 },
    { name: BERT_VOCABULARY.repository, weights: [BERT_VOCABULARY.file], sizeBytes: BERT_VOCABULARY.bytes },
  ],
  memory: { parts: { ImageReward: 446_000_000 }, workingBytes: 400e6 },
};
