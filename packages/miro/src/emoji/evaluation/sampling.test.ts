import fc from "fast-check";
import { expect, it } from "vitest";
import { sampleEvenly } from "./sampling.js";

it("takes items from all over a list, each once and in order, and others for another seed", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 220 }), fc.nat(), (length, count, seed) => {
      const items = Array.from({ length }, (_, i) => i);
      const sample = sampleEvenly(items, count, seed);
      expect(sample).toHaveLength(Math.min(length, count));
      const part = length / sample.length;
      for (const [i, item] of sample.entries()) {
        expect(item).toBeGreaterThanOrEqual(Math.floor(i * part));
        expect(item).toBeLessThan((i + 1) * part);
        if (i > 0) expect(item).toBeGreaterThan(sample[i - 1]!);
      }
      expect(sampleEvenly(items, count, seed)).toEqual(sample);
    }),
  );
  const hundred = Array.from({ length: 100 }, (_, i) => i);
  expect(sampleEvenly(hundred, 10, 0)).not.toEqual(sampleEvenly(hundred, 10, 1));
});
