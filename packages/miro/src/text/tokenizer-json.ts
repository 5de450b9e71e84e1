/**
 * Reads a `tokenizer.json` (Hugging Face tokenizers, version "1.0") with a Unigram model. Strict: what is missing, of
 * the wrong type or not supported is refused with one line that names the place, so that no file yields wrong tokens
 * silently.
 */
import { z } from "zod";
import { invalid } from "../errors.js";
import { expectation } from "../expectations.js";
import type { AddedToken } from "./added-tokens.js";
import { compileNormalizer, type Normalizer, type Refuse, refuseUnion } from "./normalizer.js";
import { compilePreTokenizer, metaspaceSchema, type PreTokenizer, prependScheme } from "./pre-tokenizer.js";
import { UnigramModel } from "./unigram.js";

/** Everything that a tokeniser consists of. */
export interface TokenizerParts {
  addedTokens: AddedToken[];
  normalize: Normalizer;
  preTokenize: PreTokenizer;
  model: UnigramModel;
  /** Ids that go before and behind every text. */
  template: { prefix: number[]; suffix: number[] };
  decoder: { replacement: string; dropFirst: boolean };
}

/** Bounds that no real tokeniser comes near. */
const MAX_PIECES = 4_000_000;
const MAX_PIECE_LENGTH = 4096;
const MAX_ADDED_TOKENS = 10_000;
/** Characters of all added tokens, which one regular expression finds: tens of millions end the process. */
const MAX_ADDED_LENGTH = 2 ** 20;

const flag = z.boolean();
const addedTokenSchema = z.object({
  id: z.int().nonnegative(),
  content: z.string().min(1).max(MAX_PIECE_LENGTH),
  single_word: flag,
  lstrip: flag,
  rstrip: flag,
  normalized: flag,
  special: flag,
});

const fileSchema = z.object({
  version: z.literal("1.0").optional(),
  added_tokens: z.array(addedTokenSchema).max(MAX_ADDED_TOKENS).default([]),
  normalizer: z.unknown(),
  pre_tokenizer: z.unknown(),
  post_processor: z.unknown(),
  decoder: z.unknown(),
  model: z.looseObject({
    type: z.literal("Unigram").optional(),
    unk_id: z.int().nonnegative(),
    vocab: z.array(z.unknown()).min(1).max(MAX_PIECES),
    byte_fallback: flag.default(false),
  }),
});

const templatePart = z.union([
  z.object({ SpecialToken: z.object({ id: z.string() }) }),
  z.object({ Sequence: z.object({ id: z.enum(["A", "B"]) }) }),
]);
const templateSchema = z.object({
  type: z.literal("TemplateProcessing"),
  single: z.array(templatePart).max(64),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.int().nonnegative()).max(64) })),
});

/**
 * Checks and compiles the content of a `tokenizer.json`.
 *
 * @param json the parsed file
 * @param source the file's name, for messages
 * @throws InvalidInputError naming the file, the place in it, what is needed and what stands there
 */
export function parseTokenizerJson(json: unknown, source: string): TokenizerParts {
  const refuse: Refuse = (path, expected, received) => invalid(`${source}: ${path}`, expected, received);
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw refuse("content", "a JSON object", json);
  const type = (json as { model?: { type?: unknown } }).model?.type;
  if (type !== undefined && type !== "Unigram")
    throw refuse("model.type", '"Unigram" (as the tokenizers of T5 and XLM-RoBERTa have)', type);
  const parsed = fileSchema.safeParse(json, { error: expectation });
  if (!parsed.success) throw refuseUnion(json, "", parsed.error, (path, ...rest) => refuse(path.slice(1), ...rest));
  const file = parsed.data;

  const vocabulary = readVocabulary(file.model.vocab, refuse);
  if (file.model.unk_id >= vocabulary.length)
    throw refuse("model.unk_id", `an index into the ${vocabulary.length} pieces`, file.model.unk_id);
  const model = new UnigramModel(vocabulary, file.model.unk_id, file.model.byte_fallback);
  const addedTokens = checkAddedTokens(file.added_tokens, model, refuse);
  const normalize = compileNormalizer(file.normalizer, "normalizer", refuse);
  const addedLength = addedTokens.reduce(
    (sum, { content, normalized }) => sum + (normalized ? normalize(content) : content).length,
    0,
  );
  if (addedLength > MAX_ADDED_LENGTH)
    throw refuse("added_tokens", `at most ${MAX_ADDED_LENGTH} characters in all of them together`, addedLength);
  return {
    addedTokens,
    normalize,
    preTokenize: compilePreTokenizer(file.pre_tokenizer, "pre_tokenizer", refuse),
    model,
    template: readTemplate(file.post_processor, refuse),
    decoder: readDecoder(file.decoder, refuse),
  };
}

