/** Drawing over pictures, and variations of pictures, with small random weights. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { memory, noGrad, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defaultNormalization, normalize } from "../autoencoder/normalization.js";
import { samplerNames } from "../flow/samplers/index.js";
import { encodeImage } from "../pictures/image-files.js";
import type { RgbImage } from "../pictures/rgb.js";
import { gridFrom } from "./edit.js";
import type { GenerateOptions } from "./generate-options.js";
import type { GeneratedImage } from "./generated-image.js";
import { between, noiseOf } from "./noise.js";
import { MiroPipeline } from "./pipeline.js";
import { DrawRequest } from "./requests/draw-request.js";
import { planPictures } from "./requests/plan-pictures.js";
import { readRedrawing } from "./requests/redraw.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));
let pipe: MiroPipeline;
let folder: string;
let side: number;

beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
    dtype: "float32",
    textEncoder: `${tiny}/text_encoder`,
    vae: `${tiny}/vae`,
  });
  folder = mkdtempSync(join(tmpdir(), "miro-edit-"));
  side = pipe.latentShape[1] * pipe.autoencoder.downsampling;
});
afterAll(async () => {
  await pipe.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const picture = (width: number, height: number, at: (x: number, y: number) => number): RgbImage => ({
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) =>
    at(Math.floor(i / 3) % width, Math.floor(i / 3 / width)),
  ),
});
const waves = (phase = 0) => picture(side, side, (x, y) => 128 + 100 * Math.sin((x + 2 * y) / 7 + phase));
/** White on its right half. */
const half = () => picture(side, side, (x) => (x < side / 2 ? 0 : 255));
const one = async (options: GenerateOptions, prompt = "a cat"): Promise<GeneratedImage> => {
  const { images } = await pipe.generate(prompt, { steps: 4, guidanceScale: 1, seed: 3, ...options });
  return images[0]!;
};
const file = async (name: string, image: RgbImage) => {
  const path = join(folder, name);
  writeFileSync(path, await encodeImage(image, []));
  return path;
};

describe("image to image", () => {
  it("with strength 0 is what the autoencoder makes of the picture", async () => {
    const image = waves();
    const latents = scope(() =>
      noGrad(() => {
        const pixels = tensor(image.data, { shape: [1, side, side, 3] });
        const x = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1);
        return normalize(pipe.autoencoder.encode(x).mean, defaultNormalization({ channel_wise_normalisation: true }));
      }),
    );
    const [expected] = pipe.decode(latents);
    latents.dispose();
    expect((await one({ image, strength: 0 })).data).toEqual(expected!.data);
  });

  it("takes the bytes of a file as it takes the file, and stores no path then", async () => {
    const path = await file("bytes.png", waves());
    const [byPath, byBytes] = [await one({ image: path }), await one({ image: readFileSync(path) })];
    expect(byBytes.data).toEqual(byPath.data);
    expect(byBytes.settings.image).toEqual({ sha256: byPath.settings.image!.sha256 });
    const mask = readFileSync(await file("mask.png", half()));
    expect((await one({ image: path, mask })).data).toEqual((await one({ image: path, mask: half() })).data);
  });

  it.each(samplerNames())("with strength 1 is the picture of the seed alone, %s", async (sampler) => {
    const plain = await one({ sampler });
    expect((await one({ sampler, image: waves(), strength: 1 })).data).toEqual(plain.data);
    expect((await one({ sampler, image: waves(), strength: 0.8 })).data).not.toEqual(plain.data);
  });

  it("is nearer to the picture, the less is drawn anew", async () => {
    const image = waves();
    const { data: kept } = await one({ image, strength: 0 });
    const distances: number[] = [];
    for (const strength of [0.25, 0.5, 1]) {
      const { data } = await one({ image, strength });
      distances.push(data.reduce((sum, value, i) => sum + Math.abs(value - kept[i]!), 0));
    }
    expect(distances).toEqual([...distances].sort((a, b) => a - b));
  });

  it("takes the last steps of the whole way, and guides those that the window names", async () => {
    const seen: number[] = [];
    const count: number[] = [];
    const onStep = ({ gamma, steps }: { gamma: number; steps: number }) => {
      seen.push(gamma);
      count.push(steps);
    };
    const late = await one({ image: waves(), strength: 0.5, guidanceWindow: [0, 1], onStep });
    expect(seen).toEqual([0.5, 0.75]);
    expect(count).toEqual([2, 2]);
    expect(late.data).toEqual((await one({ image: waves(), strength: 0.5, guidanceScale: 0 })).data);
    const guided = await one({ image: waves(), strength: 0.5, guidanceWindow: [2, null] });
    expect(guided.data).toEqual((await one({ image: waves(), strength: 0.5 })).data);
  });

  it("does not depend on what else is drawn", async () => {
    const images = [waves(0), waves(1)];
    const options = { steps: 4, guidanceScale: 1, seed: 3, strength: 0.5, mask: half() };
    const together = await pipe.generate(["a cat", "a fox"], { ...options, image: images });
    const fox = await one({ ...options, image: images[1]!, seed: 4 }, "a fox");
    expect(together.images[1]!.data).toEqual(fox.data);
    expect(together.images[0]!.data).toEqual((await one({ ...options, image: images[0]! })).data);
  });

  it("uses the largest centred square of a picture", async () => {
    const wide = picture(side + 8, side, (x, y) => 128 + 100 * Math.sin((x - 4 + 2 * y) / 7));
    expect((await one({ image: wide, strength: 0.5 })).data).toEqual(
      (await one({ image: waves(), strength: 0.5 })).data,
    );
  });

  it("frees everything", async () => {
    const before = memory.stats().liveTensors;
    await one({ image: waves(), mask: half(), strength: 0.7, variationSeed: 5 });
    expect(memory.stats().liveTensors).toBe(before);
  });
});

