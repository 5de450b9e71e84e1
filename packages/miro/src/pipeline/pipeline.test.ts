/** The whole pipeline against the published Python implementation, recorded with small random weights. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { cat, memory, ones, randn, scope, type Tensor, TorchError, zeros } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { InvalidInputError } from "../errors.js";
import { dynamicShift } from "../flow/schedule.js";
import type { GenerateOptions } from "./generate-options.js";
import { type GenerateResult, MiroPipeline } from "./pipeline.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));

interface Run {
  seed: number;
  steps: number;
  guidance_scale: number;
  reward_targets?: Record<string, number>;
  negative_reward_targets?: Record<string, number>;
  num_images_per_prompt?: number;
}

const recorded = JSON.parse(readFileSync(`${tiny}/reference.json`, "utf8")) as {
  prompts: string[];
  runs: Record<string, Run>;
};
let pipe: MiroPipeline;
let reference: Map<string, Tensor>;

beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
    dtype: "float32",
    textEncoder: `${tiny}/text_encoder`,
    vae: `${tiny}/vae`,
  });
  reference = readSafetensors(`${tiny}/reference.safetensors`);
});
afterAll(async () => {
  await pipe.dispose();
  for (const t of reference.values()) t.dispose();
});

const floats = (t: Tensor) => t.data() as Float32Array;

/** Largest difference relative to the largest value of the reference. */
function relative(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}

/** Share of bytes that differ by at most one level. */
function agreement(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let close = 0;
  for (let i = 0; i < expected.length; i++) if (Math.abs(actual[i]! - expected[i]!) <= 1) close++;
  return close / expected.length;
}

/** With latents, which the test frees. */
const generate = (prompt: string | readonly string[], options: GenerateOptions = {}) =>
  pipe.generate(prompt, { ...options, keepLatents: true });

const pixels = (result: GenerateResult) => Buffer.concat(result.images.map((image) => image.data));

describe("agreement with the recorded pipeline", () => {
  it.each(Object.entries(recorded.runs))("%s", async (name, run) => {
    const prompts = name === "unguided" ? recorded.prompts[0]! : recorded.prompts;
    const result = await generate(prompts, {
      noise: reference.get(`sample.${name}.noise`)!,
      steps: run.steps,
      guidanceScale: run.guidance_scale,
      rewardTargets: run.reward_targets ?? {},
      negativeRewardTargets: run.negative_reward_targets ?? {},
      imagesPerPrompt: run.num_images_per_prompt ?? 1,
    });
    expect(relative(floats(result.latents), floats(reference.get(`sample.${name}.latents`)!))).toBeLessThanOrEqual(
      1e-4,
    );
    expect(
      agreement(pixels(result), reference.get(`sample.${name}.images`)!.data() as Uint8Array),
    ).toBeGreaterThanOrEqual(0.999);
    result.latents.dispose();
  });

  it("draws the same noise from the seed as the recorded generator", async () => {
    const result = await generate(recorded.prompts[0]!, { seed: 1001, steps: 6, guidanceScale: 0 });
    expect(relative(floats(result.latents), floats(reference.get("sample.unguided.latents")!))).toBeLessThanOrEqual(
      1e-4,
    );
    result.latents.dispose();
  });

  it("agrees in larger batches as well", async () => {
    const result = await generate(recorded.prompts, {
      noise: reference.get("sample.guided.noise")!,
      steps: 6,
      guidanceScale: 7,
      batchSize: 4,
    });
    expect(relative(floats(result.latents), floats(reference.get("sample.guided.latents")!))).toBeLessThanOrEqual(1e-4);
    result.latents.dispose();
  });
});

