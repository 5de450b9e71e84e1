import { describe, expect, it } from "vitest";
import { Permutation } from "./permutation.js";
import { mixSeed, PERMUTATION_STREAMS, SAMPLE_DRAWS, streamSeed, TENSOR_STREAMS } from "./streams.js";

describe("mixSeed", () => {
  it("depends on every part and its place, and stays below 2^53", () => {
    const seeds = [mixSeed(1, 2), mixSeed(2, 1), mixSeed(1), mixSeed(1, 2, 0), mixSeed(1, 3)];
    expect(new Set(seeds).size).toBe(seeds.length);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
  });
});

describe("streams", () => {
  it("keep the numbers that stored runs were made with", () => {
    expect(streamSeed(3407, "initialWeights")).toBe(mixSeed(3407, 0));
    expect(streamSeed(3407, "rowNoise", 7, 2)).toBe(mixSeed(3407, 6, 7, 2));
    const order = (stream: keyof typeof PERMUTATION_STREAMS) => {
      const permutation = new Permutation(8, stream, [3407, 1, 0]);
      return Array.from({ length: 8 }, (_, i) => permutation.at(i));
    };
    expect(order("epochSamples")).toEqual([6, 7, 4, 1, 0, 5, 2, 3]);
    expect(order("epochShards")).not.toEqual(order("epochSamples"));
  });

  it("have numbers of their own wherever they can meet in one run", () => {
    const { partStep, ...ofTheNetwork } = TENSOR_STREAMS; // parts are trained in runs of their own
    for (const table of [ofTheNetwork, PERMUTATION_STREAMS, SAMPLE_DRAWS]) {
      const numbers = Object.values(table);
      expect(new Set(numbers).size).toBe(numbers.length);
    }
    expect(partStep).not.toBe(TENSOR_STREAMS.initialWeights);
  });
});
