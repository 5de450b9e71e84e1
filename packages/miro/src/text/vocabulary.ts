/**
 * What a small model knows: `vocabulary.json` beside its `config.json` lists the things that it draws and the other
 * words of its captions. Prompts with other words are told, and a character that stands for a thing, such as an emoji,
 * means its name. Models of open text have no such file.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { parseJsonFile } from "../files/json-file.js";
import { editDistance } from "../nearest.js";
import { shortened } from "../printable.js";

/** Name of the file in a model's folder. */
export const VOCABULARY_FILE = "vocabulary.json";

const name = z.string().min(1).max(100);
const vocabularySchema = z.strictObject({
  /** The things that can be drawn. */
  things: z
    .array(
      z.strictObject({
        name,
        /** With its article: `a red apple`. */
        phrase: name,
        plural: name,
        /** Other names of it that captions use. */
        aliases: z.array(name).max(100),
        /** Words that people say for it and the model does not know: `puppy`, `happy`. */
        related: z.array(name).max(100),
        /** The characters that mean it. */
        characters: z.array(z.string().min(1).max(32)).max(16),
      }),
    )
    .min(1)
    .max(100_000),
  /** Words of captions that name no thing: articles, numbers, colours, places. */
  words: z.array(name).max(100_000),
});

/** What {@link VOCABULARY_FILE} holds. */
export type VocabularyFile = z.output<typeof vocabularySchema>;

type Thing = VocabularyFile["things"][number];

/** Most known names that a warning proposes for a word. */
const PROPOSALS = 3;

/** The words and characters that a model knows. */
export class Vocabulary {
  readonly #things: readonly Thing[];
  readonly #words: ReadonlySet<string>;
  readonly #byCharacter = new Map<string, Thing>();
  readonly #character: RegExp | null;

  constructor({ things, words }: VocabularyFile) {
    this.#things = things;
    const names = things.flatMap(({ name, phrase, plural, aliases }) => [name, phrase, plural, ...aliases]);
    this.#words = new Set([...names, ...words].flatMap(wordsOf));
    for (const thing of things) for (const character of thing.characters) this.#byCharacter.set(bare(character), thing);
    // Longer ones first: some begin with another.
    const characters = [...this.#byCharacter.keys()].sort((a, b) => b.length - a.length);
    this.#character =
      characters.length === 0
        ? null
        : new RegExp(
            `(${characters.map((one) => one.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|")})\\ufe0f?`,
            "gu",
          );
  }

  /**
   * The vocabulary of a model's folder, null where it has none.
   * @throws InvalidInputError for a file that is none
   */
  static of(folder: string): Vocabulary | null {
    const path = join(folder, VOCABULARY_FILE);
    return existsSync(path) ? new Vocabulary(parseJsonFile(path, vocabularySchema)) : null;
  }

  /** Number of things. */
  get size(): number {
    return this.#things.length;
  }

  /** A text with names in place of characters: `🦊 on a red background` is `a fox on a red background`. */
  named(text: string): string {
    if (this.#character === null) return text;
    let out = "";
    let at = 0;
    for (const [i, { thing, start, end, count }] of this.#runsIn(text, this.#character).entries()) {
      const between = text.slice(at, start);
      const isBlank = between.trim() === "";
      const before = i > 0 && isBlank ? " and " : between;
      // Behind "a", "three small" and the like the bare name follows.
      const alone = isBlank || /(?:,|\band|\bof|\bto|\babove|\bbelow|\bunder)$/i.test(between.trimEnd());
      const words = count > 1 ? `${NUMBERS[count] ?? count} ${thing.plural}` : alone ? thing.phrase : thing.name;
      out += before + (/[\p{L}\p{N}]$/u.test(before) ? " " : "") + words;
      at = end;
      if (/^[\p{L}\p{N}]/u.test(text.slice(at))) out += " ";
    }
    return out + text.slice(at);
  }

  /** Runs of one character, with where they begin and end. */
  #runsIn(text: string, character: RegExp): { thing: Thing; start: number; end: number; count: number }[] {
    const runs: { thing: Thing; start: number; end: number; count: number }[] = [];
    for (const { 0: found, 1: name, index: start } of text.matchAll(character)) {
      const thing = this.#byCharacter.get(name!)!;
      const end = start + found.length;
      const last = runs.at(-1);
      if (last?.thing === thing && text.slice(last.end, start).trim() === "") {
        last.count++;
        last.end = end;
      } else runs.push({ thing, start, end, count: 1 });
    }
    return runs;
  }

  /** What the model does not know of some texts, in one line with the nearest names; null where it knows all words. */
  warning(texts: readonly string[], model: string): string | null {
    const words = new Set([...new Set(texts)].flatMap((text) => wordsOf(this.named(text))));
    const unknown = [...words].filter((word) => !this.#knows(word));
    if (unknown.length === 0) return null;
    const told = unknown.slice(0, 8).map((word) => {
      const names = this.#near(word);
      const near = names.length === 0 ? "" : ` (it knows ${names.join(", ")})`;
      return `"${shortened(word)}"${near}`;
    });
    const more = unknown.length > told.length ? ` and ${unknown.length - told.length} more words` : "";
    return `${model} draws ${this.#things.length} things and does not know ${told.join(", ")}${more}; what it draws for them is by chance`;
  }

  #knows(word: string): boolean {
    return this.#words.has(word) || this.#words.has(`${word}s`) || this.#words.has(word.replace(/(?:e?s|'s)$/, ""));
  }

  /** Names that people may have meant by a word. */
  #near(word: string): string[] {
    const stem = word.replace(/s$/, "");
    const related = this.#things.filter((thing) => thing.related.some((one) => one === word || one === stem));
    const names = this.#things.flatMap(({ name, aliases }) => [name, ...aliases]);
    const spelt = names
      .map((name) => ({ name, distance: Math.min(...wordsOf(name).map((other) => misspelling(word, other))) }))
      .filter(({ distance }) => distance <= mostEdits(word))
      .sort((a, b) => a.distance - b.distance || a.name.length - b.name.length)
      .map(({ name }) => name);
    return [...new Set([...related.map(({ name }) => name), ...spelt])].slice(0, PROPOSALS);
  }
}

const NUMBERS = ["", "one", "two", "three", "four", "five"];

/** How far a known word may be from a misspelt one: short words are near to too many others. */
const mostEdits = (word: string) => (word.length < 3 ? 0 : word.length < 6 ? 1 : 2);

/** How far a word is from another; near where it is its beginning or its end: `berry` and `strawberry`. */
function misspelling(word: string, other: string): number {
  const isPart = word.length > 4 && (other.startsWith(word) || other.endsWith(word));
  return isPart ? 1 : editDistance(word, other, mostEdits(word));
}

function bare(character: string): string {
  return character.replace(/\ufe0f$/, "");
}

/** The words of a text in lower case, and the pictographs among them. */
function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}]+(?:['’][\p{L}]+)?|\p{Extended_Pictographic}/gu) ?? [];
}