describe("in-painting", () => {
  it("leaves black places of the mask to the byte, and draws white ones", async () => {
    const image = waves();
    const { data } = await one({ image, mask: half() });
    let changed = 0;
    for (let i = 0; i < data.length; i++) {
      const x = Math.floor(i / 3) % side;
      if (x < side / 2) expect(data[i]).toBe(image.data[i]);
      else if (data[i] !== image.data[i]) changed++;
    }
    expect(changed).toBeGreaterThan(data.length / 4);
  });

  it("is the whole picture with a white mask, and the image itself with a black one", async () => {
    const [white, black] = [255, 0].map((level) => picture(side, side, () => level));
    const image = waves();
    expect((await one({ image, mask: white! })).data).toEqual((await one({})).data);
    expect((await one({ image, mask: black! })).data).toEqual(image.data);
  });

  it("mixes where the mask is grey", async () => {
    const image = waves();
    const grey = picture(side, side, () => 51);
    const { data } = await one({ image, mask: grey, strength: 1 });
    const far = data.filter((value, i) => Math.abs(value - image.data[i]!) > 0.2 * 255 + 1);
    expect(far.length).toBe(0);
    expect(data).not.toEqual(image.data);
  });

  it("keeps the known places on their way at every step", async () => {
    const image = waves();
    const states: Tensor[] = [];
    const gammas: number[] = [];
    await one({
      image,
      mask: half(),
      steps: 5,
      onStep: ({ x, gamma }) => {
        states.push(x.clone());
        gammas.push(gamma);
      },
    });
    const noise = noiseOf([3], pipe.latentShape)();
    const known = (t: Tensor) => t.narrow(3, 0, pipe.latentShape[2] / 2);
    const end = known(states.at(-1)!);
    for (const [i, state] of states.slice(0, -1).entries()) {
      const level = gammas[i + 1]!;
      const expected = end.mul(level).add(known(noise).mul(1 - level));
      expect(known(state).sub(expected).abs().max().item()).toBeLessThan(1e-5);
    }
    for (const t of [...states, noise]) t.dispose();
  });
});

