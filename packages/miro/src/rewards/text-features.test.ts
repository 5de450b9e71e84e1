import { memory, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { TextFeatures } from "./text-features.js";

describe("features of texts", () => {
  it("are those of each caption, encoded once while they are kept, and freed", async () => {
    const calls: string[][] = [];
    const before = memory.stats();
    const texts = new TextFeatures(async (captions) => {
      calls.push([...captions]);
      return tensor(captions.map((caption) => [caption.length, 1]));
    });
    const of = async (captions: string[]) => {
      using features = await texts.of(captions);
      return features.toList();
    };
    expect(await of(["aa", "b", "aa"])).toEqual([
      [2, 1],
      [1, 1],
      [2, 1],
    ]);
    expect(await of(["b", "cccc"])).toEqual([
      [1, 1],
      [4, 1],
    ]);
    expect(calls).toEqual([["aa", "b"], ["cccc"]]);
    // The ones that were not asked for longest go first.
    await of(Array.from({ length: 254 }, (_, i) => `${i}`.padStart(9)));
    await of(["b"]);
    expect(calls).toHaveLength(3);
    await of(["aa"]);
    expect(calls.at(-1)).toEqual(["aa"]);
    texts.dispose();
    expect(memory.stats().liveTensors).toBe(before.liveTensors);
  });
});
