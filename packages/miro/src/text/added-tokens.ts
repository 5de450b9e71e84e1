/**
 * The `added_tokens` of a `tokenizer.json` (`</s>`, `<pad>`, `<extra_id_0>`, …): strings that are found in the text
 * before, or where they ask for it after, normalisation and become one token each.
 */
import { WHITE_SPACE } from "./whitespace.js";

export interface AddedToken {
  id: number;
  content: string;
  /** Only where no word character stands beside it. */
  single_word: boolean;
  /** Takes the white space before it along. */
  lstrip: boolean;
  /** Takes the white space behind it along. */
  rstrip: boolean;
  /** Looked for in the normalised text, in its own normalised form. */
  normalized: boolean;
  /** Left out when decoding. */
  special: boolean;
}

/** A token as those that begin, end or pad a text are: found as it is written. */
export function specialToken(id: number, content: string): AddedToken {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

/** A stretch of text between added tokens, or one of them. */
export type Segment = { start: number; text: string } | { token: AddedToken };

/** Rust's Unicode-aware `\w`. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
const WORD_END = new RegExp(`[${WORD}]$`, "u");
const WORD_START = new RegExp(`^[${WORD}]`, "u");
const SPACE = new RegExp(`[${WHITE_SPACE}]`);

/** Finds a set of added tokens: the leftmost, and of those the longest. */
export class AddedTokenFinder {
  readonly #expression: RegExp | undefined;
  readonly #byContent = new Map<string, AddedToken>();

  /** @param contentOf what to look for, the content itself or its normalised form */
  constructor(tokens: readonly AddedToken[], contentOf: (token: AddedToken) => string = (token) => token.content) {
    for (const token of tokens) {
      const content = contentOf(token);
      if (content !== "" && !this.#byContent.has(content)) this.#byContent.set(content, token);
    }
    const contents = [...this.#byContent.keys()].sort((a, b) => b.length - a.length);
    if (contents.length > 0)
      this.#expression = new RegExp(
        contents.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|"),
        "gu",
      );
  }

  /** Cuts a text at its added tokens; empty stretches are left out. */
  split(text: string): Segment[] {
    if (!this.#expression) return text === "" ? [] : [{ start: 0, text }];
    const segments: Segment[] = [];
    let position = 0;
    /** The end of the white space that was looked through last, so that a long run is looked through once. */
    let spaceEnd = 0;
    const upTo = (end: number) => {
      if (end > position) segments.push({ start: position, text: text.slice(position, end) });
    };
    for (const match of text.matchAll(this.#expression)) {
      const token = this.#byContent.get(match[0])!;
      let start = match.index;
      let end = start + match[0].length;
      if (token.single_word) {
        // Two code units hold the neighbouring character.
        if (WORD_END.test(text.slice(Math.max(0, start - 2), start)) || WORD_START.test(text.slice(end, end + 2)))
          continue;
      }
      if (token.lstrip) {
        while (start > position && SPACE.test(text[start - 1]!)) start--;
        start = Math.max(start, position);
      }
      if (token.rstrip) {
        end = Math.max(end, spaceEnd);
        while (end < text.length && SPACE.test(text[end]!)) end++;
        spaceEnd = end;
      }
      // All of it lies in the white space that the token before took along.
      if (start >= end) continue;
      upTo(start);
      segments.push({ token });
      position = end;
    }
    upTo(text.length);
    return segments;
  }
}