describe("a variation", () => {
  it.each(samplerNames())("lies between the pictures of two seeds, %s", async (sampler) => {
    const of = (variationStrength: number) => one({ sampler, variationSeed: 9, variationStrength });
    expect((await of(0)).data).toEqual((await one({ sampler })).data);
    expect((await of(1)).data).toEqual((await one({ sampler, seed: 9 })).data);
    expect((await of(0.5)).data).not.toEqual((await of(0.4)).data);
  });

  it("keeps the seed of a call and counts up its own", async () => {
    const { images } = await pipe.generate("a cat", { steps: 1, seed: 3, variationSeed: 9, imagesPerPrompt: 3 });
    expect(images.map(({ settings: { seed, variationSeed } }) => [seed, variationSeed])).toEqual([
      [3, 9],
      [3, 10],
      [3, 11],
    ]);
    const pictures = planPictures([{ prompt: "a cat", options: { imagesPerPrompt: 2 } }], {
      options: { variationSeed: 9, steps: 1 },
      seed: 3,
    });
    const { images: drawn } = await new DrawRequest({ pictures, files: { output: join(folder, "varied") } }).draw(pipe);
    expect(drawn.map(({ path }) => path!.slice(folder.length + 8))).toEqual([
      "a-cat-seed3-variation9.png",
      "a-cat-seed3-variation10.png",
    ]);
  });

  it("is one of several variations of the same picture where the best of them is kept", async () => {
    const common = { steps: 1, seed: 3, variationSeed: 9 };
    const load = async () => ({
      rank: async (images: readonly GeneratedImage[]) =>
        images.map((image, index) => ({ image, index, scores: { order: index } })).reverse(),
      dispose: () => {},
    });
    const request = (resume: boolean) =>
      new DrawRequest({
        pictures: planPictures(
          ["a cat", "a dog"].map((prompt) => ({ prompt, options: {} })),
          { options: { variationSeed: 9, steps: 1 }, seed: 3, candidates: 2 },
        ),
        files: { output: join(folder, "best"), resume },
        bestOf: { count: 2, scorer: "order", load },
      });
    const { images } = await request(false).draw(pipe);
    expect(images).toMatchObject([
      { seed: 3, variationSeed: 10, candidates: [{ variationSeed: 10 }, { seed: 3, variationSeed: 9 }] },
      { seed: 3, variationSeed: 12, candidates: [{ variationSeed: 12 }, { seed: 3, variationSeed: 11 }] },
    ]);
    expect((await request(true).draw(pipe)).skipped).toBe(2);

    const { settings, request: again } = await readRedrawing(images[0]!.path!, { model: "named" });
    expect(settings.bestOf).toMatchObject({ seed: 3, variationSeed: 9, rank: 1 });
    const { images: same } = await pipe.generate(["a cat", "a dog"], { ...common, imagesPerPrompt: 2 });
    expect((await one(again.options)).data).toEqual(same[1]!.data);
    expect(same[3]!.settings).toMatchObject({ seed: 3, variationSeed: 12 });
  });

  it("has noise of unit variance, and follows the arc", () => {
    const noise = scope(() => between(noiseOf([1], [4, 64, 64]), noiseOf([2], [4, 64, 64]), 0.5)());
    expect(Math.abs((noise.std().item() as number) - 1)).toBeLessThan(0.02);
    const [a, b] = [tensor([[1, 0]]), tensor([[0, 1]])];
    const middle = scope(() =>
      between(
        () => a,
        () => b,
        0.5,
      )(),
    );
    for (const value of middle.flatten().toList() as number[]) expect(value).toBeCloseTo(Math.SQRT1_2, 6);
    const same = scope(() =>
      between(
        () => a,
        () => a,
        0.3,
      )(),
    );
    expect(same.toList()).toEqual([[1, 0]]);
    for (const t of [noise, a, b, middle, same]) t.dispose();
  });

  it("of given noise blends it too", async () => {
    const noise = randn([1, ...pipe.latentShape]);
    const [plain, varied, other] = [
      await one({ noise }),
      await one({ noise, variationSeed: 9, variationStrength: 0.5 }),
      await one({ noise, variationSeed: 9, variationStrength: 1 }),
    ];
    expect(varied.data).not.toEqual(plain.data);
    expect(other.data).toEqual((await one({ seed: 9 })).data);
    noise.dispose();
  });
});

