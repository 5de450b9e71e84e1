/**
 * Emoji scenes: pictures with true captions and honest rewards, each a pure function of (seed, index).
 *
 * A scene is first described (`EmojiScenes.describe`: what, where, on what, which caption, which rewards) and then
 * drawn (`render`), so that captions, rewards and tests need no pixels. Layouts:
 *
 * | kind  | objects                | side of an object, share of the picture's | centres |
 * |-------|------------------------|-------------------------------------------|---------|
 * | one   | 1                      | 0.82 (σ 0.03)                             | middle, jitter σ 0.015 |
 * | small | 1                      | 0.42                                      | middle |
 * | count | 2-5 of the same        | 0.40, five 0.30                           | row, triangle, square, die's five |
 * | pair  | 2 different            | 0.45                                      | 0.27 and 0.73, across or down |
 *
 * Rewards, all in [0, 1]: `clip_score` is 1 where the caption is true and lower, by a fixed scale, where one was given
 * that is not; `sharpness` and `colorfulness` are 1 minus the damage done (`degrade.ts`). NaN means "not told".
 */
import { z } from "zod";
import { invalid } from "../../errors.js";
import {
  type Background,
  COLOUR_NAMES,
  describeScene,
  NAMED_COLOURS,
  RELATIONS,
  type Relation,
  type Rgb,
  type SceneContent,
  TINT_NAMES,
  TINTS,
  type TintName,
  WHITE,
} from "./captions.js";
import { blockCode, blur, desaturate } from "./degrade.js";
import { SceneRandom } from "./random.js";
import { loadSprites, type Sprite, type SpriteLevel } from "./sprites.js";
import { type EmojiEntry, isEveryday, loadVocabulary } from "./vocabulary.js";

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

export type EmojiSceneOptions = z.input<typeof emojiSceneOptionsSchema>;
type ResolvedOptions = z.output<typeof emojiSceneOptionsSchema>;

/** Reward keys of this data set, in the order of the network's `coherence_keys`. */
export const EMOJI_REWARD_KEYS = ["clip_score", "sharpness", "colorfulness"] as const;
export type EmojiRewardKey = (typeof EMOJI_REWARD_KEYS)[number];

/** One sprite of a scene. Coordinates and sizes are shares of the picture's side; `side` is that of the longer edge. */
export interface PlacedObject {
  readonly entry: EmojiEntry;
  /** Index of the entry in the vocabulary. */
  readonly entryIndex: number;
  readonly x: number;
  readonly y: number;
  readonly side: number;
  readonly tint: TintName | null;
}

export interface Scene extends SceneContent {
  readonly index: number;
  readonly objects: readonly PlacedObject[];
  /** Background colours at the top and the bottom edge with their jitter, 8-bit. */
  readonly top: Rgb;
  readonly bottom: Rgb;
  /** What a model is told. Equal to `trueCaption` unless the caption was made wrong. */
  readonly caption: string;
  readonly trueCaption: string;
  /** What is told about the picture; NaN where untold. */
  readonly rewards: Readonly<Record<EmojiRewardKey, number>>;
  readonly degradation: { readonly kind: "blur" | "blocks" | "desaturate"; readonly amount: number } | null;
}

export interface SceneBatch {
  readonly scenes: readonly Scene[];
  /** (B, 3, size, size), row-major, in [-1, 1]. */
  readonly pixels: Float32Array;
  readonly captions: readonly string[];
  readonly rewards: Readonly<Record<EmojiRewardKey, Float32Array>>;
}

/** Centres of two to five equal sprites. */
const COUNT_LAYOUTS: Readonly<Record<number, readonly (readonly [number, number])[]>> = {
  2: [
    [0.27, 0.5],
    [0.73, 0.5],
  ],
  3: [
    [0.5, 0.27],
    [0.27, 0.73],
    [0.73, 0.73],
  ],
  4: [
    [0.27, 0.27],
    [0.73, 0.27],
    [0.27, 0.73],
    [0.73, 0.73],
  ],
  5: [
    [0.2, 0.2],
    [0.8, 0.2],
    [0.5, 0.5],
    [0.2, 0.8],
    [0.8, 0.8],
  ],
};

