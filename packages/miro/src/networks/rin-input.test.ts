import { manualSeed, noGrad, ones, rand, randn, scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { Rin } from "./rin.js";
import { rinInput, type UpstreamBatch } from "./rin-input.js";
import { tinyConfig } from "./testing/tiny-config.js";

describe("a network's input", () => {
  it("means the same under the published code's keys", () => {
    manualSeed(1);
    const network = new Rin(tinyConfig({ coherence_keys: ["clip_score", "vqa_score"] })).eval() as Rin;
    const upstream: UpstreamBatch = {
      y: randn([2, 4, 8, 8]),
      gamma: rand([2]),
      text_tokens_embeddings: randn([2, 5, 24]),
      text_tokens_mask: ones([2, 5], { dtype: "bool" }),
      clip_score_coherence: rand([2]),
      vqa_score_coherence: rand([2]),
      previous_latents: randn([2, 12, 64]),
    };
    const own = rinInput(upstream);
    if (own.conditioning) throw new Error("made of text and rewards");
    expect(Object.keys(own.rewards)).toEqual(["clip_score", "vqa_score"]);
    const largest = scope(() =>
      noGrad(() => {
        const [a, b] = [network.forward(upstream), network.forward(own)];
        return [a.F.sub(b.F).abs().max().item(), a.F.abs().max().item()];
      }),
    );
    expect(largest[0]).toBe(0);
    expect(largest[1]).toBeGreaterThan(0);
  });

  it("names what is missing", () => {
    const y = randn([1, 4, 8, 8]);
    expect(() => rinInput({ y } as never)).toThrow("batch: gamma, textEmbeddings, textMask, rewards missing");
    expect(() => rinInput({ y, gamma: rand([1]), text_tokens_embeddings: y } as never)).toThrow(
      "batch: text_tokens_mask missing",
    );
  });
});
