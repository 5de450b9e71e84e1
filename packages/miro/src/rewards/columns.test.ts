import { describe, expect, it } from "vitest";
import type { RgbImage } from "../pictures/rgb.js";
import { bestOf } from "./best-of.js";
import type { ColumnsScorer } from "./columns.js";
import { loadScorer, registerScorer, scorerSpec, scorerSpecs } from "./registry.js";

const flat = (value: number): RgbImage => ({ width: 2, height: 2, data: new Uint8Array(12).fill(value) });
/** Pictures and captions of each call of the model. */
const calls: [number, string][][] = [];
const life = { loaded: 0, disposed: 0 };
let extra: Record<string, number> = {};
const load: ColumnsScorer["load"] = async () => {
  life.loaded++;
  return {
    name: "two heads",
    batchSize: 2,
    truncates: (caption) => caption.length > 5,
    score: (images, captions) => {
      calls.push(images.map(({ data }, i) => [data[0]!, captions[i]!]));
      return images.map(({ data }, i) => ({ level: data[0]!, letters: captions[i]!.length, ...extra }));
    },
    dispose: () => void life.disposed++,
  };
};
registerScorer("heads", { columns: ["level", "letters"], stage: "vqa", load });

describe("a scorer of several columns", () => {
  const images = [1, 2, 3].map(flat);
  const captions = ["a", "bb", "a long one"];

  it("is a scorer for each of them, with one model and one pass for all", async () => {
    const level = await loadScorer("level");
    const letters = await loadScorer("letters");
    expect(life).toEqual({ loaded: 1, disposed: 0 });
    const both = await Promise.all([level.score(images, captions), letters.score(images, captions)]);
    expect(both).toEqual([
      [1, 2, 3],
      [1, 2, 10],
    ]);
    expect(calls.flat().sort()).toEqual([
      [1, "a"],
      [2, "bb"],
      [3, "a long one"],
    ]);
    expect(await letters.score([flat(1)], ["other"])).toEqual([5]);
    expect(calls.at(-1)).toEqual([[1, "other"]]);
    expect([level.name, captions.map((caption) => level.truncates!(caption))]).toEqual([
      "two heads",
      [false, false, true],
    ]);
    level.dispose();
    expect(life.disposed).toBe(0);
    letters.dispose();
    expect(life).toEqual({ loaded: 1, disposed: 1 });
    expect(scorerSpec("letters")).toMatchObject({ key: "letters", name: "heads", stage: "vqa", usesText: true });
  });

  it("whose model leaves a column out, or gives no object, says so; a value that is not finite is none", async () => {
    using letters = await loadScorer("letters");
    extra = { letters: undefined as never };
    await expect(letters.score([flat(4)], ["x"])).rejects.toThrow(
      /^letters: the scorer returned undefined, which is no/,
    );
    extra = { letters: Number.NaN };
    expect(await letters.scoreOrNull([flat(5)], ["x"])).toEqual([null]);
    extra = {};
    registerScorer("numbers", {
      columns: ["one", "two"],
      load: async () => ({ ...(await load({})), score: () => [7] as never }),
    });
    using one = await loadScorer("one");
    await expect(one.score([flat(6)], ["x"])).rejects.toThrow(/^numbers: the scorer returned 7 for a picture, not its/);
    await expect(one.score([flat(6), flat(7)], ["x", "y"])).rejects.toThrow(
      /^numbers: the scorer returned 1 values for 2/,
    );
  });

  it("is not scored with by its own key, which names its columns", async () => {
    await expect(loadScorer("heads")).rejects.toThrow(/^scorer: heads fills the columns level, letters; name these$/);
    await expect(bestOf({ generate: () => {} } as never, "x", { scorer: "heads" })).rejects.toThrow(
      /fills the columns/,
    );
    for (const key of ["heads", "level"]) expect(() => registerScorer(key, { load } as never)).toThrow(/no scorer has/);
    const before = scorerSpecs().length;
    for (const columns of [[], ["a", "a"], ["Level"], [1], "level", {}])
      expect(() => registerScorer("more", { columns, load } as never)).toThrow(
        /^more\.columns: expected different names/,
      );
    expect(() => registerScorer("more", { columns: ["fresh", "sharpness"], load })).toThrow(/no scorer has/);
    expect(scorerSpecs()).toHaveLength(before);
  });

  it("is one as any other with the column of its key alone", async () => {
    registerScorer("plain", {
      columns: ["plain"],
      usesText: false,
      load: async () => ({ name: "plain", batchSize: 9, score: (all) => all.map(() => 5) as never, dispose() {} }),
    });
    using plain = await loadScorer("plain");
    expect(await plain.score(images, [])).toEqual([5, 5, 5]);
  });
});
