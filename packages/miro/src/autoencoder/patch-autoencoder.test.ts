import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { manualSeed, nn, randn, scope, tensor } from "@miro-t2i/torch";
import { writeSafetensors } from "@miro-t2i/torch/io";
import { afterAll, describe, expect, it } from "vitest";
import { loadAutoencoder } from "./index.js";
import { PatchAutoencoder } from "./patch-autoencoder.js";

const folder = mkdtempSync(join(tmpdir(), "miro-patch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const config = { patch_size: 2, channels: [8, 12], latent_channels: 4, encoder_blocks: [1, 1], decoder_blocks: [1, 1] };

describe("PatchAutoencoder", () => {
  it("keeps the mean colour of each cell exactly, and interpolates it before any training", () => {
    scope(() => {
      manualSeed(0);
      const model = new PatchAutoencoder(config);
      const x = randn([2, 3, 16, 24]);
      const z = model.encode(x).mean;
      expect(z.shape).toEqual([2, 4, 4, 6]);
      const y = model.decode(z);
      const means = nn.functional.avgPool2d(x, 4);
      const expected = nn.functional.interpolate(means, { scaleFactor: 4, mode: "bicubic" });
      expect(y.shape).toEqual(x.shape);
      expect(y.sub(expected).abs().max().item()).toBeLessThan(1e-5);
    });
  });

  it("is deterministic and reports no spread", () => {
    scope(() => {
      const model = new PatchAutoencoder(config);
      const x = randn([1, 3, 8, 8]);
      const { mean, std } = model.encode(x);
      expect(mean.eq(model.encode(x).mean).all().item()).toBeTruthy();
      expect(std.abs().max().item()).toBe(0);
    });
  });

  it("passes gradients to every parameter", () => {
    scope(() => {
      manualSeed(1);
      const model = new PatchAutoencoder(config);
      // Away from the zero start, where the blocks behind a zero layer have no gradient.
      for (const parameter of model.parameters()) nn.init.normal_(parameter, 0.1, 0.3);
      model
        .decode(model.encode(randn([1, 3, 16, 16])).mean)
        .square()
        .mean()
        .backward();
      for (const [name, parameter] of model.namedParameters()) {
        expect(parameter.grad?.abs().max().item(), name).toBeGreaterThan(0);
      }
    });
  });

  it("is loaded from a folder by its class name, with half-precision weights", () => {
    scope(() => {
      manualSeed(2);
      const model = new PatchAutoencoder(config);
      writeFileSync(join(folder, "config.json"), JSON.stringify(model.config));
      const half = [...model.stateDict()].map(([name, t]) => [name, t.detach().half()] as const);
      writeSafetensors(join(folder, "diffusion_pytorch_model.safetensors"), new Map(half));
      const loaded = loadAutoencoder(folder);
      expect(loaded.downsampling).toBe(4);
      expect(loaded.latentChannels).toBe(4);
      const x = randn([1, 3, 16, 16]);
      expect(loaded.encode(x).mean.sub(model.encode(x).mean).abs().max().item()).toBeLessThan(5e-3);
    });
  });

  it("keeps the encoder when only the decoder is trained", () => {
    const model = new PatchAutoencoder(config).trainDecoderOnly();
    for (const [name, parameter] of model.namedParameters())
      expect(parameter.requiresGrad).toBe(name.startsWith("decoder."));
  });

  it("refuses wrong shapes and options by name", () => {
    const model = new PatchAutoencoder(config);
    expect(() => model.encode(tensor(new Float32Array(3 * 6 * 8), { shape: [1, 3, 6, 8] }))).toThrow(/multiples of 4/);
    expect(() => model.decode(tensor(new Float32Array(12), { shape: [1, 3, 2, 2] }))).toThrow(/batch, 4, h, w/);
    expect(() => new PatchAutoencoder({ ...config, channels: [8] })).toThrow(/channels/);
  });

  it("gets more blocks in its decoder, which change nothing before they are trained", () => {
    scope(() => {
      manualSeed(1);
      const small = { channels: [8, 16], decoder_blocks: [1, 1] };
      const stored = new PatchAutoencoder(small);
      nn.init.normal_(stored.stateDict().get("decoder.patch_out.weight")!);
      const grown = stored.withDecoderBlocks([2, 3]);
      expect(grown.config).toEqual({ ...stored.config, decoder_blocks: [2, 3] });
      const latents = randn([2, 4, 4, 4]);
      expect(grown.decode(latents).sub(stored.decode(latents)).abs().max().item()).toBe(0);
      expect(() => grown.withDecoderBlocks([2, 2])).toThrow(/decoder_blocks: expected at least the 2 and 3 .*2 and 2/);
    });
  });
});