describe("seeds", () => {
  const options = { steps: 3, guidanceScale: 3 };

  it("give the same bytes whatever else is drawn, and wherever", async () => {
    const alone = await pipe.generate(recorded.prompts[1]!, { ...options, seed: 12 });
    const together = await pipe.generate([recorded.prompts[2]!, recorded.prompts[1]!, recorded.prompts[0]!], {
      ...options,
      seed: 11,
    });
    expect(together.images.map((image) => image.seed)).toEqual([11, 12, 13]);
    expect(together.images[1]!.data).toEqual(alone.images[0]!.data);
    const listed = await pipe.generate(recorded.prompts[1]!, { ...options, imagesPerPrompt: 2, seed: [99, 12] });
    expect(listed.images[1]!.data).toEqual(alone.images[0]!.data);
  });

  it("order pictures by prompt, then by number", async () => {
    const result = await generate(["a cat", "a fox"], { ...options, steps: 1, imagesPerPrompt: 2 });
    expect(result.images.map(({ prompt, seed }) => [prompt, seed])).toEqual([
      ["a cat", 0],
      ["a cat", 1],
      ["a fox", 2],
      ["a fox", 3],
    ]);
    expect(result.latents.shape).toEqual([4, ...pipe.latentShape]);
    result.latents.dispose();
  });
});

describe("a sampler that adds noise", () => {
  const options = { steps: 4, guidanceScale: 2, sampler: "euler_ancestral", samplerOptions: { eta: 0.8 } };
  const bytes = async (prompts: string | string[], more: object) => {
    const { images } = await pipe.generate(prompts, { ...options, ...more });
    return images.map(({ data }) => Buffer.from(data).toString("base64"));
  };

  it("takes it from each picture's own seed, whatever else is drawn", async () => {
    const [alone] = await bytes(recorded.prompts[1]!, { seed: 12 });
    expect(await bytes(recorded.prompts[1]!, { seed: 12 })).toEqual([alone]);
    const among = await bytes([recorded.prompts[2]!, recorded.prompts[1]!], { seed: [3, 12] });
    expect(among[1]).toBe(alone);
    expect(await bytes(recorded.prompts[1]!, { seed: 13 })).not.toEqual([alone]);
    expect(await bytes(recorded.prompts[1]!, { seed: 12, samplerOptions: { eta: 0 } })).not.toEqual([alone]);
  });

  it("takes it from the initial noise where that is given", async () => {
    const noise = randn([2, ...pipe.latentShape]);
    const [first, second] = await bytes(["a cat", "a cat"], { noise });
    const [again] = await bytes("a cat", { noise: noise.narrow(0, 1, 1) });
    expect(again).toBe(second);
    expect(first).not.toBe(second);
    noise.dispose();
  });

  it("stores its options, defaults filled in, and refuses those of others", async () => {
    const [given] = await pipe.describe("a cat", options);
    expect(given).toMatchObject({ sampler: "euler_ancestral", samplerOptions: { eta: 0.8 } });
    const [plain] = await pipe.describe("a cat", { sampler: "euler_ancestral" });
    expect(plain!.samplerOptions).toEqual({ eta: 1 });
    expect(await pipe.describe("a cat", { sampler: "euler" })).not.toHaveProperty("0.samplerOptions");
    await expect(pipe.generate("a cat", { sampler: "euler", samplerOptions: { eta: 1 } })).rejects.toThrow(
      /^samplerOptions\.eta: expected an option of the sampler euler/,
    );
  });
});

describe("deterministic", () => {
  const options = { steps: 3, guidanceScale: 3, deterministic: true };

  it("gives the same bytes in every batch and at every place of it", async () => {
    const target = { prompt: recorded.prompts[1]!, seed: 12 };
    const alone = await pipe.generate(target.prompt, { ...options, seed: target.seed });
    const plain = await pipe.generate(target.prompt, { ...options, deterministic: false, seed: target.seed });
    expect(plain.images[0]!.data).toEqual(alone.images[0]!.data);
    for (const batchSize of [1, 2, 3, 4]) {
      for (const place of [0, 1, 3]) {
        const prompts = [recorded.prompts[0]!, recorded.prompts[2]!, recorded.prompts[0]!, "a cat"];
        const seed = [1, 2, 3, 4];
        prompts[place] = target.prompt;
        seed[place] = target.seed;
        const together = await pipe.generate(prompts, { ...options, batchSize, seed });
        expect(together.images[place]!.data, `batch ${batchSize}, place ${place}`).toEqual(alone.images[0]!.data);
      }
    }
  });
});