const PAIR_LAYOUTS: Readonly<Record<Relation, readonly (readonly [number, number])[]>> = {
  left: [
    [0.27, 0.5],
    [0.73, 0.5],
  ],
  right: [
    [0.73, 0.5],
    [0.27, 0.5],
  ],
  above: [
    [0.5, 0.27],
    [0.5, 0.73],
  ],
  below: [
    [0.5, 0.73],
    [0.5, 0.27],
  ],
  and: [
    [0.27, 0.5],
    [0.73, 0.5],
  ],
};

/** `clip_score` of captions that are wrong in one respect (1 is a true caption, 0 that of another scene). */
const WRONG_SCORES = { scene: 0, objectOfOne: 0.25, objectOfTwo: 0.5, background: 0.6, count: 0.6, relation: 0.6 };

const OPPOSITE: Readonly<Record<Relation, Relation>> = {
  left: "right",
  right: "left",
  above: "below",
  below: "above",
  and: "and",
};

/** Side of a thing in its portrait, share of the picture's: the largest size that sprites are kept at. */
const PORTRAIT_SIDE = 0.92;

const GEOMETRY_STREAM = 0;
const CAPTION_STREAM = 1;
const DAMAGE_STREAM = 2;
/** The first of one stream for each way to be wrong. */
const WRONG_STREAM = 3;

/** Respects in which a caption can be wrong about a scene. */
export const WRONG_WAYS = ["scene", "object", "background", "size", "count", "relation"] as const;
export type WrongWay = (typeof WRONG_WAYS)[number];

export class EmojiScenes {
  readonly options: ResolvedOptions;
  readonly vocabulary: readonly EmojiEntry[];
  readonly #sprites: readonly Sprite[];
  /** Indices in the vocabulary of the everyday names it has. */
  readonly #everyday: readonly number[];

  private constructor(options: ResolvedOptions, vocabulary: readonly EmojiEntry[], sprites: readonly Sprite[]) {
    this.options = options;
    this.vocabulary = vocabulary;
    this.#sprites = sprites;
    this.#everyday = vocabulary.flatMap(({ label }, index) => (isEveryday(label) ? [index] : []));
    if (options.everyday > 0 && this.#everyday.length < 2) {
      throw invalid("scenes.everyday", "0 where the vocabulary has fewer than two everyday names", options.everyday);
    }
  }

  /** Loads names and sprites (a second on the first call for a vocabulary, then from the cache). */
  static async load(options: EmojiSceneOptions = {}): Promise<EmojiScenes> {
    const resolved = emojiSceneOptionsSchema.parse(options);
    const vocabulary = loadVocabulary(resolved.vocabulary);
    return new EmojiScenes(resolved, vocabulary, await loadSprites(vocabulary, resolved.size * PORTRAIT_SIDE));
  }

  get size(): number {
    return this.options.size;
  }

  /** The scene of an index, without its pixels. Pure: depends on the options and the index only. */
  describe(index: number): Scene {
    const { options } = this;
    const random = new SceneRandom(options.seed, index, GEOMETRY_STREAM);
    const { content, indices } = this.#drawContent(random);
    const objects = this.#place(content, indices, random);
    const [top, bottom] = this.#backgroundColours(content.background, random);

    const words = new SceneRandom(options.seed, index, CAPTION_STREAM);
    const trueCaption = describeScene(content, words, options);
    let caption = trueCaption;
    let alignment = 1;
    if (words.chance(options.wrongCaption)) {
      const wrong = this.#makeWrong(content, words);
      caption = describeScene(wrong.content, words, options);
      alignment = wrong.score;
    }

    const damage = new SceneRandom(options.seed, index, DAMAGE_STREAM);
    const degraded = damage.chance(options.degraded);
    const kind = damage.weighted(options.degradations);
    const amount = damage.uniform();
    const degradation = degraded ? { kind, amount } : null;
    const told = (value: number) => (damage.chance(options.rewardUnset) ? Number.NaN : value);
    return {
      ...content,
      index,
      objects,
      top,
      bottom,
      caption,
      trueCaption,
      degradation,
      rewards: {
        clip_score: told(alignment),
        sharpness: told(degraded && kind !== "desaturate" ? 1 - amount : 1),
        colorfulness: told(degraded && kind === "desaturate" ? 1 - amount : 1),
      },
    };
  }

