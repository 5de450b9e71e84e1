import { fileURLToPath } from "node:url";
import { nn, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoencoderKL } from "../autoencoder/index.js";
import type { RgbImage } from "../pictures/rgb.js";
import { bundledModel } from "./loading/bundled.js";
import { MiroPipeline } from "./pipeline.js";
import { fitLatentToRgb, latentsToRgb } from "./preview.js";

/** Peak signal-to-noise ratio of 8-bit pictures, in dB. */
function psnr(a: Uint8Array, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / a.length));
}

/** The mean colour of each cell of a picture. */
function pooled({ data, width, height }: RgbImage, cell: number): number[] {
  const result: number[] = [];
  for (let y = 0; y < height; y += cell)
    for (let x = 0; x < width; x += cell)
      for (let k = 0; k < 3; k++) {
        let sum = 0;
        for (let i = 0; i < cell; i++) for (let j = 0; j < cell; j++) sum += data[((y + i) * width + x + j) * 3 + k]!;
        result.push(sum / cell ** 2);
      }
  return result;
}

describe("fitLatentToRgb", () => {
  it("finds the map of a decoder that is linear", () => {
    const weight = [
      [0.3, -0.2, 0.1, 0],
      [0, 0.25, -0.4, 0.1],
      [0.2, 0.2, 0.2, -0.3],
    ];
    const bias = [0.1, -0.05, 0.2];
    const decode = (latents: Tensor) =>
      scope(() => {
        const colours = nn.functional
          .conv2d(latents, tensor(weight).view(3, 4, 1, 1))
          .add(tensor(bias).view(1, 3, 1, 1));
        return nn.functional.interpolate(colours, { scaleFactor: 4, mode: "nearest" });
      });
    const normalization = {
      scale: tensor([0.1, 0.2, 0.05, 0.1]).view(1, 4, 1, 1),
      bias: tensor([0, 1, -1, 2]).view(1, 4, 1, 1),
    };
    const autoencoder = { latentChannels: 4, downsampling: 4, decode } as unknown as AutoencoderKL;
    const map = fitLatentToRgb({ autoencoder, normalization });
    for (const k of [0, 1, 2]) {
      for (const c of [0, 1, 2, 3]) expect(map.weight[k]![c]).toBeCloseTo(weight[k]![c]!, 4);
      expect(map.bias[k]).toBeCloseTo(bias[k]!, 3);
    }
    normalization.scale.dispose();
    normalization.bias.dispose();
  });

  it("gives the same map each time, of one pixel for each latent, for a KL autoencoder too", () => {
    const folder = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny/vae", import.meta.url));
    const autoencoder = AutoencoderKL.fromPretrained(folder);
    const normalization = { scale: tensor([1, 1, 1, 1]).view(1, 4, 1, 1), bias: tensor([0, 0, 0, 0]).view(1, 4, 1, 1) };
    const map = fitLatentToRgb({ autoencoder, normalization });
    expect(fitLatentToRgb({ autoencoder, normalization })).toEqual(map);
    expect([map.weight.length, map.weight[0]!.length, map.bias.length]).toEqual([3, 4, 3]);
    const x = randn([2, 4, 8, 8]);
    const pictures = latentsToRgb(x, map, normalization);
    expect(pictures.map(({ width, height, data }) => [width, height, data.length])).toEqual([
      [8, 8, 192],
      [8, 8, 192],
    ]);
    for (const t of [x, normalization.scale, normalization.bias]) t.dispose();
    autoencoder.dispose();
  });
});

describe("previews of the bundled model", () => {
  let pipe: MiroPipeline;
  beforeAll(async () => {
    pipe = await MiroPipeline.fromPretrained(bundledModel()!);
  });
  afterAll(() => pipe.dispose());

  it("are the pooled picture: 29 dB and more", async () => {
    const { images, latents } = await pipe.generate(["a fox on a blue background", "a slice of pizza"], {
      steps: 8,
      keepLatents: true,
    });
    const previews = pipe.preview(latents);
    for (const [i, preview] of previews.entries()) {
      expect([preview.width, preview.height]).toEqual([32, 32]);
      expect(psnr(preview.data, pooled(images[i]!, 8))).toBeGreaterThan(29);
    }
    latents.dispose();
  });

  it("come with the steps that were asked for, and change no picture", async () => {
    const seen: string[] = [];
    const drawn = await pipe.generate(["a fox", "a cat"], {
      steps: 5,
      previewEvery: 2,
      onStep: ({ step, image, images, previews }) => {
        expect(images).toEqual([image]);
        if (previews) seen.push(`${image}:${step}:${previews.map(({ width }) => width)}`);
      },
    });
    expect(seen).toEqual(["0:1:32", "0:3:32", "1:1:32", "1:3:32"]);
    const full: RgbImage[] = [];
    const again = await pipe.generate(["a fox", "a cat"], {
      steps: 5,
      previewEvery: 5,
      preview: "decoder",
      onStep: ({ previews }) => void full.push(...(previews ?? [])),
    });
    expect(full.map(({ width }) => width)).toEqual([256, 256]);
    expect(again.images.map(({ data }) => data)).toEqual(drawn.images.map(({ data }) => data));
  });
});
