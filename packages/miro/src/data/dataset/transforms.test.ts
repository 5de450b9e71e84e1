import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canBeSynthetic, drawsSynthetic } from "./caption-source.js";
import { cleanCaption } from "./clean-caption.js";
import { hasFilter, passesFilter } from "./filters.js";
import { sizeCacheName } from "./size-cache.js";

describe("a cleaned caption", () => {
  it("lacks <PERSON> and nothing else", () => {
    expect(cleanCaption("a <PERSON> and <PERSON>")).toBe("a  and ");
    expect(cleanCaption("<PERSON>")).toBe("");
    expect(cleanCaption(" <person> < PERSON> ")).toBe(" <person> < PERSON> ");
  });
});

describe("the filter", () => {
  const options = { minImageSize: 256, clipFilterThreshold: 0.25, aestheticThreshold: 0.5 };
  const good = { width: 256, height: 300, clip_score: 0.25, aesthetic_score: 0.5 };
  const passes = (sample: Record<string, number>, filter = options) =>
    passesFilter({ value: (_, column) => sample[column] ?? Number.NaN }, 0, filter);

  it("passes what has every size and score", () => {
    expect(passes(good)).toBe(true);
    for (const bad of [{ width: 255 }, { height: 255 }, { clip_score: 0.249 }, { aesthetic_score: 0.49 }])
      expect(passes({ ...good, ...bad })).toBe(false);
  });

  it("takes a missing score for 0 and passes what has no size, as published", () => {
    const without = { ...good, clip_score: Number.NaN };
    expect(passes(without)).toBe(false);
    expect(passes(without, { ...options, clipFilterThreshold: 0 })).toBe(true);
    expect(passes({ ...without, height: Number.NaN })).toBe(true);
  });

  it("names the file of its count as the published code does", () => {
    expect(sizeCacheName({ minImageSize: 256, clipFilterThreshold: 0, aestheticThreshold: 0 })).toBe(
      "total_size_256_0_0_0_0.json",
    );
    expect(sizeCacheName({ ...options, aestheticThreshold: 5.5 })).toBe("total_size_256_0_25_5_5.json");
  });

  it("is absent where all are 0 alone: a negative threshold refuses samples too", () => {
    const none = { minImageSize: 0, clipFilterThreshold: 0, aestheticThreshold: 0 };
    expect(hasFilter(none)).toBe(false);
    for (const some of [{ minImageSize: 1 }, { aestheticThreshold: 0.1 }, { clipFilterThreshold: -0.5 }])
      expect(hasFilter({ ...none, ...some })).toBe(true);
    expect(passes({ ...good, clip_score: -0.4 }, none)).toBe(true);
    expect(passes({ ...good, clip_score: -0.6 }, { ...none, clipFilterThreshold: -0.5 })).toBe(false);
  });
});

describe("the caption of a sample", () => {
  const unknown = Number.NaN;

  it("can be synthetic only where scores for it exist too, unless scores stay original", () => {
    const sample = { original: [0.1, 0.2], synthetic: [0.3, unknown], hasSyntheticText: true };
    expect(canBeSynthetic(sample, "paired")).toBe(false);
    expect(canBeSynthetic(sample, "original")).toBe(true);
    expect(canBeSynthetic({ ...sample, original: [0.1, unknown] }, "paired")).toBe(true);
    expect(canBeSynthetic({ ...sample, synthetic: [0.3, 0.4] }, "paired")).toBe(true);
    expect(canBeSynthetic({ ...sample, synthetic: [0.3, 0.4], hasSyntheticText: false }, "original")).toBe(false);
  });

  it("is drawn with the given probability, anew in each epoch", () => {
    const draws = (epoch: number) => Array.from({ length: 4000 }, (_, sample) => drawsSynthetic(0.3, 7, epoch, sample));
    const share = (list: boolean[]) => list.filter(Boolean).length / list.length;
    const [first, second] = [draws(0), draws(1)];
    expect(Math.abs(share(first) - 0.3)).toBeLessThan(0.029); // four standard deviations
    expect(Math.abs(share(first.map((drawn, i) => drawn && second[i]!)) - 0.09)).toBeLessThan(0.018);
    expect(draws(0)).toEqual(first);
  });

  it("is never synthetic with probability 0 and always with 1", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.nat(), fc.maxSafeNat(), (seed, epoch, sample) => {
        expect(drawsSynthetic(0, seed, epoch, sample)).toBe(false);
        expect(drawsSynthetic(1, seed, epoch, sample)).toBe(true);
      }),
    );
  });
});