describe("what is drawn over", () => {
  it("is stored, and draws the same picture again; another one under its name is refused", async () => {
    const options = { steps: 2, strength: 0.6, variationSeed: 4 };
    const image = await file("photo.png", waves());
    const mask = await file("mask.png", half());
    const pictures = planPictures([{ prompt: "a cat", options: { image, mask } }], { options, seed: 3 });
    const { images } = await new DrawRequest({ pictures, files: { output: join(folder, "first") } }).draw(pipe);
    const path = images[0]!.path!;
    const parts = { model: `${tiny}/checkpoint` };
    const again = async (chosen = {}) => {
      const { request, settings } = await readRedrawing(path, { ...parts, ...chosen });
      const planned = planPictures([{ prompt: request.prompt, options: {} }], {
        options: request.options,
        seed: request.seed as number,
      });
      const seen: GeneratedImage[] = [];
      const warnings: string[] = [];
      await new DrawRequest({ pictures: planned, redrawn: { path, settings, chosen: { ...parts, ...chosen } } }).draw(
        pipe,
        { onPicture: ({ image }) => void seen.push(image), onDifference: (warning) => void warnings.push(warning) },
      );
      return { image: seen[0]!, warnings };
    };
    const first = await again();
    expect(first.image.settings).toMatchObject({
      image: { file: image, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
      mask: { file: mask },
      strength: 0.6,
      variationSeed: 4,
      variationStrength: 0.2,
    });
    const direct = await one({ ...options, image: waves(), mask: half(), guidanceScale: pipe.defaultGuidanceScale });
    expect(first.image.data).toEqual(direct.data);
    expect(direct.settings.image).toEqual({ sha256: first.image.settings.image!.sha256 });
    await file("photo.png", waves(2));
    await expect(again()).rejects.toThrow(/image: .*photo\.png is not what .* was drawn over/);
    const { warnings } = await again({ image });
    expect(warnings).toContainEqual(expect.stringContaining("the image is not what"));
  });

  it("is wrong in a sentence that names the option", async () => {
    const text = join(folder, "text.png");
    writeFileSync(text, "no picture");
    const cases: [GenerateOptions, RegExp][] = [
      [{ strength: 0.5 }, /^strength: expected an image with it, received none$/],
      [{ mask: half() }, /^mask: expected an image with it/],
      [{ image: waves(), strength: 1.1 }, /^strength: expected a number from 0 to 1, received 1.1/],
      [
        { image: waves(), mask: picture(4, 4, () => 0) },
        /^mask: expected the size of the image, \d+ x \d+, received 4 x 4/,
      ],
      [{ image: [waves(), waves()] }, /^image: expected one picture for all prompts or one for each of 1/],
      [
        { image: { width: 2, height: 2, data: new Uint8Array(3) } },
        /^image: expected a picture file, its bytes, or .*received {"width":2,"height":2,"data":"Uint8Array\(3\)"}$/,
      ],
      [{ image: join(folder, "absent.png") }, /absent\.png.*no such file/],
      [{ image: text }, /^image: .*text\.png: /],
      [{ variationStrength: 0.5 }, /^variationStrength: expected a variation seed with it/],
      [{ variationSeed: [1, 2] }, /^variationSeed: expected one number, or one for each of 1 picture/],
      [
        { variationSeed: Number.MAX_SAFE_INTEGER, imagesPerPrompt: 2 },
        /^variationSeed: expected at most 9007199254740990 for 2 pictures, received 9007199254740991/,
      ],
      [
        { seed: Number.MAX_SAFE_INTEGER, imagesPerPrompt: 3 },
        /^seed: expected at most 9007199254740989 for 3 pictures, received 9007199254740991/,
      ],
    ];
    for (const [options, expected] of cases) {
      const onStep = () => expect.unreachable("it draws");
      await expect(one({ ...options, onStep })).rejects.toThrow(expected);
    }
  });

  it("begins at its level between two steps, or on one", () => {
    const grid = Float32Array.from([0, 0.25, 0.5, 0.75, 1]);
    expect([...gridFrom(grid, 0.5)]).toEqual([0.5, 0.75, 1]);
    expect([...gridFrom(grid, 0.6)].map((level) => level.toFixed(2))).toEqual(["0.60", "0.75", "1.00"]);
    expect([...gridFrom(grid, 1)]).toEqual([1]);
    expect(gridFrom(grid, 0)).toBe(grid);
  });
});
