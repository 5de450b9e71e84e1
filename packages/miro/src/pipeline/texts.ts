/** Texts through the tokenizer and the text encoder. */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { release } from "../flow/release.js";
import { shortened } from "../printable.js";
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

/** Most characters of the words that were cut that a warning quotes. */
const CUT_SHOWN = 1000;

/** Most prompts in one batch of the text encoder: bounds the memory of its scores. */
const MOST_TOGETHER = 32;

/**
 * Prompts that the text encoder is given at once. On a CPU one: its states are the reference's, and do not depend on
 * what else a call draws. A GPU needs as long to be given one prompt as a batch, whose shape changes the last bits.
 */
export function promptsTogether(device: string, deterministic: boolean): number {
  return device === "cpu" || deterministic ? 1 : MOST_TOGETHER;
}

/** States of prompts, in one batch; the caller frees them. */
export function encodePrompts(
  { tokenizer, encoder }: TextEncoder,
  prompts: readonly string[],
  { config, device = "cpu" }: Pick<PipelineParts, "config" | "device">,
): EncodedPrompt[] {
  const padTo = config.network.concatCondTokenToLatents ? "maxLength" : "longest";
  return scope(() =>
    noGrad(() => {
      const batch = tokenizer.encodeBatch(prompts, { maxLength: config.settings.max_text_len, padTo });
      const states = encoder.forward(batch.ids.to({ device }), batch.mask.to({ device }));
      const lengths = batch.mask.sum(1).toList() as number[];
      return prompts.map((_, row) => {
        const length = lengths[row]!;
        const own = states.select(0, row).float();
        return {
          // Alone a prompt is the longest of its batch; beside longer ones it has padding that is none of its own.
          embeddings: prompts.length === 1 || padTo === "maxLength" ? own : own.narrow(0, 0, length).clone(),
          length,
          cut: batch.overflow[row] ?? "",
        };
      });
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
  /** Encodes so many prompts at once as it is given. */
  encode: (prompts: readonly string[]) => Promise<EncodedPrompt[]>;
  /** Most prompts that are encoded at once. */
  together: number;
  /** Most tokens of a text, for the warning that one was cut. */
  limit: number;
  device: string;
  /** Hears of a text that was cut, and of which pictures it is. */
  warn: (warning: string, rows: readonly number[]) => void;
}

/** States of the texts that the pictures `rows` of a plan need; equal ones are encoded once. The caller frees them. */
export async function encodeTexts(
  plan: Plan,
  rows: readonly number[],
  { load, encode, together, limit, device, warn }: EncodeTextsOptions,
): Promise<EncodedTexts> {
  const { prompts, negativePrompts, promptEmbeddings, signal } = plan;
  const needed = [...new Set(rows.map(plan.promptOf))];
  /** What each text is, for messages. */
  const kinds = new Map<string, string>();
  const note = (text: string, kind: string) => void (kinds.has(text) || kinds.set(text, kind));
  for (const i of needed) if (!promptEmbeddings?.[i]) note(prompts[i]!, "prompt");
  for (const i of negativePrompts ? needed : []) note(negativePrompts![i]!, "negative prompt");
  const distinct = new Map<string, TextStates>();
  const wanted = new Map<number, TextStates>();
  const unwanted = new Map<number, TextStates>();
  try {
    const texts = [...kinds.keys()];
    for (let first = 0; first < texts.length; first += together) {
      await breathe(signal);
      await orAborted(load(), signal);
      const own = texts.slice(first, first + together);
      for (const [i, { cut, ...states }] of (await encode(own)).entries()) {
        const text = own[i]!;
        distinct.set(text, states);
        if (!cut) continue;
        const named = `the ${kinds.get(text)} ${JSON.stringify(shortened(text))}`;
        const has = (row: number) => [prompts, negativePrompts].some((of) => of?.[plan.promptOf(row)] === text);
        const quoted = JSON.stringify(shortened(cut, CUT_SHOWN));
        warn(`${named} is longer than ${limit} tokens; these words were cut: ${quoted}`, rows.filter(has));
      }
    }
    for (const i of needed) {
      const given = promptEmbeddings?.[i];
      wanted.set(i, given ? copyStates(given, device) : distinct.get(prompts[i]!)!);
      if (negativePrompts) unwanted.set(i, distinct.get(negativePrompts[i]!)!);
    }
    return { wanted, unwanted: negativePrompts && unwanted };
  } catch (error) {
    release([wanted, distinct]);
    throw error;
  }
}