describe("negative prompts", () => {
  const options = { steps: 3, guidanceScale: 3 };
  const draw = async (prompt: string | string[], more: object = {}) => {
    const { images } = await pipe.generate(prompt, { ...options, ...more });
    return images;
  };

  it("take the place of the empty text, one for all prompts or one for each", async () => {
    const [plain] = await draw("a cat");
    const [negative] = await draw("a cat", { negativePrompt: "a fox" });
    expect(negative!.data).not.toEqual(plain!.data);
    expect(negative!.settings.negativePrompt).toBe("a fox");
    expect(plain!.settings).not.toHaveProperty("negativePrompt");
    const listed = await draw(["a dog", "a cat"], { seed: [1, 0], negativePrompt: ["blurry", "a fox"] });
    expect(listed[1]!.data).toEqual(negative!.data);
    const [unguided] = await draw("a cat", { guidanceScale: 0 });
    const [without] = await draw("a cat", { guidanceScale: 0, negativePrompt: "a fox" });
    expect(without!.settings).not.toHaveProperty("negativePrompt");
    expect(without!.data).toEqual(unguided!.data);
  });

  it("cancel guidance where text and rewards are those of the prompt", async () => {
    const same = { rewardTargets: { clip_score: 0.5 }, negativeRewardTargets: { clip_score: 0.5 } };
    const keys = pipe.coherenceKeys;
    const all = (value: number) => Object.fromEntries(keys.map((key) => [key, value]));
    const cancelled = await generate("a cat", {
      ...options,
      negativePrompt: "a cat",
      rewardTargets: { ...all(0.5), ...same.rewardTargets },
      negativeRewardTargets: { ...all(0.5), ...same.negativeRewardTargets },
    });
    const unguided = await generate("a cat", { steps: 3, guidanceScale: 0, rewardTargets: all(0.5) });
    expect(relative(floats(cancelled.latents), floats(unguided.latents))).toBeLessThanOrEqual(1e-4);
    cancelled.latents.dispose();
    unguided.latents.dispose();
  });
});

describe("streams", () => {
  it("deliver each picture before the next is begun, the same as a call does", async () => {
    const prompts = ["a cat", "a fox", "a dog"];
    const whole = await pipe.generate(prompts, { steps: 2 });
    const events: string[] = [];
    const pictures = [];
    for await (const image of pipe.stream(prompts, {
      steps: 2,
      onStep: ({ image, step }) => void events.push(`step ${step} of ${image}`),
    })) {
      events.push(`got ${image.prompt}`);
      pictures.push(image.data);
    }
    expect(events).toEqual(prompts.flatMap((prompt, i) => [`step 0 of ${i}`, `step 1 of ${i}`, `got ${prompt}`]));
    expect(pictures).toEqual(whole.images.map(({ data }) => data));
  });

  it("stop when the loop is left, and leave nothing behind", async () => {
    const before = memory.stats().liveTensors;
    const steps: number[] = [];
    for await (const _ of pipe.stream("a cat", {
      steps: 1,
      imagesPerPrompt: 50,
      onStep: ({ image }) => void steps.push(image),
    })) {
      if (steps.length === 2) break;
    }
    expect(steps).toEqual([0, 1]);
    expect(memory.stats().liveTensors).toBe(before);
  });
});

