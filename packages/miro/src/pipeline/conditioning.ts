/**
 * What the pictures of a batch are asked for: text states and reward targets of both branches, through the network's
 * conditioning.
 */
import { noGrad, scope, Tensor, tensor, zeros } from "@miro-t2i/torch";
import { invalid } from "../errors.js";
import { message } from "../message.js";
import { type Conditioning, narrowConditioning } from "../networks/conditioning.js";
import type { Rin } from "../networks/rin.js";
import { counted } from "../numbers.js";
import type { RewardTargets } from "./picture-options.js";

/** Text encoder states of one prompt. */
export interface TextStates {
  /** (T, width) float32. */
  embeddings: Tensor;
  /** Number of real tokens, `</s>` included; the states behind them are of padding. All T when absent. */
  length?: number;
  /** (T,) bool, true at real tokens; instead of `length`. */
  mask?: Tensor;
}

/** Text states as a caller gives them: `(tokens, width)`, all of them real, or with what is real among them. */
export type PromptEmbedding = Tensor | TextStates;

/**
 * The conditioning of both branches (2B rows, conditional half first) and of the conditional one, where a run needs
 * them.
 */
export interface Branches {
  both: Conditioning | null;
  conditional: Conditioning | null;
}

/** @throws InvalidInputError where a tensor that the caller gave holds NaN or an infinite value */
export function checkFinite(parameter: string, given: Tensor): void {
  if (!scope(() => given.isfinite().all().item()))
    throw invalid(parameter, "finite values", message`others among them`);
}

/** @param paddedTokens number of states where the network attends padding, else null */
export function checkEmbeddings(
  parameter: string,
  given: readonly PromptEmbedding[],
  prompts: number,
  width: number,
  paddedTokens: number | null,
): void {
  if (given.length !== prompts) {
    throw invalid(
      parameter,
      `one tensor for each of ${counted(prompts, "prompt")}`,
      message`${counted(given.length, "tensor")}`,
    );
  }
  for (const item of given) {
    const { embeddings, length, mask } = statesOf(item);
    const [T = 0] = embeddings.shape;
    if (embeddings.ndim !== 2 || embeddings.size(1) !== width || T === 0) {
      throw invalid(parameter, `shape (tokens, ${width})`, message`(${embeddings.shape.join(", ")})`);
    }
    if (paddedTokens !== null && T !== paddedTokens) {
      throw invalid(
        parameter,
        `${counted(paddedTokens, "token")}, padding included, because this network attends padded text`,
        T,
      );
    }
    checkFinite(parameter, embeddings);
    if (length !== undefined && !(length >= 1 && length <= T))
      throw invalid(`${parameter}.length`, `1 to ${T}`, length);
    if (mask && (mask.ndim !== 1 || mask.size(0) !== T || mask.dtype !== "bool")) {
      throw invalid(`${parameter}.mask`, `shape (${T}) of bool`, message`(${mask.shape.join(", ")}) of ${mask.dtype}`);
    }
  }
}

function statesOf(given: PromptEmbedding): TextStates {
  return given instanceof Tensor ? { embeddings: given } : given;
}

/** A copy of given states on a device, float32; the caller frees it. */
export function copyStates(given: PromptEmbedding, device: string): TextStates {
  const { embeddings, length, mask } = statesOf(given);
  return scope(() => ({
    embeddings: embeddings.detach().to({ device, dtype: "float32" }).clone(),
    ...(length !== undefined && { length }),
    ...(mask && { mask: mask.to({ device }).clone() }),
  }));
}

/** What {@link condition} is asked for: one item for each picture. */
export interface ConditionOptions {
  network: Rin;
  texts: readonly TextStates[];
  wanted: readonly RewardTargets[];
  /** Texts and targets of the unconditional branch. */
  unwantedTexts: readonly TextStates[];
  unwanted: readonly RewardTargets[];
  /** Which evaluations of the run are guided. */
  guided: { any: boolean; all: boolean };
  device: string;
  /**
   * Pads the texts to a multiple of so many tokens, which nothing attends, so that texts of different lengths give
   * tensors of few shapes. Networks that attend padding get theirs as it is.
   */
  padTo?: number;
}

/**
 * Text and rewards of a batch, through everything that does not depend on the step: both branches as 2B rows, and the
 * conditional one alone, as far as the run needs them. The caller frees the result.
 */
export function condition(options: ConditionOptions): Branches {
  const { network, texts, wanted, unwantedTexts, unwanted, guided, device } = options;
  const { labelDim, concatCondTokenToLatents } = network.config;
  const padTo = concatCondTokenToLatents ? undefined : options.padTo;
  return scope(() =>
    noGrad(() => {
      const all = guided.any ? [...texts, ...unwantedTexts] : texts;
      const targets = guided.any ? [...wanted, ...unwanted] : wanted;
      // Where padding is attended, how much there is of it must not depend on whether a step is guided.
      const alongside = concatCondTokenToLatents ? [...texts, ...unwantedTexts] : all;
      const tokens = Math.max(...alongside.map(({ embeddings }) => embeddings.size(0)));
      const longest = padTo === undefined ? tokens : Math.ceil(tokens / padTo) * padTo;
      const textEmbeddings = zeros([all.length, longest, labelDim], { device });
      const textMask = zeros([all.length, longest], { dtype: "bool", device });
      for (const [row, { embeddings, length, mask }] of all.entries()) {
        const T = embeddings.size(0);
        textEmbeddings.select(0, row).narrow(0, 0, T).copy_(embeddings);
        if (mask) textMask.select(0, row).narrow(0, 0, T).copy_(mask);
        else
          textMask
            .select(0, row)
            .narrow(0, 0, length ?? T)
            .fill_(true);
      }
      const column = (key: string) =>
        tensor(
          targets.map((target) => target[key] ?? Number.NaN),
          { dtype: "float32", device },
        );
      const rewards = Object.fromEntries(Object.keys(targets[0]!).map((key) => [key, column(key)]));
      const keepPadding = padTo !== undefined;
      const conditioning = network.condition({ textEmbeddings, textMask, rewards }, { keepPadding });
      if (!guided.any) return { both: null, conditional: conditioning };
      return {
        both: conditioning,
        conditional: guided.all ? null : narrowConditioning(conditioning, 0, texts.length),
      };
    }),
  );
}
