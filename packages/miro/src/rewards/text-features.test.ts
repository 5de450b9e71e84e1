import { memory, scope, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { TextFeatures } from "./text-features.js";

describe("features of texts", () => {
  it("are those of each caption, encoded once while they are kept, and freed", () => {
    const calls: string[][] = [];
    const before = memory.stats();
    const texts = new TextFeatures((captions) => {
      calls.push([...captions]);
      return tensor(captions.map((caption) => [caption.length, 1]));
    });
    const of = (captions: string[]) => scope(() => texts.of(captions).toList());
    expect(of(["aa", "b", "aa"])).toEqual([
      [2, 1],
      [1, 1],
      [2, 1],
    ]);
    expect(of(["b", "cccc"])).toEqual([
      [1, 1],
      [4, 1],
    ]);
    expect(calls).toEqual([["aa", "b"], ["cccc"]]);
    // The ones that were not asked for longest go first.
    of(Array.from({ length: 254 }, (_, i) => `${i}`.padStart(9)));
    of(["b"]);
    expect(calls).toHaveLength(3);
    of(["aa"]);
    expect(calls.at(-1)).toEqual(["aa"]);
    texts.dispose();
    expect(memory.stats().liveTensors).toBe(before.liveTensors);
  });
});
