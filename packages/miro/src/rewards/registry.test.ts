import { afterAll, describe, expect, it } from "vitest";
import type { RgbImage } from "../pictures/rgb.js";
import { loadScorer, registerScorer, scorerSpecs } from "./registry.js";
import { storedScore } from "./scorer.js";

const flat = (value: number, side = 4): RgbImage => ({
  width: side,
  height: side,
  data: new Uint8Array(side * side * 3).fill(value),
});

/** Calls of the probe's model, in order. */
const calls: { images: number; captions: number }[] = [];
let disposed = 0;
let answer = (images: readonly RgbImage[]): number[] => images.map((image) => image.data[0]!);
registerScorer({
  key: "probe_score",
  name: "first byte",
  description: "the first byte of the picture",
  stage: "rewards",
  usesText: true,
  load: async () => ({
    name: "first byte",
    batchSize: 3,
    score: (images, captions) => {
      calls.push({ images: images.length, captions: captions.length });
      return answer(images);
    },
    dispose: () => void disposed++,
  }),
});
const probe = await loadScorer("probe_score");
afterAll(() => probe.dispose());

describe("registry", () => {
  it("lists what is registered, and refuses a second scorer under one key", () => {
    const keys = scorerSpecs().map(({ key }) => key);
    expect(keys).toEqual(expect.arrayContaining(["sharpness", "colorfulness", "probe_score"]));
    expect(new Set(keys).size).toBe(keys.length);
    expect(() => registerScorer(scorerSpecs()[0]!)).toThrow(/key: expected one that no scorer has, received "/);
    expect(() => registerScorer({ ...scorerSpecs()[0]!, key: "No Column" })).toThrow(/lower-case letters/);
  });

  it("names the nearest keys for an unknown one, and a device that is not there", async () => {
    await expect(loadScorer("sharpnes")).rejects.toThrow(/"sharpnes" is not known; there are sharpness, /);
    await expect(loadScorer("sharpness", { device: "tpu" })).rejects.toThrow(/"tpu" is not available/);
    await expect(loadScorer("sharpness", { speed: 1 } as object)).rejects.toThrow(/speed: expected one of/);
  });
});

it("scores stand in data sets as their spec says", () => {
  expect(storedScore({ stored: { divisor: 4, offset: 2 } }, 0.5)).toBe(0.625);
  expect(storedScore({}, 0.5)).toBe(0.5);
});

describe("a loaded scorer", () => {
  it("works in chunks and keeps the order", async () => {
    calls.length = 0;
    const images = [5, 1, 4, 2, 3, 9, 7].map((value) => flat(value));
    expect(
      await probe.score(
        images,
        images.map(() => "x"),
      ),
    ).toEqual([5, 1, 4, 2, 3, 9, 7]);
    expect(calls).toEqual([3, 3, 1].map((n) => ({ images: n, captions: n })));
    expect(await probe.score([], [])).toEqual([]);
  });

  it("refuses counts, captions and pictures that do not fit", async () => {
    await expect(probe.score([flat(1)], [])).rejects.toThrow(/captions: expected one for each of 1 picture/);
    await expect(probe.score([flat(1)], [7 as unknown as string])).rejects.toThrow(/captions\[0\]: expected a text/);
    await expect(probe.score([{ ...flat(1), width: 5 }], ["x"])).rejects.toThrow(
      /images\[0\]\.data: expected 60 bytes/,
    );
    await expect(probe.score([{ width: 0, height: 4, data: new Uint8Array() }], ["x"])).rejects.toThrow(/at least 1/);
    const sharpness = await loadScorer("sharpness");
    expect(await sharpness.score([flat(1)], [])).toEqual([0]);
    await expect(sharpness.score([flat(1)], ["a", "b"])).rejects.toThrow(/captions/);
  });

  it("never returns a value that is not finite, nor too few", async () => {
    const before = answer;
    answer = (images) => images.map((_, i) => (i === 1 ? Number.NaN : 1));
    await expect(
      probe.score(
        [1, 2, 3].map((v) => flat(v)),
        ["", "", ""],
      ),
    ).rejects.toThrow(/probe_score: the score of picture 1 is NaN/);
    const three = [1, 2, 3].map((v) => flat(v));
    expect(await probe.scoreOrNull(three, ["", "", ""])).toEqual([1, null, 1]);
    answer = () => [];
    await expect(probe.score([flat(1)], [""])).rejects.toThrow(/returned 0 values for 1 picture/);
    answer = before;
  });

  it("says once that its weights are not for commercial use", async () => {
    const license = { name: "CC-BY-NC-4.0", nonCommercial: true };
    registerScorer({ ...scorerSpecs().find(({ key }) => key === "probe_score")!, key: "bound_score", license });
    const told: string[] = [];
    const onMessage = (text: string) => told.push(text);
    for (const key of ["bound_score", "probe_score", "bound_score"]) (await loadScorer(key, { onMessage })).dispose();
    expect(told).toEqual(["bound_score: its weights are not for commercial use (CC-BY-NC-4.0)"]);
  });

  it("stops between chunks when the signal is aborted", async () => {
    const stop = new AbortController();
    const before = answer;
    answer = (images) => {
      stop.abort();
      return images.map(() => 0);
    };
    calls.length = 0;
    const images = Array.from({ length: 9 }, () => flat(0));
    const captions = images.map(() => "");
    await expect(probe.score(images, captions, { signal: stop.signal })).rejects.toThrow();
    expect(calls).toHaveLength(1);
    answer = before;
  });
});
