import { scope, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { MatchingLoss } from "./matching.js";

/** Unit vectors by their angles. */
const unit = (angles: readonly number[]) => angles.map((angle) => [Math.cos(angle), Math.sin(angle)]);
const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
/** −log softmax at a place. */
const crossEntropy = (logits: readonly number[], at: number) =>
  Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits[at]!;
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

describe("the loss that matches pictures with captions", () => {
  const pictures = unit([0, 1, 2]);
  const captions = unit([0.2, 0.9, 2.5]);
  const wrong = unit([0.05, 1.4, 2.1]);

  /** The loss, and what it says of itself, for a value of log 1/τ or the first one. */
  function lossOf(logScale?: number) {
    const module = new MatchingLoss();
    const result = scope(() => {
      if (logScale !== undefined) module.loadStateDict({ log_scale: tensor([logScale]) });
      const { loss, figures } = module.forward(tensor(pictures), tensor([...captions, ...wrong]));
      return { loss: loss.item(), accuracy: figures.accuracy!.item(), scale: figures.scale!.item() };
    });
    module.dispose();
    return result;
  }

  /** The formula: wrong captions are among the choices of a picture, not of a caption. */
  function expected(scale: number) {
    const logits = (from: readonly number[], to: readonly number[][]) => to.map((one) => scale * dot(from, one));
    const byPicture = pictures.map((picture, i) => crossEntropy(logits(picture, [...captions, ...wrong]), i));
    const byText = captions.map((caption, i) => crossEntropy(logits(caption, pictures), i));
    return (mean(byPicture) + mean(byText)) / 2;
  }

  it("is the mean of both directions, at the temperature that it begins with", () => {
    const { loss, scale, accuracy } = lossOf();
    expect(scale).toBeCloseTo(1 / 0.07, 4);
    expect(loss).toBeCloseTo(expected(1 / 0.07), 4);
    expect(accuracy).toBeCloseTo(1 / 3, 6); // two pictures lie nearer to wrong captions
  });

  it("has a temperature that falls to 1/100 and no lower", () => {
    expect(lossOf(Math.log(50)).loss).toBeCloseTo(expected(50), 3);
    expect(lossOf(Math.log(1000))).toEqual(lossOf(Math.log(100)));
    expect(lossOf(Math.log(1000)).scale).toBeCloseTo(100, 3);
  });
});