describe("conditioning", () => {
  it("is shared by the pictures of one prompt", async () => {
    const { network } = pipe;
    const condition = vi.spyOn(network, "condition");
    await pipe.generate(["a cat", "a cat", "a fox"], {
      steps: 2,
      guidanceScale: 2,
      imagesPerPrompt: 2,
    });
    expect(condition).toHaveBeenCalledTimes(2);
    condition.mockRestore();
  });

  it("is computed before the first step, and the result is that of computing it at every step", async () => {
    const options = { steps: 5, guidanceScale: 4, seed: 5 };
    const { network } = pipe;
    const original = network.condition.bind(network);
    const inputs: Parameters<typeof original>[0][] = [];
    network.condition = (input) => {
      const kept = {
        textEmbeddings: input.textEmbeddings.clone().keep(),
        textMask: input.textMask.clone().keep(),
        rewards: Object.fromEntries(Object.entries(input.rewards).map(([key, t]) => [key, t.clone().keep()])),
      };
      inputs.push(kept);
      return original(input);
    };
    try {
      const once = await generate(recorded.prompts[0]!, options);
      expect(inputs).toHaveLength(1);
      // Now the network is given text and rewards at every step instead.
      const apply = pipe.preconditioning.apply.bind(pipe.preconditioning);
      pipe.preconditioning.apply = (target, { y, gamma, previousLatents }) =>
        apply(target, { y, gamma, previousLatents, ...inputs[0]! });
      try {
        const repeated = await generate(recorded.prompts[0]!, options);
        expect(inputs.length).toBe(2 + 5);
        expect(relative(floats(repeated.latents), floats(once.latents))).toBeLessThanOrEqual(1e-6);
        repeated.latents.dispose();
      } finally {
        pipe.preconditioning.apply = apply;
      }
      once.latents.dispose();
    } finally {
      network.condition = original;
      for (const { textEmbeddings, textMask, rewards } of inputs)
        for (const t of [textEmbeddings, textMask, ...Object.values(rewards)]) t.dispose();
    }
  });

  it("takes one set of targets per picture", async () => {
    const key = pipe.coherenceKeys[0]!;
    const options = { steps: 2, guidanceScale: 2 };
    const both = await pipe.generate("a cat", {
      ...options,
      seed: [3, 3],
      imagesPerPrompt: 2,
      rewardTargets: [{ [key]: 0.1 }, { [key]: 0.9 }],
    });
    const low = await pipe.generate("a cat", { ...options, seed: 3, rewardTargets: { [key]: 0.1 } });
    expect(both.images[0]!.data).toEqual(low.images[0]!.data);
    expect(both.images[1]!.data).not.toEqual(low.images[0]!.data);
    expect(both.images[1]!.settings.rewardTargets[key]).toBe(0.9);
  });

  it("takes negative targets for each picture, and mixes lists with one for all", async () => {
    const key = pipe.coherenceKeys[0]!;
    const options = { steps: 2, guidanceScale: 2 };
    const mixed = await pipe.generate("a cat", {
      ...options,
      seed: [3, 3],
      imagesPerPrompt: 2,
      rewardTargets: { [key]: 0.7 },
      negativeRewardTargets: [{ [key]: 0.2 }, {}],
    });
    for (const [i, negative] of [0.2, 0].entries()) {
      const alone = await pipe.generate("a cat", {
        ...options,
        seed: 3,
        rewardTargets: { [key]: 0.7 },
        negativeRewardTargets: { [key]: negative },
      });
      expect(mixed.images[i]!.data).toEqual(alone.images[0]!.data);
    }
    expect(mixed.images[0]!.data).not.toEqual(mixed.images[1]!.data);
  });

  it("takes embeddings with padding that is marked as such, by length or by mask", async () => {
    const options = { steps: 2, guidanceScale: 2, seed: 3 };
    const states = await pipe.encodePrompt("a cat");
    const encoded = await generate("a cat", options);
    const [T, width] = states.embeddings.shape as [number, number];
    const embeddings = scope(() => cat([states.embeddings, randn([3, width])], 0));
    const mask = scope(() => cat([ones([T], { dtype: "bool" }), zeros([3], { dtype: "bool" })], 0));
    for (const given of [states, { embeddings, length: T }, { embeddings, mask }]) {
      const result = await generate("", { ...options, promptEmbeddings: [given] });
      expect(relative(floats(result.latents), floats(encoded.latents))).toBeLessThanOrEqual(1e-6);
      result.latents.dispose();
    }
    const unmarked = await generate("", { ...options, promptEmbeddings: [embeddings] });
    expect(relative(floats(unmarked.latents), floats(encoded.latents))).toBeGreaterThan(1e-3);
    for (const t of [states.embeddings, embeddings, mask, unmarked.latents, encoded.latents]) t.dispose();
  });

  it("takes prompt embeddings instead of text", async () => {
    const options = { steps: 2, guidanceScale: 2, seed: 3 };
    const { embeddings } = await pipe.encodePrompt("a cat");
    const given = await pipe.generate("", { ...options, promptEmbeddings: [embeddings] });
    const encoded = await pipe.generate("a cat", options);
    expect(given.images[0]!.data).toEqual(encoded.images[0]!.data);
    for (const t of [embeddings]) t.dispose();
  });
});

