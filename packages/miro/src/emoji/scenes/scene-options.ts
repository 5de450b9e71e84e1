/**
 * Options and rewards of emoji scenes. The options are declared once: a recipe's `data` section and `EmojiScenes.load`
 * take them.
 */
import { z } from "zod";
import { type OptionsOf, setting } from "../../options.js";

const share = z.number().min(0).max(1);

const shareOf = (what: string) => setting(share.default(0), `relative weight of ${what}`);

/** Options of the data set, as a recipe's `data` section writes them. Shares within a group are relative weights. */
export const emojiSceneOptionsSchema = z.strictObject({
  vocabulary: setting(
    z.union([z.enum(["everyday", "animals", "core"]), z.array(z.string()).min(8)]).default("everyday"),
    "what can be drawn: a named list, or CLDR names of emoji",
  ),
  everyday: setting(
    share.default(0),
    "share of the things that are drawn from the vocabulary's everyday names alone, which then come up more often than the others",
  ),
  size: setting(
    z.number().int().min(32).max(256).multipleOf(8).default(128),
    "side of the square pictures in pixels, a multiple of 8",
  ),
  seed: setting(z.number().int().default(0), "which scenes are drawn"),
  kinds: setting(
    z
      .strictObject({
        one: shareOf("one thing"),
        small: shareOf("one small thing"),
        count: shareOf("several of one thing"),
        pair: shareOf("two different things"),
      })
      .default({ one: 0.56, small: 0.08, count: 0.16, pair: 0.2 }),
    "what a scene shows",
  ),
  backgrounds: setting(
    z
      .strictObject({
        white: shareOf("white"),
        named: shareOf("a colour that the caption names"),
        gradient: shareOf("a gradient"),
      })
      .default({ white: 0.25, named: 0.6, gradient: 0.15 }),
    "what is behind it",
  ),
  jitter: setting(
    z
      .strictObject({
        position: setting(z.number().min(0).max(0.05), "standard deviation of the place, as a share of the side"),
        scale: setting(z.number().min(0).max(0.1), "standard deviation of the size, as a share of the object's"),
      })
      .default({ position: 0.015, scale: 0.036 }),
    "how much place and size vary",
  ),
  whiteMentioned: setting(share.default(0.3), "share of white backgrounds that the caption mentions"),
  tint: setting(share.default(0.18), "probability that a sprite that can be re-tinted is"),
  aliasShare: setting(share.default(0.2), 'share of object names that are aliases ("apple") where the entry has some'),
  wrongCaption: setting(
    share.default(0.2),
    "share of captions that are wrong, wholly or in part, with clip_score telling so",
  ),
  degraded: setting(share.default(0.25), "share of pictures that are damaged"),
  degradations: setting(
    z
      .strictObject({
        blur: shareOf("blurred pictures"),
        blocks: shareOf("coarse blocks"),
        desaturate: shareOf("pale colours"),
      })
      .default({ blur: 0.5, blocks: 0.1, desaturate: 0.4 }),
    "how pictures are damaged",
  ),
  rewardUnset: setting(share.default(0.05), "share of single rewards that are left untold (NaN)"),
});

/** Options of `EmojiScenes.load`. */
export type EmojiSceneOptions = OptionsOf<typeof emojiSceneOptionsSchema>;

/** The same with their defaults filled in. */
export type ResolvedSceneOptions = z.output<typeof emojiSceneOptionsSchema>;

/** Reward keys of this data set, in the order of the network's `coherence_keys`. */
export const EMOJI_REWARD_KEYS = ["clip_score", "sharpness", "colorfulness"] as const;
/** One of {@link EMOJI_REWARD_KEYS}. */
export type EmojiRewardKey = (typeof EMOJI_REWARD_KEYS)[number];

/** Side of the pictures that the classifier of names looks at. */
export const CLASSIFIER_SIZE = 64;
