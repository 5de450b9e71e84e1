import { describe, expect, it } from "vitest";
import { parseRinConfig, type RinConfig, rinConfigToJson } from "./config.js";
import { TINY_NETWORK, tinyConfig } from "./testing/tiny-config.js";

describe("parseRinConfig", () => {
  it("fills in defaults and refuses what it does not know", () => {
    const c: RinConfig = tinyConfig();
    expect([c.latentMlpMultiplier, c.numTextRegisters, c.dropoutStrategy]).toEqual([4, 16, "binomial"]);
    expect(() => parseRinConfig({ ...TINY_NETWORK, patch: 2, dataSize: 8 })).toThrow(
      /network\.dataSize: unknown argument\nnetwork\.patch: unknown argument/,
    );
    expect(() => parseRinConfig({ ...TINY_NETWORK, coherence_keys: [] })).toThrow("coherence_keys");
    expect(() => parseRinConfig({ ...TINY_NETWORK, dropout_strategy: "often" })).toThrow("dropout_strategy");
    expect(() => parseRinConfig({ ...TINY_NETWORK, concat_cond_token_to_latents: true })).toThrow(
      "use_self_conditioning",
    );
    expect(() => parseRinConfig({ ...TINY_NETWORK, read_write_heads: 5 })).toThrow("read_write_heads");
    expect(() => parseRinConfig([])).toThrow("expected an object");
    expect(parseRinConfig(rinConfigToJson(c))).toEqual(c);
    expect(rinConfigToJson(c)).toMatchObject(TINY_NETWORK);
  });
});
