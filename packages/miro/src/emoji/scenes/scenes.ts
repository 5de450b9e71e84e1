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
  type TintName,
  WHITE,
} from "./captions.js";
import { blockCode, blur, desaturate } from "./degrade.js";
import { SceneRandom } from "./random.js";
import { compose, type PlacedObject, toUnitRange } from "./render.js";
import {
  type EmojiRewardKey,
  type EmojiSceneOptions,
  emojiSceneOptionsSchema,
  type ResolvedSceneOptions,
} from "./scene-options.js";
import { loadSprites, type Sprite } from "./sprites.js";
import { type EmojiEntry, isEveryday, loadVocabulary } from "./vocabulary.js";
import { alter, makeWrong, type SceneSource, WRONG_WAYS, type WrongWay } from "./wrong-captions.js";

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

/** Side of a thing in its portrait, share of the picture's: the largest size that sprites are kept at. */
const PORTRAIT_SIDE = 0.92;

const GEOMETRY_STREAM = 0;
const CAPTION_STREAM = 1;
const DAMAGE_STREAM = 2;
/** The first of one stream for each way to be wrong. */
const WRONG_STREAM = 3;

/**
 * The things that scenes of these options show, without their pictures.
 * @throws InvalidInputError for options that no scene can be drawn with, and where the package of pictures is missing
 */
export function vocabularyOf({ vocabulary: selection, everyday }: ResolvedSceneOptions): readonly EmojiEntry[] {
  const vocabulary = loadVocabulary(selection);
  if (everyday > 0 && vocabulary.filter(({ label }) => isEveryday(label)).length < 2)
    throw invalid("scenes.everyday", "0 where the vocabulary has fewer than two everyday names", everyday);
  return vocabulary;
}

export class EmojiScenes {
  readonly options: ResolvedSceneOptions;
  readonly vocabulary: readonly EmojiEntry[];
  readonly #sprites: readonly Sprite[];
  /** Indices in the vocabulary of the everyday names it has. */
  readonly #everyday: readonly number[];

  private constructor(options: ResolvedSceneOptions, vocabulary: readonly EmojiEntry[], sprites: readonly Sprite[]) {
    this.options = options;
    this.vocabulary = vocabulary;
    this.#sprites = sprites;
    this.#everyday = vocabulary.flatMap(({ label }, index) => (isEveryday(label) ? [index] : []));
  }

  /** Loads names and sprites (a second on the first call for a vocabulary, then from the cache). */
  static async load(options: EmojiSceneOptions = {}): Promise<EmojiScenes> {
    const resolved = emojiSceneOptionsSchema.parse(options);
    const vocabulary = vocabularyOf(resolved);
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
      const wrong = makeWrong(content, words, this.#source);
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
        const value = scene.top[c]! + ((scene.bottom[c]! - scene.top[c]!) * (y + 0.5)) / size;
        picture.fill(value, c * plane + y * size, c * plane + (y + 1) * size);
      }
    }
    for (const object of scene.objects) compose(object, this.#sprites[object.entryIndex]!, size, picture);
    if (scene.degradation !== null) {
      const { kind, amount } = scene.degradation;
      ({ blur, blocks: blockCode, desaturate })[kind](picture, size, amount);
    }
    toUnitRange(picture);
  }

  /** Draws one thing alone, as large as fits, on mid grey: three planes of size × size values in [-1, 1]. */
  renderPortrait(entryIndex: number, tint: TintName | null, out: Float32Array): void {
    out.fill(127.5);
    const portrait = { entry: this.vocabulary[entryIndex]!, entryIndex, x: 0.5, y: 0.5, side: PORTRAIT_SIDE, tint };
    compose(portrait, this.#sprites[entryIndex]!, this.size, out);
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
    const kind = drawnKind === "count" && vocabulary[first]!.article === "" ? "one" : drawnKind;
    const indices = kind === "pair" ? [first, second] : [first];
    const tints = indices.map((i) => {
      const tint = random.pick(TINT_NAMES);
      return random.chance(options.tint) && sprites[i]!.tintable ? tint : null;
    });
    const count = 2 + random.below(4);
    const relation = random.pick(RELATIONS);
    return {
      indices,
      content: {
        kind,
        entries: indices.map((i) => vocabulary[i]!),
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
    if (kind === "named") return { kind, colour: COLOUR_NAMES[first]!, mentioned: true };
    return { kind, top: COLOUR_NAMES[first]!, bottom: COLOUR_NAMES[second]!, mentioned: true };
  }

  #place(content: SceneContent, indices: readonly number[], random: SceneRandom): PlacedObject[] {
    const { kind, count } = content;
    const { jitter } = this.options;
    const side = { one: 0.82, small: 0.42, count: count === 5 ? 0.3 : 0.4, pair: 0.45 }[kind];
    const centres =
      kind === "count"
        ? COUNT_LAYOUTS[count]!
        : kind === "pair"
          ? PAIR_LAYOUTS[content.relation!]
          : ([[0.5, 0.5]] as const);
    const scale = Math.min(Math.max(1 + jitter.scale * random.normal(), 0.9), 1.1);
    return centres.map(([x, y], i) => {
      const at = kind === "pair" ? i : 0;
      return {
        entry: content.entries[at]!,
        entryIndex: indices[at]!,
        x: x + jitter.position * clampNormal(random),
        y: y + jitter.position * clampNormal(random),
        side: side * scale,
        tint: content.tints[at] ?? null,
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

  /**
   * A caption that is wrong about a scene in one way; depends on the options, the scene and the way only.
   * @param way one of {@link wrongWays}
   */
  wrongCaption(scene: Scene, way: WrongWay): string {
    const random = new SceneRandom(this.options.seed, scene.index, WRONG_STREAM + WRONG_WAYS.indexOf(way));
    return describeScene(alter(scene, way, random, this.#source), random, this.options);
  }

  get #source(): SceneSource {
    return { vocabulary: this.vocabulary, draw: (random) => this.#drawContent(random).content };
  }
}

function clampNormal(random: SceneRandom): number {
  return Math.min(Math.max(random.normal(), -2.5), 2.5);
}
