/**
 * Options and rewards of emoji scenes. The options are declared once: a recipe's `data` section and `EmojiScenes.load`
 * take them.
 */
import { z } from "zod";
import type { OptionsOf } from "../../options.js";

const share = z.number().min(0).max(1);

/** Options of the data set, as a recipe's `data` section writes them. Shares within a group are relative weights. */
export const emojiSceneOptionsSchema = z.strictObject({
  /** A named list or explicit CLDR labels. */
  vocabulary: z.union([z.enum(["everyday", "animals", "core"]), z.array(z.string()).min(8)]).default("everyday"),
  /**
   * Share of the things that are drawn from the vocabulary's everyday names alone, which then come up more often than
   * the others.
   */
  everyday: share.default(0),
  /** Side of the square pictures in pixels. */
  size: z.number().int().min(32).max(256).multipleOf(8).default(128),
  seed: z.number().int().default(0),
  kinds: z
    .strictObject({ one: share.default(0), small: share.default(0), count: share.default(0), pair: share.default(0) })
    .default({ one: 0.56, small: 0.08, count: 0.16, pair: 0.2 }),
  backgrounds: z
    .strictObject({ white: share.default(0), named: share.default(0), gradient: share.default(0) })
    .default({ white: 0.25, named: 0.6, gradient: 0.15 }),
  /** Standard deviations of place (share of the side) and of size (share of the object's). */
  jitter: z
    .strictObject({ position: z.number().min(0).max(0.05), scale: z.number().min(0).max(0.1) })
    .default({ position: 0.015, scale: 0.036 }),
  /** Share of white backgrounds that the caption mentions. */
  whiteMentioned: share.default(0.3),
  /** Probability that a sprite that can be re-tinted is. */
  tint: share.default(0.18),
  /** Share of object names that are aliases ("apple") where the entry has some. */
  aliasShare: share.default(0.2),
  /** Share of captions that are wrong, wholly or in part, with `clip_score` telling so. */
  wrongCaption: share.default(0.2),
  /** Share of pictures that are damaged, and how. */
  degraded: share.default(0.25),
  degradations: z
    .strictObject({ blur: share.default(0), blocks: share.default(0), desaturate: share.default(0) })
    .default({ blur: 0.5, blocks: 0.1, desaturate: 0.4 }),
  /** Share of single rewards that are left untold (NaN). */
  rewardUnset: share.default(0.05),
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
