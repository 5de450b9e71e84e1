/** Texts through the tokenizer and the text encoder. */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { release } from "../flow/release.js";
import { copyStates, type TextStates } from "./conditioning.js";
import { breathe, orAborted } from "./interruption.js";
import type { PipelineParts, TextEncoder } from "./loading/parts.js";
import type { Plan } from "./plan.js";

/** Text encoder states of one prompt, and what of it exceeded the limit of tokens. */
export interface EncodedPrompt {
  /** (T, width) float32. */
  embeddings: Tensor;
  /** Number of real tokens. */
  length: number;
  /** "" where the whole prompt fits. */
  cut: string;
}

/** States of one prompt; the caller frees them. */
export function encodePrompt(
  { tokenizer, encoder }: TextEncoder,
  prompt: string,
  { config, device = "cpu" }: Pick<PipelineParts, "config" | "device">,
): EncodedPrompt {
  const padTo = config.network.concatCondTokenToLatents ? "maxLength" : "longest";
  return scope(() =>
    noGrad(() => {
      const batch = tokenizer.encodeBatch([prompt], { maxLength: config.settings.max_text_len, padTo });
      const states = encoder.forward(batch.ids.to({ device }), batch.mask.to({ device }));
      return {
        embeddings: states.select(0, 0).float(),
        length: batch.mask.sum().item() as number,
        cut: batch.overflow[0] ?? "",
      };
    }),
  );
}

/**
 * Text states by index of the prompt, of both branches; null where the checkpoint's empty text is the unconditional
 * one.
 */
export interface EncodedTexts {
  wanted: Map<number, TextStates>;
  unwanted: Map<number, TextStates> | null;
}

/** How {@link encodeTexts} encodes. */
export interface EncodeTextsOptions {
  /** Has the text encoder in memory, which other calls may wait for too. */
  load: () => Promise<unknown>;
  encode: (prompt: string) => Promise<EncodedPrompt>;
  /** Most tokens of a text, for the warning that one was cut. */
  limit: number;
  device: string;
  warn: (warning: string) => void;
}

/** States of the texts that the pictures `rows` of a plan need; equal ones are encoded once. The caller frees them. */
export async function encodeTexts(
  plan: Plan,
  rows: readonly number[],
  { load, encode, limit, device, warn }: EncodeTextsOptions,
): Promise<EncodedTexts> {
  const { prompts, negativePrompts, promptEmbeddings, signal } = plan;
  const needed = [...new Set(rows.map(plan.promptOf))];
  const distinct = new Map<string, TextStates>();
  const statesOf = async (text: string, what: string): Promise<TextStates> => {
    const known = distinct.get(text);
    if (known) return known;
    await breathe(signal);
    await orAborted(load(), signal);
    const { cut, ...states } = await encode(text);
    distinct.set(text, states);
    const begin = JSON.stringify(shortened(text));
    if (cut) warn(`the ${what} ${begin} is longer than ${limit} tokens; these words were cut: ${JSON.stringify(cut)}`);
    return states;
  };
  const wanted = new Map<number, TextStates>();
  const unwanted = new Map<number, TextStates>();
  try {
    for (const i of needed) {
      const given = promptEmbeddings?.[i];
      wanted.set(i, given ? copyStates(given, device) : await statesOf(prompts[i]!, "prompt"));
    }
    for (const i of negativePrompts ? needed : []) {
      unwanted.set(i, await statesOf(negativePrompts![i]!, "negative prompt"));
    }
    return { wanted, unwanted: negativePrompts && unwanted };
  } catch (error) {
    release([wanted, distinct]);
    throw error;
  }
}

/** The beginning of a text, for messages. */
function shortened(text: string): string {
  return text.length <= 60 ? text : `${[...text].slice(0, 57).join("")}…`;
}
