/**
 * Words for scenes: named colours, number and size words, relations, background phrases and sentence templates.
 * `describeScene` is true to the scene that it is given; `scenes.ts` makes wrong captions by describing another scene.
 */
import { articleOf, takesArticle } from "./grammar.js";
import type { SceneRandom } from "./random.js";
import type { EmojiEntry } from "./vocabulary.js";

export type Rgb = readonly [red: number, green: number, blue: number];

/** The background colours that captions can name, white aside. 8-bit sRGB. */
export const NAMED_COLOURS = {
  red: [222, 52, 52],
  orange: [245, 140, 40],
  yellow: [250, 220, 60],
  green: [56, 168, 74],
  blue: [45, 105, 225],
  purple: [138, 66, 200],
  pink: [247, 150, 196],
  brown: [134, 84, 52],
  grey: [150, 150, 150],
  black: [20, 20, 20],
  "light blue": [168, 216, 248],
  "light green": [184, 236, 174],
  "dark blue": [24, 36, 104],
  "dark green": [18, 82, 50],
  "dark red": [122, 20, 30],
  turquoise: [50, 198, 190],
  beige: [238, 222, 188],
  lavender: [204, 188, 244],
} as const satisfies Record<string, Rgb>;

export type ColourName = keyof typeof NAMED_COLOURS;
export const COLOUR_NAMES = Object.keys(NAMED_COLOURS) as ColourName[];
export const WHITE: Rgb = [255, 255, 255];

/** Hues of re-tinted sprites: the colour that a fully saturated pixel takes, each channel in [0, 1]. */
export const TINTS = {
  red: [1, 0.08, 0.1],
  orange: [1, 0.52, 0.05],
  yellow: [1, 0.86, 0.1],
  green: [0.15, 0.8, 0.2],
  blue: [0.12, 0.4, 1],
  purple: [0.6, 0.2, 1],
  pink: [1, 0.5, 0.8],
} as const satisfies Record<string, Rgb>;

export type TintName = keyof typeof TINTS;
export const TINT_NAMES = Object.keys(TINTS) as TintName[];

/** What is behind the objects. `mentioned` says whether the caption speaks of it; white usually goes unsaid. */
export type Background =
  | { readonly kind: "white"; readonly mentioned: boolean }
  | { readonly kind: "named"; readonly colour: ColourName; readonly mentioned: true }
  | { readonly kind: "gradient"; readonly top: ColourName; readonly bottom: ColourName; readonly mentioned: true };

/** How the objects of a pair may stand; "and" says nothing of their places. */
export const RELATIONS = ["left", "right", "above", "below", "and"] as const;
export type Relation = (typeof RELATIONS)[number];

/** What a caption says: the content of a scene without its geometry. */
export interface SceneContent {
  readonly kind: "one" | "small" | "count" | "pair";
  /** One entry, two for pairs. */
  readonly entries: readonly EmojiEntry[];
  /** A tint for each entry, or null for its own colours. */
  readonly tints: readonly (TintName | null)[];
  /** How many of the first entry; 2 to 5 for counts, else 1. */
  readonly count: number;
  /** Where the first entry is, seen from the second; pairs only. */
  readonly relation: Relation | null;
  readonly background: Background;
}

export interface CaptionOptions {
  /** Share of object names taken from the entry's aliases where it has any. */
  readonly aliasShare: number;
}

const NUMBER_WORDS = ["", "one", "two", "three", "four", "five"];
const SIZE_WORDS = ["small", "little", "tiny"] as const;
const RELATION_PHRASES: Readonly<Record<Relation, readonly string[]>> = {
  left: ["to the left of", "left of"],
  right: ["to the right of", "right of"],
  above: ["above", "on top of"],
  below: ["below", "under"],
  and: ["and", "next to"],
};

/** The words of captions that name no thing. */
export function captionWords(): string[] {
  const phrases = [
    ...COLOUR_NAMES,
    ...TINT_NAMES,
    ...NUMBER_WORDS.slice(1),
    "2 3 4 5 white a an",
    ...SIZE_WORDS,
    ...Object.values(RELATION_PHRASES).flat(),
    "on in front of against with from to background gradient",
    "a picture of a 3d emoji of an icon of",
  ];
  return [...new Set(phrases.flatMap((phrase) => phrase.split(" ")))].sort();
}

