import { describe, expect, it } from "vitest";
import { Tokenizer } from "../../text/tokenizer.js";
import { trainCaptionTokenizer } from "./caption-tokenizer.js";

const corpus = [
  ["a red apple on a light blue background", 20],
  ["two Christmas trees, dark green background", 10],
  ["a picture of an octopus above a T-Rex", 10],
] as const;

describe("trainCaptionTokenizer", () => {
  const tokenizer = Tokenizer.fromJson(trainCaptionTokenizer(corpus, 120));

  it.each([
    ["A Red Apple on a light blue background.", "a red apple on a light blue background"],
    ["TWO CHRISTMAS TREES!", "two christmas trees"],
    ["a t-rex?!", "a T-Rex"],
  ])("reads %s as %s", (text, same) => {
    expect(tokenizer.encode(text)).toEqual(tokenizer.encode(same));
    expect(tokenizer.encode(text)).not.toContain(tokenizer.unknownId);
  });

  it("keeps commas, which set the background apart", () => {
    expect(tokenizer.encode("trees, green")).not.toEqual(tokenizer.encode("trees green"));
  });
});
