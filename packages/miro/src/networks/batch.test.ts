import { manualSeed, noGrad, ones, rand, randn, scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { rinBatch, type UpstreamBatch } from "./batch.js";
import { parseRinConfig } from "./config.js";
import { Rin } from "./rin.js";

const config = parseRinConfig({
  data_size: 8,
  num_input_channels: 4,
  label_dim: 24,
  num_cond_tokens: 6,
  data_dim: 32,
  num_latents: 12,
  latents_dim: 64,
  num_processing_layers: 1,
  num_blocks: 1,
  patch_size: 2,
  read_write_heads: 2,
  compute_heads: 4,
  use_cond_rin_block: true,
  concat_cond_token_to_latents: false,
  use_self_conditioning: true,
  coherence_keys: ["clip_score", "vqa_score"],
});

describe("a network's input", () => {
  it("means the same under the published code's keys", () => {
    manualSeed(1);
    const network = new Rin(config).eval() as Rin;
    const upstream: UpstreamBatch = {
      y: randn([2, 4, 8, 8]),
      gamma: rand([2]),
      text_tokens_embeddings: randn([2, 5, 24]),
      text_tokens_mask: ones([2, 5], { dtype: "bool" }),
      clip_score_coherence: rand([2]),
      vqa_score_coherence: rand([2]),
      previous_latents: randn([2, 12, 64]),
    };
    const own = rinBatch(upstream);
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
    expect(() => rinBatch({ y } as never)).toThrow("batch: gamma, textEmbeddings, textMask, rewards missing");
    expect(() => rinBatch({ y, gamma: rand([1]), text_tokens_embeddings: y } as never)).toThrow(
      "batch: text_tokens_mask missing",
    );
  });
});
