/** The published scorers. The networks of one are imported when it is loaded. */
import type { ClipScorer } from "./clip-facts.js";
import { aestheticFacts, clipFacts, clipOpenai, HPS, hpsName, hpsv2, pickScore, sciScore } from "./clip-facts.js";
import { imageRewardFacts } from "./image-reward-facts.js";
import { jinaFacts } from "./jina-facts.js";
import type { ScorerSpec } from "./scorer.js";
import { vqaFacts } from "./vqa-facts.js";

const clipNetworks = () => import("./clip-scorers.js");

const clip = (scorer: ClipScorer): ScorerSpec => ({
  ...clipFacts(scorer),
  load: async (options) => (await clipNetworks()).loadClipScorer(scorer, options),
});

/** Their specs, as `registerScorer` takes them. */
export const publishedScorers: readonly ScorerSpec[] = [
  { ...jinaFacts, load: async (options) => (await import("./jina-scorer.js")).loadJina(options) },
  clip(clipOpenai),
  { ...aestheticFacts, load: async (options) => (await clipNetworks()).loadAesthetic(options) },
  clip(pickScore),
  {
    ...clipFacts({ ...hpsv2, name: HPS["v2.1"].name, weights: [HPS["v2.1"].file, HPS["v2.0"].file] }),
    modelName: hpsName,
    load: async (options) => {
      const { file } = HPS[options.hpsVersion ?? "v2.1"];
      const pixels = options.hpsLetterbox ? "letterbox" : hpsv2.pixels;
      const version: ClipScorer = { ...hpsv2, name: hpsName(options), weights: [file], pixels };
      return (await clipNetworks()).loadClipScorer(version, options);
    },
  },
  clip(sciScore),
  { ...imageRewardFacts, load: async (options) => (await import("./image-reward.js")).loadImageReward(options) },
  { ...vqaFacts, load: async (options) => (await import("./vqa-scorer.js")).loadVqaScorer(options) },
];