/** A caption that is true of `content`; wording drawn from `random`. */
export function describeScene(content: SceneContent, random: SceneRandom, options: CaptionOptions): string {
  const objects = content.entries.map((entry, i) => objectPhrase(content, entry, i, random, options));
  const body =
    content.relation === null
      ? objects[0]
      : `${objects[0]} ${random.pick(RELATION_PHRASES[content.relation])} ${objects[1]}`;
  const background = backgroundPhrase(content.background, random);
  const template = random.weighted({ plain: 0.7, picture: 0.1, emoji: 0.1, icon: 0.1 });
  const lead = { plain: "", picture: "a picture of ", emoji: "a 3d emoji of ", icon: "an icon of " }[template];
  return `${lead}${body}${background}`;
}

/** "a red apple", "three small foxes", "a blue star": article or number, size word, tint word, name. */
function objectPhrase(
  content: SceneContent,
  entry: EmojiEntry,
  index: number,
  random: SceneRandom,
  options: CaptionOptions,
): string {
  const useAlias = random.chance(options.aliasShare) && entry.aliases.length > 0 && content.kind !== "count";
  const bareName = random.chance(0.1);
  const numberAsDigit = random.chance(0.2);
  const sizeWord = random.pick(SIZE_WORDS);
  const alias = random.uniform();
  const adjectives: string[] = [];
  if (content.kind === "small") adjectives.push(sizeWord);
  const tint = content.tints[index] ?? null;
  if (tint !== null) adjectives.push(tint);
  if (content.kind === "count") {
    return [numberAsDigit ? String(content.count) : NUMBER_WORDS[content.count]!, ...adjectives, entry.plural].join(
      " ",
    );
  }
  const name = useAlias ? entry.aliases[Math.floor(alias * entry.aliases.length)]! : entry.label;
  const words = [...adjectives, name].join(" ");
  return bareName || !takesArticle(name) ? words : `${articleOf(words)} ${words}`;
}

function backgroundPhrase(background: Background, random: SceneRandom): string {
  const form = random.below(5);
  if (!background.mentioned) return "";
  if (background.kind === "gradient") {
    const colours = `${background.top} to ${background.bottom}`;
    return [
      ` on ${articleOf(colours)} ${colours} gradient background`,
      ` on ${articleOf(colours)} ${colours} gradient`,
      ` with a gradient background from ${colours}`,
      ` against a gradient from ${colours}`,
      `, ${colours} gradient background`,
    ][form]!;
  }
  const colour = background.kind === "white" ? "white" : background.colour;
  const article = articleOf(colour);
  return [
    ` on ${article} ${colour} background`,
    ` in front of ${article} ${colour} background`,
    ` against ${article} ${colour} background`,
    ` with ${article} ${colour} background`,
    `, ${colour} background`,
  ][form]!;
}

/** The plain sentence of the retrieval test and of default sheets: "a red apple on a light blue background". */
export function simplePrompt(entry: EmojiEntry, colour?: ColourName | "white"): string {
  return nameOf(entry) + onColour(colour);
}

/** One thing by another of its names: "an apple". */
export function aliasPrompt(alias: string): string {
  return takesArticle(alias) ? `${articleOf(alias)} ${alias}` : alias;
}

/** "three red apples on a light blue background"; with a count of 1 the plain sentence. */
export function countPrompt(entry: EmojiEntry, count: number, colour?: ColourName | "white"): string {
  return count === 1 ? simplePrompt(entry, colour) : `${NUMBER_WORDS[count]} ${entry.plural}${onColour(colour)}`;
}

/** "a fox to the left of cherries on a light blue background" */
export function pairPrompt(
  [first, second]: readonly [EmojiEntry, EmojiEntry],
  relation: Relation,
  colour?: ColourName | "white",
): string {
  return `${nameOf(first)} ${RELATION_PHRASES[relation][0]} ${nameOf(second)}${onColour(colour)}`;
}

function nameOf({ article, label }: EmojiEntry): string {
  return article === "" ? label : `${article} ${label}`;
}

function onColour(colour: ColourName | "white" | undefined): string {
  return colour === undefined ? "" : ` on ${articleOf(colour)} ${colour} background`;
}