describe("guidance", () => {
  it("runs windows and linear guidance", async () => {
    const plain = await pipe.generate("a cat", { steps: 4, guidanceScale: 3 });
    const whole = await pipe.generate("a cat", { steps: 4, guidanceScale: 3, guidanceWindow: [0, 3] });
    const part = await pipe.generate("a cat", { steps: 4, guidanceScale: 3, guidanceWindow: [1, 2] });
    const linear = await pipe.generate("a cat", { steps: 4, guidanceScale: 3, guidanceType: "linear" });
    const off = await pipe.generate("a cat", { steps: 4, guidanceScale: 3, guidanceWindow: [9, null] });
    const none = await pipe.generate("a cat", { steps: 4, guidanceScale: 0 });
    expect(whole.images[0]!.data).toEqual(plain.images[0]!.data);
    expect(off.images[0]!.data).toEqual(none.images[0]!.data);
    for (const other of [part, linear, none]) expect(other.images[0]!.data).not.toEqual(plain.images[0]!.data);
  });
});

describe("the dynamic shift", () => {
  it("is that of the picture's size", async () => {
    const options = { steps: 3, guidanceScale: 0 };
    const dynamic = await pipe.generate("a cat", { ...options, shift: "dynamic" });
    const shift = dynamicShift(...(pipe.latentShape.slice(1) as [number, number]));
    const number = await pipe.generate("a cat", { ...options, shift });
    expect(dynamic.images[0]!.settings.shift).toBe(shift);
    expect(dynamic.images[0]!.data).toEqual(number.images[0]!.data);
  });
});

