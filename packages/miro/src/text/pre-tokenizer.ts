/**
 * The `pre_tokenizer` object of a `tokenizer.json`: cuts normalised text into the words that the model sees. T5 has
 * `WhitespaceSplit` and then `Metaspace` (each word begins with "▁"), later conversions `Metaspace` alone.
 */
import { z } from "zod";
import { expectation } from "../expectations.js";
import { type Refuse, refuseUnion } from "./normalizer.js";
import { WHITE_SPACE } from "./whitespace.js";

/** A stretch of normalised text. */
export interface Word {
  text: string;
  /** Whether it begins where the original text begins (for `prepend_scheme: "first"`). */
  first: boolean;
}

export type PreTokenizer = (word: Word) => Word[];

/** `Metaspace` as pre-tokeniser or decoder. */
export const metaspaceSchema = z.object({
  type: z.literal("Metaspace"),
  replacement: z.string().refine((text) => [...text].length === 1, "one character"),
  /** Of files written before tokenizers 0.15. */
  add_prefix_space: z.boolean().optional(),
  prepend_scheme: z.enum(["always", "never", "first"]).optional(),
  split: z.boolean().optional(),
});

const schema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("Sequence"), pretokenizers: z.array(z.unknown()).max(64) }),
  z.object({ type: z.literal("WhitespaceSplit") }),
  metaspaceSchema,
]);

const MAX_DEPTH = 8;

/** When a word gets the mark in front. */
export function prependScheme(metaspace: z.infer<typeof metaspaceSchema>): "always" | "never" | "first" {
  return metaspace.prepend_scheme ?? (metaspace.add_prefix_space === false ? "never" : "always");
}

/**
 * Makes the function that a `pre_tokenizer` object describes.
 *
 * @param json the object, or null for none
 * @param path where it stands in the file, for messages
 */
export function compilePreTokenizer(json: unknown, path: string, refuse: Refuse, depth = 0): PreTokenizer {
  if (json === null || json === undefined) return (word) => [word];
  if (depth > MAX_DEPTH) throw refuse(path, `sequences nested at most ${MAX_DEPTH} deep`, "deeper ones");
  const parsed = schema.safeParse(json, { error: expectation });
  if (!parsed.success) throw refuseUnion(json, path, parsed.error, refuse);
  const preTokenizer = parsed.data;
  switch (preTokenizer.type) {
    case "Sequence": {
      const parts = preTokenizer.pretokenizers.map((part, i) =>
        compilePreTokenizer(part, `${path}.pretokenizers[${i}]`, refuse, depth + 1),
      );
      return (word) => parts.reduce((words, part) => words.flatMap(part), [word]);
    }
    case "WhitespaceSplit": {
      const space = new RegExp(`[${WHITE_SPACE}]+`);
      return ({ text, first }) => {
        const parts = text.split(space);
        return parts.flatMap((part, i) => (part === "" ? [] : [{ text: part, first: first && i === 0 }]));
      };
    }
    case "Metaspace": {
      const mark = preTokenizer.replacement;
      const scheme = prependScheme(preTokenizer);
      const split = preTokenizer.split ?? true;
      return ({ text, first }) => {
        let marked = text.replaceAll(" ", () => mark);
        if ((scheme === "always" || (scheme === "first" && first)) && !marked.startsWith(mark)) marked = mark + marked;
        if (!split) return [{ text: marked, first }];
        const words: Word[] = [];
        for (let start = 0; start < marked.length; ) {
          const next = marked.indexOf(mark, start + 1);
          const end = next < 0 ? marked.length : next;
          words.push({ text: marked.slice(start, end), first: first && start === 0 });
          start = end;
        }
        return words;
      };
    }
  }
}
