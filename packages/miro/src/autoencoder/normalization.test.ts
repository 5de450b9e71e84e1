import { manualSeed, randn, scope, tensor } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { defaultNormalization, denormalize, normalize } from "./normalization.js";

describe("normalisation of latents", () => {
  it("brings SDXL's statistics to mean 0 and deviation 0.5, and back", () => {
    scope(() => {
      manualSeed(3);
      const normalization = defaultNormalization({ channel_wise_normalisation: true });
      const latents = randn([64, 4, 16, 16])
        .mul(tensor([7.8518, 5.8465, 6.8716, 5.314]).view(1, 4, 1, 1))
        .add(tensor([-0.348, 0.3754, 0.0419, 2.4331]).view(1, 4, 1, 1));
      const x = normalize(latents, normalization);
      for (let c = 0; c < 4; c++) {
        expect(x.select(1, c).mean().item()).toBeCloseTo(0, 1.5);
        expect(x.select(1, c).std().item()).toBeCloseTo(0.5, 1.5);
      }
      expect(denormalize(x, normalization).sub(latents).abs().max().item()).toBeLessThan(1e-4);
    });
  });

  it("multiplies by the autoencoder's factor in plain mode", () => {
    scope(() => {
      const normalization = defaultNormalization({ channel_wise_normalisation: false });
      const two = tensor([2]).view(1, 1, 1, 1).expand(1, 4, 1, 1);
      expect(normalize(two, normalization).flatten().toList()).toEqual(Array(4).fill(Math.fround(0.2605)));
    });
  });

  it("refuses the constants of another autoencoder", () => {
    expect(() => defaultNormalization({ model_type: "sd15" })).toThrow('model_type: expected sdxl, received "sd15"');
  });
});
