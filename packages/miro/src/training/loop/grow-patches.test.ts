import { manualSeed, scope, type Tensor } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import { parseRinConfig } from "../../networks/config.js";
import { Rin } from "../../networks/rin.js";
import { tinyRecipeJson } from "../testing/tiny.js";
import { growPatches, growsInto } from "./grow-patches.js";

const config = (patchSize: number, dataSize = 8) =>
  parseRinConfig({ ...(tinyRecipeJson().network as object), data_size: dataSize, patch_size: patchSize });
const list = (t: Tensor) => t.detach().flatten().toList() as number[];

it("gives each small patch the mean of the large one's parts, and a place between the large ones' places", () => {
  scope(() => {
    manualSeed(0);
    const [large, small] = [new Rin(config(4)), new Rin(config(2))];
    const weights = large.stateDict();
    const grown = growPatches(weights, large.config, small.config);
    small.loadStateDict(grown);
    // Features of a patch are ordered (row, column, channel); of row 1, column 0, channel 2 in each quadrant:
    const [C, feature] = [small.config.numInputChannels, (row: number, column: number, P: number) => row * P + column];
    const parts = [0, 2].flatMap((top) => [0, 2].map((left) => C * feature(top + 1, left, 4) + 2));
    const at = C * feature(1, 0, 2) + 2;
    const extractor = weights.get("patch_extractor.weight")!;
    const mean = parts.reduce((sum, part) => sum + list(extractor.select(1, part))[5]!, 0) / 4;
    expect(list(grown.get("patch_extractor.weight")!.select(1, at))[5]).toBeCloseTo(2 * mean, 5);
    const output = weights.get("map_tokens_to_patches.1.weight")!;
    const written = parts.reduce((sum, part) => sum + list(output.select(0, part))[3]!, 0) / 4;
    expect(list(grown.get("map_tokens_to_patches.1.weight")!.select(0, at))[3]).toBeCloseTo(written, 5);
    // 2 × 2 places become 4 × 4: the corners stay, the second of a row is a quarter of the way.
    const [before, after] = [weights.get("data_pos_embedding")!, grown.get("data_pos_embedding")!];
    expect(after.shape).toEqual([16, before.size(1)]);
    for (const [place, corner] of [0, 3, 12, 15].entries())
      expect(list(after.select(0, corner))[0]).toBeCloseTo(list(before.select(0, place))[0]!, 5);
    const [a, b] = [list(before.select(0, 0))[1]!, list(before.select(0, 1))[1]!];
    expect(list(after.select(0, 1))[1]).toBeCloseTo(0.75 * a + 0.25 * b, 5);
    // Everything else is the same tensor, and nothing is missing.
    expect([...grown.keys()].sort()).toEqual([...small.stateDict().keys()].sort());
    expect(grown.get("latents")).toBe(weights.get("latents"));
  });
});

it("is for smaller patches of the same latents only", () => {
  expect(growsInto(config(4), config(2))).toBe(true);
  expect(growsInto(config(4), config(1))).toBe(true);
  expect(growsInto(config(2), config(2))).toBe(false);
  expect(growsInto(config(2), config(4))).toBe(false);
  expect(growsInto(config(4), config(2, 4))).toBe(false);
});
