/** Captions that are wrong about a scene: in which ways they can be, what is then said, and how true it still is. */
import { type Background, COLOUR_NAMES, type Relation, type SceneContent } from "./captions.js";
import type { SceneRandom } from "./random.js";
import type { EmojiEntry } from "./vocabulary.js";

/** `clip_score` of captions that are wrong in one respect (1 is a true caption, 0 that of another scene). */
const WRONG_SCORES = { scene: 0, objectOfOne: 0.25, objectOfTwo: 0.5, background: 0.6, count: 0.6, relation: 0.6 };

const OPPOSITE: Readonly<Record<Relation, Relation>> = {
  left: "right",
  right: "left",
  above: "below",
  below: "above",
  and: "and",
};

/** Respects in which a caption can be wrong about a scene. */
export const WRONG_WAYS = ["scene", "object", "background", "size", "count", "relation"] as const;
/** One of {@link WRONG_WAYS}. */
export type WrongWay = (typeof WRONG_WAYS)[number];

/** What scenes are made of. */
export interface SceneSource {
  vocabulary: readonly EmojiEntry[];
  /** Draws the content of a scene. */
  draw: (random: SceneRandom) => SceneContent;
}

/** Content that is not true of `content`, and the alignment that is left. */
export function makeWrong(
  content: SceneContent,
  random: SceneRandom,
  source: SceneSource,
): { content: SceneContent; score: number } {
  const ways: (keyof typeof WRONG_SCORES)[] = ["scene", content.kind === "pair" ? "objectOfTwo" : "objectOfOne"];
  if (content.background.mentioned) ways.push("background");
  if (content.kind === "count") ways.push("count");
  if (content.relation !== null && content.relation !== "and") ways.push("relation");
  const drawn = random.pick(ways);
  const way = drawn === "objectOfOne" || drawn === "objectOfTwo" ? "object" : drawn;
  return { content: alter(content, way, random, source), score: WRONG_SCORES[drawn] };
}

/** The ways in which a caption can be wrong about this scene and say as much as a true one. */
export function wrongWays({ kind, relation }: SceneContent): WrongWay[] {
  const ways: WrongWay[] = ["scene", "object", "background"];
  if (kind === "one" || kind === "small") ways.push("size");
  if (kind === "count") ways.push("count");
  if (relation !== null && relation !== "and") ways.push("relation");
  return ways;
}

/** Content that differs from `content` in one way. */
export function alter(content: SceneContent, way: WrongWay, random: SceneRandom, source: SceneSource): SceneContent {
  switch (way) {
    case "scene": {
      let other = source.draw(random);
      while (other.entries.some((entry) => content.entries.includes(entry))) {
        other = source.draw(random);
      }
      return other;
    }
    case "object": {
      const at = random.below(content.entries.length);
      const others = source.vocabulary.filter(
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