describe("a call", () => {
  it("reports steps and finished pictures, and warns of text that was cut", async () => {
    const steps: string[] = [];
    const finished: number[] = [];
    const heard: string[] = [];
    const long = "an oil painting of a fox ".repeat(20);
    const result = await pipe.generate(["a cat", long], {
      steps: 2,
      onStep: ({ step, images, imageCount, denoised }) => {
        expect(denoised.shape).toEqual([1, ...pipe.latentShape]);
        steps.push(`${step}:${images}/${imageCount}`);
      },
      onImage: (_image, index) => void finished.push(index),
      onWarning: (warning) => void heard.push(warning),
    });
    expect(steps).toEqual(["0:0/2", "1:0/2", "0:1/2", "1:1/2"]);
    expect(finished).toEqual([0, 1]);
    expect(result.warnings).toEqual([
      expect.stringMatching(
        /^the prompt "an oil painting of a fox .*…" is longer than 40 tokens; these words were cut: "/,
      ),
    ]);
    expect(heard).toEqual(result.warnings);
    // What was kept and what was cut are the prompt, split between two words.
    const cut = JSON.parse(/cut: (".*")$/.exec(result.warnings[0]!)![1]!) as string;
    const words = long.trim();
    expect(words.endsWith(cut)).toBe(true);
    const { tokenizer } = await pipe.textEncoder();
    expect(tokenizer.encode(words.slice(0, -cut.length).trim()).length).toBeLessThanOrEqual(40);
    expect(tokenizer.encode(words.slice(0, words.indexOf(" ", words.length - cut.length) + 1)).length).toBeGreaterThan(
      40,
    );
  });

  it("stops within one step of the signal", async () => {
    const abort = new AbortController();
    let last = -1;
    const run = pipe.generate("a cat", {
      steps: 1000,
      signal: abort.signal,
      onStep: ({ step }) => {
        last = step;
        if (step === 3) setImmediate(() => abort.abort());
      },
    });
    await expect(run).rejects.toThrow(expect.objectContaining({ name: "AbortError" }));
    expect(last).toBeLessThanOrEqual(4);
  });

  it("stops between two pictures, two texts and before decoding", async () => {
    const before = memory.stats().liveTensors;
    const abort = new AbortController();
    const decode = vi.spyOn(pipe.autoencoder, "decode");
    const run = pipe.generate(["a cat", "a fox"], {
      steps: 2,
      signal: abort.signal,
      onStep: ({ step }) => {
        if (step === 1) abort.abort();
      },
    });
    await expect(run).rejects.toThrow(expect.objectContaining({ name: "AbortError" }));
    expect(decode).not.toHaveBeenCalled();
    decode.mockRestore();
    const texts = new AbortController();
    const { encoder } = await pipe.textEncoder();
    const forward = encoder.forward.bind(encoder);
    const encode = vi.spyOn(encoder, "forward").mockImplementation((...given) => {
      texts.abort();
      return forward(...given);
    });
    const encoding = pipe.generate(["a cat", "a fox"], { steps: 2, signal: texts.signal });
    await expect(encoding).rejects.toThrow(expect.objectContaining({ name: "AbortError" }));
    expect(encode).toHaveBeenCalledTimes(1);
    encode.mockRestore();
    expect(memory.stats().liveTensors).toBe(before);
  });

  it("leaves no tensor behind but its latents, and those only where they are kept", async () => {
    const call = async () =>
      (await generate(["a cat", "a fox"], { steps: 2, imagesPerPrompt: 2, batchSize: 3 })).latents.dispose();
    const without = () => pipe.generate(["a cat", "a fox"], { steps: 1 });
    await call();
    const before = memory.stats().liveTensors;
    for (let i = 0; i < 3; i++) await call();
    expect((await without()).latents).toBeNull();
    expect(memory.stats().liveTensors).toBe(before);
  });

  it.each([
    [
      "an unknown reward",
      { rewardTargets: { beauty: 1 } },
      /^rewardTargets: this checkpoint was not trained on beauty; its rewards are clip_score, aesthetic_score, image_reward_score$/,
    ],
    ["an unknown negative reward", { negativeRewardTargets: { vqa_score: 1 } }, /^negativeRewardTargets: .* vqa_score/],
    ["no steps", { steps: 0 }, /^steps: expected an integer of at least 1, received 0$/],
    ["NaN guidance", { guidanceScale: Number.NaN }, /^guidanceScale: expected a finite number, received NaN$/],
    ["infinite guidance", { guidanceScale: Number.POSITIVE_INFINITY }, /^guidanceScale: /],
    ["a negative seed", { seed: -1 }, /^seed: expected an integer of at least 0/],
    [
      "too few seeds",
      { seed: [1, 2], imagesPerPrompt: 3 },
      /^seed: expected one number, or one for each of 3 pictures, received 2 numbers$/,
    ],
    [
      "an unknown sampler",
      { sampler: "magic" as "euler" },
      /^sampler: expected one of euler, heun, midpoint, ab2, dpmpp_2m, euler_ancestral, received "magic"$/,
    ],
    ["a shift of no use", { shift: 0 }, /^shift: expected a positive number, or dynamic, received 0$/],
    [
      "too few negative prompts",
      { negativePrompt: ["a", "b"] },
      /^negativePrompt: expected one text for all prompts or one for each of 1, received 2 texts$/,
    ],
    [
      "a text that no picture can store",
      { negativePrompt: "x".repeat(2 ** 20 + 1) },
      /^negativePrompt: expected a text of at most 1048576 characters, received one of 1048577$/,
    ],
    ["an unknown option", { guidance: 3 } as object, /^guidance: /],
    [
      "too many targets",
      { rewardTargets: [{}, {}] },
      /^rewardTargets: expected one set for all pictures or one for each of 1/,
    ],
  ])("refuses %s before computing anything", async (_what, options, message) => {
    const run = pipe.generate("a cat", options);
    await expect(run).rejects.toThrow(message);
    await expect(run).rejects.toBeInstanceOf(InvalidInputError);
  });

  it("refuses noise and embeddings of wrong shapes", async () => {
    const noise = reference.get("sample.guided.noise")!;
    await expect(pipe.generate("a cat", { noise })).rejects.toThrow("noise: expected shape (1, 4, 8, 8)");
    await expect(pipe.generate("a cat", { promptEmbeddings: [noise] })).rejects.toThrow(
      "promptEmbeddings: expected shape (tokens, 48)",
    );
  });

  it("tells NaN in what the caller gives from a damaged checkpoint", async () => {
    const noise = ones([1, ...pipe.latentShape]).div_(0);
    const states = ones([3, 48]).mul_(Number.NaN);
    await expect(pipe.generate("a cat", { noise })).rejects.toThrow("noise: expected finite values");
    await expect(pipe.generate("a cat", { promptEmbeddings: [states] })).rejects.toThrow(
      "promptEmbeddings: expected finite values",
    );
    expect(() => pipe.decode(noise)).toThrow("latents: expected finite values");
    for (const tensor of [noise, states]) tensor.dispose();
  });
});

