/**
 * Does a model draw what it is asked for? A classifier that was trained on renders alone (`classifier.ts`) names what
 * it sees, top-1 and top-5, and the corners' colour must be nearest to the colour that was asked for, among all named
 * colours and white.
 *
 * Each name is asked for in the plain form ("a fox") and on a named background; other forms are other names of the same
 * things ("an apple" for the red one) and the sentences of the training ("an icon of a fox against a red background").
 */
import type { RgbImage } from "../../pictures/rgb.js";
import {
  aliasPrompt,
  COLOUR_NAMES,
  type ColourName,
  describeScene,
  NAMED_COLOURS,
  simplePrompt,
  WHITE,
} from "../scenes/captions.js";
import { SceneRandom } from "../scenes/random.js";
import { type EmojiEntry, isEveryday, loadVocabulary } from "../scenes/vocabulary.js";
import { backgroundColour, distance, nearestColour } from "./backgrounds.js";
import type { EmojiClassifier } from "./classifier.js";
import { toBatch } from "./picture-batch.js";

/** What a prompt asks for. */
export interface Asked {
  prompt: string;
  label: string;
  colour: ColourName | "white";
}

/** Shares of pictures whose thing the classifier names. */
export interface NamedShares {
  pictures: number;
  top1: number;
  top5: number;
}

export interface RetrievalScore extends NamedShares {
  /** Share of pictures whose background is nearest to the colour that was asked for. */
  background: number;
  /** Mean distance between the background and that colour, in levels of 8-bit sRGB. */
  backgroundDistance: number;
  /** By CLDR's groups, and of the everyday things. */
  groups: Record<string, NamedShares>;
  /** What was taken for something else: "fox → cat face". */
  confusions: string[];
}

/** What the classifier and the corners say of one picture. */
export interface Judged {
  label: string;
  /** The five likeliest names. */
  named: readonly string[];
  /** Distance of the background from the colour that was asked for, in levels of 8-bit sRGB. */
  distance: number;
  /** Whether the background is that which was asked for. */
  rightBackground: boolean;
}

/** Names of the groups that core names come from. */
export const GROUPS: Readonly<Record<number, string>> = {
  0: "smileys",
  3: "animals and nature",
  4: "food",
  5: "travel and places",
  6: "activities",
  7: "objects",
};

/** Streams of random numbers, so that drawing one thing leaves the others as they are. */
const ALIAS_STREAM = 20;
const SENTENCE_STREAM = 21;

/** "a fox" for each name: white is behind what says nothing of its background. */
export function askedPlainly(labels: readonly string[]): Asked[] {
  return loadVocabulary(labels).map((entry) => ({
    prompt: simplePrompt(entry),
    label: entry.label,
    colour: "white",
  }));
}

/** "a fox on a red background" for each name, with the colours in turn. */
export function askedOnColours(labels: readonly string[]): Asked[] {
  return loadVocabulary(labels).map((entry, i) => {
    const colour = colourInTurn(i);
    return { prompt: simplePrompt(entry, colour), label: entry.label, colour };
  });
}

/** "an apple" for each name that has others, one of them. */
export function askedByAlias(labels: readonly string[], seed: number): Asked[] {
  return loadVocabulary(labels).flatMap(({ label, aliases }, i) =>
    aliases.length === 0
      ? []
      : [
          {
            prompt: aliasPrompt(new SceneRandom(seed, i, ALIAS_STREAM).pick(aliases)),
            label,
            colour: "white" as const,
          },
        ],
  );
}

/** Each name in a sentence of the training, on a named background: "an icon of a fox against a red background". */
export function askedInSentences(labels: readonly string[], seed: number): Asked[] {
  return loadVocabulary(labels).map((entry, i) => {
    const colour = colourInTurn(i);
    const background = { kind: "named", colour, mentioned: true } as const;
    const content = { kind: "one", entries: [entry], tints: [null], count: 1, relation: null, background } as const;
    const random = new SceneRandom(seed, i, SENTENCE_STREAM);
    return { prompt: describeScene(content, random, { aliasShare: 0 }), label: entry.label, colour };
  });
}

/** A named colour for the i-th thing: neighbours get different ones, and every colour its turn. */
export function colourInTurn(i: number): ColourName {
  return COLOUR_NAMES[(7 * i) % COLOUR_NAMES.length]!;
}

/** Names what a picture shows. */
export function judge(image: RgbImage, { label, colour }: Asked, classifier: EmojiClassifier): Judged {
  const batch = toBatch([image]);
  const [guesses] = classifier.classify(batch) as [number[]];
  batch.dispose();
  const found = backgroundColour(image);
  return {
    label,
    named: guesses.map((index) => classifier.config.labels[index]!),
    distance: distance(found, colour === "white" ? WHITE : NAMED_COLOURS[colour]),
    rightBackground: nearestColour(found) === colour,
  };
}

/** Figures of pictures that were judged. */
export function summariseRetrieval(judged: readonly Judged[]): RetrievalScore {
  const entries = new Map(loadVocabulary("core").map((entry) => [entry.label, entry]));
  const groups = new Map<string, Judged[]>();
  for (const one of judged) {
    for (const name of groupsOf(entries.get(one.label))) groups.set(name, [...(groups.get(name) ?? []), one]);
  }
  return {
    ...namedShares(judged),
    background: shareOf(judged, ({ rightBackground }) => rightBackground),
    backgroundDistance: judged.reduce((sum, { distance }) => sum + distance, 0) / judged.length,
    groups: Object.fromEntries([...groups].map(([name, list]) => [name, namedShares(list)])),
    confusions: judged.flatMap(({ label, named }) => (named[0] === label ? [] : [`${label} → ${named[0]}`])),
  };
}

function groupsOf(entry: EmojiEntry | undefined): string[] {
  if (entry === undefined) return [];
  return [GROUPS[entry.group]!, ...(isEveryday(entry.label) ? ["everyday"] : [])];
}

function namedShares(judged: readonly Judged[]): NamedShares {
  return {
    pictures: judged.length,
    top1: shareOf(judged, ({ label, named }) => named[0] === label),
    top5: shareOf(judged, ({ label, named }) => named.includes(label)),
  };
}

/** Share of a list that passes; NaN of an empty one. */
export function shareOf<T>(list: readonly T[], test: (item: T) => boolean): number {
  return list.filter(test).length / list.length;
}
