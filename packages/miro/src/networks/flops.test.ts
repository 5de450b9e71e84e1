import { describe, expect, it } from "vitest";
import { parseRinConfig } from "./config.js";
import { forwardFlops, forwardWork, trainingFlops } from "./flops.js";
import { PUBLISHED_NETWORK } from "./testing/tiny-config.js";

const full = parseRinConfig(PUBLISHED_NETWORK);

describe("the work of a forward pass", () => {
  // Counted by hooks on the published implementation, in 10⁹ multiply-adds.
  it.each([
    [77, { processers: 54.76, retrieveCond: 12.07, retrievers: 10.74, writers: 4.29, conditioningTransformer: 2.56 }],
    [256, { processers: 54.76, retrieveCond: 13.94, retrievers: 10.74, writers: 4.29, conditioningTransformer: 7.34 }],
  ])("of the main model at %i text tokens is what was counted, part by part", (tokens, parts) => {
    const work = forwardWork(full, tokens);
    for (const [part, expected] of Object.entries(parts))
      expect(Math.abs(work[part as keyof typeof work] / 1e9 - expected), part).toBeLessThan(0.01);
    expect(work.selfConditioning / 1e9).toBeCloseTo(2.15, 2);
    expect(work.textProjection / 1e9).toBeCloseTo(tokens === 77 ? 0.16 : 0.54, 2);
    expect(forwardFlops(full, tokens) / 2e9).toBeCloseTo(tokens === 77 ? 86.74 : 93.77, 1);
  });

  it("is smaller by 4.1 % (10.9 %) at each step of a sampler at 77 (256) tokens", () => {
    const share = (tokens: number) =>
      1 - forwardFlops(full, tokens, { conditioning: false }) / forwardFlops(full, tokens);
    expect(share(77)).toBeCloseTo(0.041, 3);
    expect(share(256)).toBeCloseTo(0.109, 3);
  });

  it("is 0.75 TFLOP for a training sample at 256 tokens, a quarter less without self-conditioning", () => {
    expect(trainingFlops(full, 256, true) / 1e12).toBeCloseTo(0.75, 2);
    expect(trainingFlops(full, 256, false) / trainingFlops(full, 256, true)).toBe(0.75);
  });

  it("counts conditioning tokens among the latents where they are", () => {
    const plain = parseRinConfig({
      ...PUBLISHED_NETWORK,
      use_cond_rin_block: false,
      concat_cond_token_to_latents: true,
      use_self_conditioning: false,
      coherence_keys: ["clip_score"],
    });
    const work = forwardWork(plain, 77);
    expect([work.retrieveCond, work.selfConditioning]).toEqual([0, 0]);
    // 178 learned latents, time, one reward, 16 registers, 77 text tokens.
    const N = 178 + 1 + 1 + 16 + 77;
    const self = N * 1024 * 4096 + 2 * N * N * 1024 + N * 1024 * 2 * 2816 + N * 2816 * 1024;
    expect(work.processers).toBe(16 * self);
  });
});
