import type { ImageSettings } from "../settings.js";

/** Settings of a picture of 8 × 4 pixels. */
export const IMAGE_SETTINGS: ImageSettings = {
  prompt: "a fox",
  seed: 7,
  steps: 4,
  guidanceScale: 3,
  guidanceType: "constant",
  sampler: "euler",
  shift: 1,
  rewardTargets: {},
  negativeRewardTargets: {},
  model: "tiny",
  width: 8,
  height: 4,
  device: "cpu",
  dtype: "float32",
  versions: { miro: "1.2.3", torch: "2.13.0" },
};
