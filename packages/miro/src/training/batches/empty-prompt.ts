/** The empty prompt, which takes the place of dropped texts. */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import { readNpy } from "@miro-t2i/torch/io";
import { InvalidInputError } from "../../errors.js";
import { uncondStates } from "../../pipeline/loading/checkpoint.js";
import type { T5Encoder } from "../../text/t5.js";
import type { Tokenizer } from "../../text/tokenizer.js";

/** Its text states (tokens, width); the caller owns them. */
export function encodedEmptyPrompt(
  { tokenizer, encoder }: { tokenizer: Tokenizer; encoder: T5Encoder },
  maxLength: number,
  device: string,
): Tensor {
  return scope(() => {
    const { ids, mask } = tokenizer.encodeBatch([""], { maxLength, padTo: "longest" });
    const states = noGrad(() => encoder.forward(ids.to({ device }), mask.to({ device })));
    return states.select(0, 0).contiguous().keep();
  });
}

/**
 * Its text states from the file that `data.uncond_embedding` names, (tokens, width) float32; the caller owns them.
 * @throws InvalidInputError when they do not fit the network; MiroError when the file cannot be read
 */
export function storedEmptyPrompt(path: string, width: number, device = "cpu"): Tensor {
  return scope(() => {
    const fail = (problem: string) => new InvalidInputError(`data.uncond_embedding: ${path}: ${problem}`);
    return uncondStates(readNpy(path), width, fail).to({ device }).contiguous().keep();
  });
}
