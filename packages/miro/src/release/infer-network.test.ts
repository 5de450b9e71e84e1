import { scope } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { parseRinConfig } from "../networks/config.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { TINY_NETWORK } from "../networks/testing/tiny-config.js";
import { inferNetwork, inferPreconditioning } from "./infer-network.js";

/** The configuration that the tensors of a network tell. */
function inferred(config: ReturnType<typeof parseRinConfig>, given: Record<string, unknown> = {}) {
  return scope(() => {
    const network = new Rin(config);
    try {
      return inferNetwork({ path: "file", module: "network" }, network.stateDict(), config.numInputChannels, given);
    } finally {
      network.dispose();
    }
  });
}

describe("the configuration of a network from its tensors", () => {
  const none = { use_self_conditioning: false, use_cond_rin_block: false, concat_cond_token_to_latents: false };
  it.each<[string, object, Record<string, unknown>]>([
    ["the tiny one", {}, {}],
    ["self-conditioning without reading the conditioning", { use_cond_rin_block: false }, {}],
    ["reading the conditioning without self-conditioning", { use_self_conditioning: false }, {}],
    ["neither, which is said", none, { concat_cond_token_to_latents: false }],
    [
      "the conditioning among the latents",
      { ...none, concat_cond_token_to_latents: true, num_latents: 13, num_cond_tokens: 8 },
      { concat_cond_token_to_latents: true, num_cond_tokens: 8 },
    ],
    ["other sizes", { data_size: 12, patch_size: 3, num_processing_layers: 3, num_blocks: 1, read_write_heads: 4 }, {}],
    [
      "a width that several multipliers give",
      { latent_mlp_multiplier: 2, data_mlp_multiplier: 9 },
      { data_mlp_multiplier: 9 },
    ],
    ["other rewards and registers", { coherence_keys: ["vqa_score", "tones"], num_text_registers: 3 }, {}],
  ])("%s", (_, changes, given) => {
    const config = parseRinConfig({ ...TINY_NETWORK, num_cond_tokens: 77, ...changes });
    expect(inferred(config, given)).toEqual(config);
  });

  it("does not tell whether the latents include the conditioning, where nothing else reads it", () => {
    const config = parseRinConfig({ ...TINY_NETWORK, ...none });
    expect(() => inferred(config)).toThrow(/^file: the tensors do not tell whether .*concat_cond_token_to_latents/);
    expect(() => inferred(config, { concat_cond_token_to_latents: true })).toThrow(/do not tell num_cond_tokens/);
  });

  it("is compared with what is given", () => {
    const config = parseRinConfig(TINY_NETWORK);
    expect(() => inferred(config, { num_blocks: 3 })).toThrow(/states network\.num_blocks = 3, .* with 2$/);
    expect(inferred(config, { num_blocks: 2, num_cond_tokens: 6 })).toEqual(config);
  });

  it("is that of the preconditioning, too", () => {
    const network = parseRinConfig(TINY_NETWORK);
    const preconditioning = (config: ConstructorParameters<typeof FlowPrecond>[0]) =>
      scope(() => inferPreconditioning("file", new FlowPrecond(config).stateDict(), network, {}));
    const sizes = { numLatents: network.numLatents, latentsDim: network.latentsDim };
    expect(preconditioning({ ...sizes, doGradnormReweighting: false })).toMatchObject({ doGradnormReweighting: false });
    const reweighted = { ...sizes, doGradnormReweighting: true, logvarChannels: 32, logvarMlpLayers: 3 };
    expect(preconditioning(reweighted)).toMatchObject(reweighted);
  });
});
