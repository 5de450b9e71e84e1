/** The empty prompt, which takes the place of dropped texts. */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
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
