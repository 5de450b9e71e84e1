/** How rewards are called and coloured for people. */
const STYLES = new Map(
  Object.entries({
    clip_score: { label: "CLIP", colour: "#4fd2c8" },
    aesthetic_score: { label: "Aesthetic", colour: "#69c869" },
    image_reward_score: { label: "ImageReward", colour: "#ff6978" },
    pick_a_score_score: { label: "PickScore", colour: "#ff96c8" },
    hpsv2_score: { label: "HPSv2", colour: "#6496ff" },
    vqa_score: { label: "VQA", colour: "#e1d34f" },
    sciscore_score: { label: "SciScore", colour: "#c769e6" },
    sharpness: { label: "Sharpness", colour: "#5aa9ff" },
    colorfulness: { label: "Colorfulness", colour: "#ff9f43" },
  }),
);

/** Name and colour of a reward; one that nobody knows is called by its key. */
export function rewardStyle(key: string): { label: string; colour: string } {
  const known = STYLES.get(key);
  if (known) return known;
  const words = key.replace(/_score$/, "").replaceAll("_", " ");
  const hue = [...key].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 7);
  return { label: words.charAt(0).toUpperCase() + words.slice(1), colour: `hsl(${hue} 70% 62%)` };
}
