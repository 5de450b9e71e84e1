/**
 * The loss that matches pictures with captions (Radford et al. 2021, "Learning Transferable Visual Models From Natural
 * Language Supervision"), with captions that are wrong in a known way among the choices.
 *
 * Picture i of B has its caption Tᵢ; W are N·B more captions, wrong ones. With unit vectors I, T, W and a learned
 * temperature τ the loss is the mean of
 *
 *   −log softmax over [T; W] of (I · [T; W]ᵀ / τ) at Tᵢ      and      −log softmax over I of (T · Iᵀ / τ) at Iᵢ
 */
import { nn, type Tensor, tensor } from "@miro-t2i/torch";

const FIRST_TEMPERATURE = 0.07;
const LARGEST_SCALE = 100;

export class MatchingLoss extends nn.Module {
  /** log 1/τ, a single value. */
  readonly #logScale: Tensor;

  constructor() {
    super();
    this.#logScale = this.parameter("log_scale", tensor([Math.log(1 / FIRST_TEMPERATURE)]));
  }

  /**
   * @param pictures I, (B, D) unit vectors
   * @param captions [T; W], ((1 + N)·B, D) unit vectors
   * @returns the loss, and for the log how many pictures found their caption and 1/τ
   */
  forward(pictures: Tensor, captions: Tensor): { loss: Tensor; figures: Record<string, Tensor> } {
    const B = pictures.size(0);
    const scale = this.#logScale.clamp(null, Math.log(LARGEST_SCALE)).exp();
    const own = tensor(
      BigInt64Array.from({ length: B }, (_, i) => BigInt(i)),
      { device: pictures.device },
    );
    const byPicture = pictures.matmul(captions.t()).mul(scale);
    const byText = captions.narrow(0, 0, B).matmul(pictures.t()).mul(scale);
    const loss = nn.functional.crossEntropy(byPicture, own).add(nn.functional.crossEntropy(byText, own)).mul(0.5);
    return { loss, figures: { accuracy: byPicture.argmax(1).eq(own).float().mean(), scale } };
  }
}
