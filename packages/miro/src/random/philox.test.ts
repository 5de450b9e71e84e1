import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { philox4x32, uniformAt } from "./philox.js";

describe("counter-based random numbers", () => {
  it.each([
    // Known answers of the authors' Random123 library, kat_vectors: philox4x32 with 10 rounds
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [-1, -1, -1, -1],
      [-1, -1],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as [[number, number, number, number], [number, number], number[]][])(
    "%j with key %j are the published ones",
    (counter, key, answer) => {
      expect(philox4x32(counter, key)).toEqual(answer);
    },
  );

  it("differ where any part of the key does", () => {
    const part = fc.nat({ max: 2 ** 31 });
    const key = fc.record({
      seed: part,
      epoch: part,
      sample: fc.maxSafeNat(),
      purpose: fc.constantFrom("caption" as const, "latent" as const),
    });
    fc.assert(
      fc.property(
        key,
        fc.constantFrom("seed" as const, "epoch" as const, "sample" as const, "purpose" as const),
        (key, name) => {
          const other = name === "purpose" ? (key.purpose === "caption" ? "latent" : "caption") : key[name] + 1;
          expect(uniformAt({ ...key, [name]: other })).not.toBe(uniformAt(key));
        },
      ),
    );
  });

  it("are uniform over samples", () => {
    const counts = new Array(16).fill(0);
    const draws = 64_000;
    for (let sample = 0; sample < draws; sample++)
      counts[Math.floor(uniformAt({ seed: 1, epoch: 0, sample, purpose: "caption" }) * 16)]++;
    const expected = draws / 16;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(37.7); // 0.1 % of uniform samples exceed it, 15 degrees of freedom
  });
});
