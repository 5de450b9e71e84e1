/** What a model of emoji scenes knows, for the file beside its weights. */
import type { VocabularyFile } from "../../text/vocabulary.js";
import { captionWords, simplePrompt } from "./captions.js";
import { type EmojiEntry, loadVocabulary } from "./vocabulary.js";

/** Words that captions lack and that change nothing. */
const HARMLESS = "the some this that is are it its with at one single big large please draw image photo";

/** The things and words of captions, and the characters that mean the things. */
export function vocabularyFile(entries: readonly EmojiEntry[]): VocabularyFile {
  return {
    things: entries.map((entry) => ({
      name: entry.label,
      phrase: simplePrompt(entry),
      plural: entry.plural,
      aliases: [...entry.aliases],
      related: entry.tags.filter((tag) => tag !== entry.label && !entry.aliases.includes(tag)),
      characters: [String.fromCodePoint(...entry.code.split("-").map((hex) => Number.parseInt(hex, 16)))],
    })),
    words: [...new Set([...captionWords(), ...HARMLESS.split(" ")])].sort(),
  };
}

/** The file's text for a vocabulary by name. */
export function releaseVocabulary(name: Parameters<typeof loadVocabulary>[0]): string {
  return `${JSON.stringify(vocabularyFile(loadVocabulary(name)))}\n`;
}
