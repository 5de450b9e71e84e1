/** The folders that the authors' checkpoints were trained in: each is one of the published releases. */
import { REWARD_KEYS } from "../networks/config.js";
import { RELEASES, type Release } from "../pipeline/loading/releases.js";

const RUN = "CC12M_256_RIN_small_flow";

/** What a reward is called in the name of a folder without it; with it alone, it has its key. */
const WITHOUT: Record<(typeof REWARD_KEYS)[number], string> = {
  clip_score: "clip",
  aesthetic_score: "aesthetic",
  image_reward_score: "image_reward",
  pick_a_score_score: "pick",
  hpsv2_score: "hpsv2",
  vqa_score: "vqa",
  sciscore_score: "sciscore",
};

/** The sixteen releases by the name of the folder of their run. */
export const PRESETS: ReadonlyMap<string, Release> = new Map(
  RELEASES.map((release) => [folderOf(release), release] as const),
);

function folderOf({ variant, rewards }: Release): string {
  if (variant === undefined) return `${RUN}_multi_cad_synth_synth_p50`;
  if (variant === "miro-no-synthetic-captions") return `${RUN}_multi_cad`;
  if (rewards.length === 1) return `${RUN}_${rewards[0]}_cad`;
  return `${RUN}_multi_cad_no_${WITHOUT[REWARD_KEYS.find((key) => !rewards.includes(key))!]}`;
}