function readVocabulary(entries: unknown[], refuse: Refuse): [string, number][] {
  return entries.map((entry, id) => {
    const place = `model.vocab[${id}]`;
    if (!Array.isArray(entry) || entry.length !== 2) throw refuse(place, "[piece, score]", entry);
    const [piece, score] = entry as unknown[];
    if (typeof piece !== "string" || piece.length > MAX_PIECE_LENGTH || !isWellFormed(piece))
      throw refuse(`${place}[0]`, `Unicode text of at most ${MAX_PIECE_LENGTH} characters`, piece);
    if (typeof score !== "number" || !Number.isFinite(score)) throw refuse(`${place}[1]`, "a finite number", score);
    return [piece, score];
  });
}

/** Ids are implied by the content: those of the vocabulary, then counting on. A file that says otherwise is damaged. */
function checkAddedTokens(tokens: AddedToken[], model: UnigramModel, refuse: Refuse): AddedToken[] {
  let next = model.vocabulary.length;
  const seen = new Set<string>();
  for (const [i, token] of tokens.entries()) {
    const place = `added_tokens[${i}]`;
    if (!isWellFormed(token.content)) throw refuse(`${place}.content`, "Unicode text", token.content);
    if (seen.has(token.content)) throw refuse(`${place}.content`, "a token that was not added before", token.content);
    seen.add(token.content);
    const id = model.idOf(token.content) ?? next++;
    if (token.id !== id) throw refuse(`${place}.id`, `${id}, the place of ${JSON.stringify(token.content)}`, token.id);
  }
  return tokens;
}

function readTemplate(json: unknown, refuse: Refuse): { prefix: number[]; suffix: number[] } {
  if (json === null || json === undefined) return { prefix: [], suffix: [] };
  const kind = (json as { type?: unknown }).type;
  if (kind !== "TemplateProcessing") throw refuse("post_processor.type", '"TemplateProcessing"', kind);
  const parsed = templateSchema.safeParse(json, { error: expectation });
  if (!parsed.success) throw refuseUnion(json, "post_processor", parsed.error, refuse);
  const prefix: number[] = [];
  const suffix: number[] = [];
  let texts = 0;
  for (const [i, part] of parsed.data.single.entries()) {
    if ("Sequence" in part) {
      texts++;
    } else {
      const name = part.SpecialToken.id;
      if (!Object.hasOwn(parsed.data.special_tokens, name))
        throw refuse(`post_processor.single[${i}]`, "a token listed in special_tokens", name);
      (texts === 0 ? prefix : suffix).push(...parsed.data.special_tokens[name]!.ids);
    }
  }
  if (texts !== 1) throw refuse("post_processor.single", "the text once", `it ${texts} times`);
  return { prefix, suffix };
}

function readDecoder(json: unknown, refuse: Refuse): TokenizerParts["decoder"] {
  const parsed = metaspaceSchema.safeParse(json, { error: expectation });
  if (!parsed.success) throw refuseUnion(json, "decoder", parsed.error, refuse);
  return { replacement: parsed.data.replacement, dropFirst: prependScheme(parsed.data) !== "never" };
}

function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
