/**
 * The checkpoints that the authors of MIRO publish: where they are and what they were trained on (their model cards).
 */
import { REWARD_KEYS } from "../../networks/config.js";

/** A published checkpoint. */
export interface Release {
  repository: string;
  /** Sub-folder of the repository; none for the main model. */
  variant?: string;
  title: string;
  /** The rewards it knows: the names that targets may use. */
  rewards: readonly string[];
  /** Whether half of its captions were synthetic. */
  syntheticCaptions: boolean;
}

export const MAIN_REPOSITORY = "nicolas-dufour/miro";
export const ABLATIONS_REPOSITORY = "nicolas-dufour/miro-ablations";

/** What a reward is called in names of variants, and by people. */
const NAMES: Record<(typeof REWARD_KEYS)[number], [slug: string, title: string]> = {
  clip_score: ["clip", "CLIP"],
  aesthetic_score: ["aesthetic", "aesthetic"],
  image_reward_score: ["image-reward", "ImageReward"],
  pick_a_score_score: ["pickscore", "PickScore"],
  hpsv2_score: ["hpsv2", "HPSv2"],
  vqa_score: ["vqa", "VQA"],
  sciscore_score: ["sciscore", "SciScore"],
};

/** The main model, then the fifteen ablations. */
export const RELEASES: readonly Release[] = [
  { repository: MAIN_REPOSITORY, title: "main model", rewards: REWARD_KEYS, syntheticCaptions: true },
  {
    repository: ABLATIONS_REPOSITORY,
    variant: "miro-no-synthetic-captions",
    title: "without synthetic captions",
    rewards: REWARD_KEYS,
    syntheticCaptions: false,
  },
  ...REWARD_KEYS.map((key) => ({
    repository: ABLATIONS_REPOSITORY,
    variant: `miro-no-${NAMES[key][0]}`,
    title: `without the ${NAMES[key][1]} reward`,
    rewards: REWARD_KEYS.filter((other) => other !== key),
    syntheticCaptions: false,
  })),
  ...REWARD_KEYS.map((key) => ({
    repository: ABLATIONS_REPOSITORY,
    variant: `miro-only-${NAMES[key][0]}`,
    title: `specialist of the ${NAMES[key][1]} reward alone`,
    rewards: [key],
    syntheticCaptions: false,
  })),
];