describe("batches that do not fit in memory", () => {
  it("are halved until they do, without losing a picture or its place", async () => {
    const own = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
      dtype: "float32",
      textEncoder: `${tiny}/text_encoder`,
      vae: `${tiny}/vae`,
    });
    const options = { imagesPerPrompt: 5, steps: 2, guidanceScale: 1 };
    const expected = await own.generate("a cat", { ...options, batchSize: 2 });
    const apply = own.preconditioning.apply.bind(own.preconditioning);
    const tried: number[] = [];
    const limit = vi.spyOn(own.preconditioning, "apply").mockImplementation((network, batch) => {
      const rows = (batch.y as Tensor).shape[0]! / 2;
      tried.push(rows);
      if (rows > 2) throw new TorchError("CUDA out of memory. Tried to allocate 2.00 GiB");
      return apply(network, batch);
    });
    const result = await own.generate("a cat", { ...options, batchSize: 5 });
    expect(tried.filter((rows) => rows > 2)).toEqual([5, 3]);
    expect(pixels(result).equals(pixels(expected))).toBe(true);
    expect(result.images.map(({ seed }) => seed)).toEqual([0, 1, 2, 3, 4]);
    expect(result.warnings).toEqual([
      "5 pictures at a time do not fit in memory; drawing 3 at a time",
      "3 pictures at a time do not fit in memory; drawing 2 at a time",
    ]);
    tried.length = 0;
    await own.generate("a cat", { ...options, batchSize: 5 });
    expect(Math.max(...tried)).toBe(2); // what was found out is remembered
    limit.mockImplementation(() => {
      throw new TorchError("CUDA out of memory.");
    });
    await expect(own.generate("a cat", { ...options, batchSize: 1 })).rejects.toThrow(/out of memory/);
    await own.dispose();
  });
});