  /** Draws a scene into `out` at `offset`: three planes of size × size values in [-1, 1]. */
  render(scene: Scene, out: Float32Array, offset = 0): void {
    const { size } = this;
    const plane = size * size;
    const picture = out.subarray(offset, offset + 3 * plane);
    for (let c = 0; c < 3; c++) {
      for (let y = 0; y < size; y++) {
        const value = scene.top[c] + ((scene.bottom[c] - scene.top[c]) * (y + 0.5)) / size;
        picture.fill(value, c * plane + y * size, c * plane + (y + 1) * size);
      }
    }
    for (const object of scene.objects) this.#compose(object, picture);
    if (scene.degradation !== null) {
      const { kind, amount } = scene.degradation;
      ({ blur, blocks: blockCode, desaturate })[kind](picture, size, amount);
    }
    toUnitRange(picture);
  }

  /** Draws one thing alone, as large as fits, on mid grey: three planes of size × size values in [-1, 1]. */
  renderPortrait(entryIndex: number, tint: TintName | null, out: Float32Array): void {
    out.fill(127.5);
    this.#compose({ entry: this.vocabulary[entryIndex], entryIndex, x: 0.5, y: 0.5, side: PORTRAIT_SIDE, tint }, out);
    toUnitRange(out);
  }

  /** Scenes `start … start + count − 1`, described and drawn. */
  batch(start: number, count: number): SceneBatch {
    const stride = 3 * this.size * this.size;
    const pixels = new Float32Array(count * stride);
    const scenes = Array.from({ length: count }, (_, i) => this.describe(start + i));
    scenes.forEach((scene, i) => {
      this.render(scene, pixels, i * stride);
    });
    const column = (key: EmojiRewardKey) => Float32Array.from(scenes, (scene) => scene.rewards[key]);
    return {
      scenes,
      pixels,
      captions: scenes.map((scene) => scene.caption),
      rewards: {
        clip_score: column("clip_score"),
        sharpness: column("sharpness"),
        colorfulness: column("colorfulness"),
      },
    };
  }

