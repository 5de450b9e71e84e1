/** The folders that the authors' checkpoints were trained in: each is one of the published releases. */
import type { REWARD_KEYS } from "../networks/config.js";
import { RELEASES, type Release } from "../pipeline/loading/releases.js";

const RUN = "CC12M_256_RIN_small_flow";

/** What a reward is called in the folders' names: without it, and with it alone. */
const WORDS: Record<(typeof REWARD_KEYS)[number], [without: string, alone: string]> = {
  clip_score: ["clip", "clip_score"],
  aesthetic_score: ["aesthetic", "aesthetic_score"],
  image_reward_score: ["image_reward", "image_reward_score"],
  pick_a_score_score: ["pick", "pick_a_score_score"],
  hpsv2_score: ["hpsv2", "hpsv2_score"],
  vqa_score: ["vqa", "vqa_score"],
  sciscore_score: ["sciscore", "sciscore_score"],
};

/** The sixteen releases by the name of the folder of their run. */
export const PRESETS: ReadonlyMap<string, Release> = new Map(
  RELEASES.map((release) => [folderOf(release), release] as const),
);

function folderOf({ variant, rewards }: Release): string {
  if (variant === undefined) return `${RUN}_multi_cad_synth_synth_p50`;
  if (variant === "miro-no-synthetic-captions") return `${RUN}_multi_cad`;
  const [first] = rewards;
  const words = Object.entries(WORDS);
  if (rewards.length === 1) return `${RUN}_${words.find(([key]) => key === first)![1][1]}_cad`;
  return `${RUN}_multi_cad_no_${words.find(([key]) => !rewards.includes(key))![1][0]}`;
}