  #drawContent(random: SceneRandom): { content: SceneContent; indices: number[] } {
    const { options, vocabulary } = this;
    const sprites = this.#sprites;
    const drawnKind = random.weighted(options.kinds);
    const first = this.#drawEveryday(random) ?? random.below(vocabulary.length);
    const second =
      this.#drawEveryday(random, first) ?? (first + 1 + random.below(vocabulary.length - 1)) % vocabulary.length;
    // Names without a number ("two bread") are shown once.
    const kind = drawnKind === "count" && vocabulary[first].article === "" ? "one" : drawnKind;
    const indices = kind === "pair" ? [first, second] : [first];
    const tints = indices.map((i) => {
      const tint = random.pick(TINT_NAMES);
      return random.chance(options.tint) && sprites[i].tintable ? tint : null;
    });
    const count = 2 + random.below(4);
    const relation = random.pick(RELATIONS);
    return {
      indices,
      content: {
        kind,
        entries: indices.map((i) => vocabulary[i]),
        tints,
        count: kind === "count" ? count : 1,
        relation: kind === "pair" ? relation : null,
        background: this.#drawBackground(random),
      },
    };
  }

  /** An everyday thing, in the share of cases that the options ask for, other than `taken`. */
  #drawEveryday(random: SceneRandom, taken?: number): number | null {
    const { everyday } = this.options;
    // Without the option no draw is spent: the scenes of a seed stay what they are.
    if (everyday === 0 || !random.chance(everyday)) return null;
    return random.pick(this.#everyday.filter((index) => index !== taken));
  }

  #drawBackground(random: SceneRandom): Background {
    const kind = random.weighted(this.options.backgrounds);
    const first = random.below(COLOUR_NAMES.length);
    const second = (first + 1 + random.below(COLOUR_NAMES.length - 1)) % COLOUR_NAMES.length;
    const mentioned = random.chance(this.options.whiteMentioned);
    if (kind === "white") return { kind, mentioned };
    if (kind === "named") return { kind, colour: COLOUR_NAMES[first], mentioned: true };
    return { kind, top: COLOUR_NAMES[first], bottom: COLOUR_NAMES[second], mentioned: true };
  }

  #place(content: SceneContent, indices: readonly number[], random: SceneRandom): PlacedObject[] {
    const { kind, count } = content;
    const { jitter } = this.options;
    const side = { one: 0.82, small: 0.42, count: count === 5 ? 0.3 : 0.4, pair: 0.45 }[kind];
    const centres =
      kind === "count"
        ? COUNT_LAYOUTS[count]
        : kind === "pair"
          ? PAIR_LAYOUTS[content.relation!]
          : ([[0.5, 0.5]] as const);
    const scale = Math.min(Math.max(1 + jitter.scale * random.normal(), 0.9), 1.1);
    return centres.map(([x, y], i) => {
      const at = kind === "pair" ? i : 0;
      return {
        entry: content.entries[at],
        entryIndex: indices[at],
        x: x + jitter.position * clampNormal(random),
        y: y + jitter.position * clampNormal(random),
        side: side * scale,
        tint: content.tints[at],
      };
    });
  }

  #backgroundColours(background: Background, random: SceneRandom): [Rgb, Rgb] {
    const jitter = (colour: Rgb): Rgb => {
      const value = (c: number) => Math.min(Math.max(c + 4 * random.normal(), 0), 255);
      return [value(colour[0]), value(colour[1]), value(colour[2])];
    };
    if (background.kind === "white") return [WHITE, WHITE];
    if (background.kind === "gradient") {
      return [jitter(NAMED_COLOURS[background.top]), jitter(NAMED_COLOURS[background.bottom])];
    }
    const colour = jitter(NAMED_COLOURS[background.colour]);
    return [colour, colour];
  }

  /** Content that is not true of `content`, and the alignment that is left. */
  #makeWrong(content: SceneContent, random: SceneRandom): { content: SceneContent; score: number } {
    const ways: (keyof typeof WRONG_SCORES)[] = ["scene", content.kind === "pair" ? "objectOfTwo" : "objectOfOne"];
    if (content.background.mentioned) ways.push("background");
    if (content.kind === "count") ways.push("count");
    if (content.relation !== null && content.relation !== "and") ways.push("relation");
    const drawn = random.pick(ways);
    const way = drawn === "objectOfOne" || drawn === "objectOfTwo" ? "object" : drawn;
    return { content: this.#alter(content, way, random), score: WRONG_SCORES[drawn] };
  }

  /** The ways in which a caption can be wrong about this scene and say as much as a true one. */
  wrongWays({ kind, relation }: SceneContent): WrongWay[] {
    const ways: WrongWay[] = ["scene", "object", "background"];
    if (kind === "one" || kind === "small") ways.push("size");
    if (kind === "count") ways.push("count");
    if (relation !== null && relation !== "and") ways.push("relation");
    return ways;
  }

  /**
   * A caption that is wrong about a scene in one way; depends on the options, the scene and the way only.
   * @param way one of {@link wrongWays}
   */
  wrongCaption(scene: Scene, way: WrongWay): string {
    const random = new SceneRandom(this.options.seed, scene.index, WRONG_STREAM + WRONG_WAYS.indexOf(way));
    return describeScene(this.#alter(scene, way, random), random, this.options);
  }

  /** Content that differs from `content` in one way. */
  #alter(content: SceneContent, way: WrongWay, random: SceneRandom): SceneContent {
    switch (way) {
      case "scene": {
        let other = this.#drawContent(random).content;
        while (other.entries.some((entry) => content.entries.includes(entry))) {
          other = this.#drawContent(random).content;
        }
        return other;
      }
      case "object": {
        const at = random.below(content.entries.length);
        const others = this.vocabulary.filter(
          (entry) => !content.entries.includes(entry) && (content.kind !== "count" || entry.article !== ""),
        );
        const other = random.pick(others);
        return { ...content, entries: content.entries.map((e, i) => (i === at ? other : e)) };
      }
      case "background": {
        const told = (b: Background) =>
          b.kind === "named" ? [b.colour] : b.kind === "gradient" ? [b.top, b.bottom] : [];
        const others = COLOUR_NAMES.filter((name) => !told(content.background).includes(name));
        return { ...content, background: { kind: "named", colour: random.pick(others), mentioned: true } };
      }
      case "size":
        return { ...content, kind: content.kind === "small" ? "one" : "small" };
      case "count": {
        const counts = [2, 3, 4, 5].filter((n) => n !== content.count);
        return { ...content, count: random.pick(counts) };
      }
      case "relation":
        return { ...content, relation: OPPOSITE[content.relation!] };
    }
  }

  /**
   * Draws one sprite over the picture (values in [0, 255]): bilinear sampling of premultiplied colours, then "over".
   */
  #compose(object: PlacedObject, picture: Float32Array): void {
    const { size } = this;
    const plane = size * size;
    const target = object.side * size;
    const level = chooseLevel(this.#sprites[object.entryIndex].levels, target);
    const { width, height, data } = level;
    const step = Math.max(width, height) / target;
    const stride = (width + 2) * 4;
    const left = object.x * size - width / step / 2;
    const top = object.y * size - height / step / 2;
    const x0 = Math.max(0, Math.floor(left - 0.5));
    const x1 = Math.min(size, Math.ceil(left + width / step + 0.5));
    const y0 = Math.max(0, Math.floor(top - 0.5));
    const y1 = Math.min(size, Math.ceil(top + height / step + 0.5));

    // Column offsets and weights are the same for every row. Coordinates count from the border pixel.
    const columns = new Int32Array(x1 - x0);
    const weights = new Float32Array(x1 - x0);
    for (let x = x0; x < x1; x++) {
      const u = Math.min(Math.max((x + 0.5 - left) * step + 0.5, 0), width + 0.999);
      columns[x - x0] = Math.floor(u) * 4;
      weights[x - x0] = u - Math.floor(u);
    }
    const tint = object.tint === null ? null : TINTS[object.tint];
    for (let y = y0; y < y1; y++) {
      const v = Math.min(Math.max((y + 0.5 - top) * step + 0.5, 0), height + 0.999);
      const row = Math.floor(v) * stride;
      const fy = v - Math.floor(v);
      for (let x = x0; x < x1; x++) {
        const at = row + columns[x - x0];
        const below = at + stride;
        const fx = weights[x - x0];
        const w11 = fx * fy;
        const w01 = fx - w11;
        const w10 = fy - w11;
        const w00 = 1 - fx - w10;
        const alpha = w00 * data[at + 3] + w01 * data[at + 7] + w10 * data[below + 3] + w11 * data[below + 7];
        if (alpha === 0) continue;
        let red = w00 * data[at] + w01 * data[at + 4] + w10 * data[below] + w11 * data[below + 4];
        let green = w00 * data[at + 1] + w01 * data[at + 5] + w10 * data[below + 1] + w11 * data[below + 5];
        let blue = w00 * data[at + 2] + w01 * data[at + 6] + w10 * data[below + 2] + w11 * data[below + 6];
        if (tint !== null) {
          // Same grey part and same chroma, spent on the tint's hue; homogeneous, so it holds for premultiplied values.
          const low = Math.min(red, green, blue);
          const chroma = Math.max(red, green, blue) - low;
          red = low + chroma * tint[0];
          green = low + chroma * tint[1];
          blue = low + chroma * tint[2];
        }
        const through = 1 - alpha / 255;
        const to = y * size + x;
        picture[to] = red + through * picture[to];
        picture[plane + to] = green + through * picture[plane + to];
        picture[2 * plane + to] = blue + through * picture[2 * plane + to];
      }
    }
  }
}

/** The smallest level that is not smaller than the target, or the largest there is. */
function chooseLevel(levels: readonly SpriteLevel[], target: number): SpriteLevel {
  let chosen = levels[0];
  for (const level of levels) if (Math.max(level.width, level.height) >= target * 0.97) chosen = level;
  return chosen;
}

/** Values in [0, 255] to [-1, 1], in place; what lies outside is cut off. */
function toUnitRange(picture: Float32Array): void {
  for (let i = 0; i < picture.length; i++) picture[i] = Math.min(Math.max(picture[i] * (2 / 255) - 1, -1), 1);
}

function clampNormal(random: SceneRandom): number {
  return Math.min(Math.max(random.normal(), -2.5), 2.5);
}

/** Planar [-1, 1] values of one picture as interleaved 8-bit RGB. */
export function toRgb8(pixels: Float32Array, size: number, offset = 0): Uint8Array {
  const plane = size * size;
  const out = new Uint8ClampedArray(3 * plane);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) out[i * 3 + c] = (pixels[offset + c * plane + i] + 1) * 127.5;
  }
  return new Uint8Array(out.buffer);
}
