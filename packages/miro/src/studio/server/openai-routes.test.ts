/** OpenAI's routes, asked by their own clients for JavaScript and by hand. */
import { rmSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";
import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { decodeShown } from "../../pictures/decode-shown.js";
import { encodeImage } from "../../pictures/image-files.js";
import { readPng } from "../../pictures/png.js";
import { sharp } from "../../pictures/sharp.js";
import { readSettings } from "../../pipeline/settings.js";
import type { Studio } from "./studio.js";
import { TinyStudios } from "./testing/tiny-studio.js";

const studios = new TinyStudios();
let studio: Studio;
let model: string;
let client: OpenAI;
/** What OpenAI's types do not know of, as its clients send it. */
const extra = { steps: 2, guidanceScale: 1, seed: 3 } as Record<string, unknown>;
const generate = (body: Partial<OpenAI.Images.ImageGenerateParams> & Record<string, unknown> = {}) =>
  client.images.generate({ prompt: "a cat", ...extra, ...body } as OpenAI.Images.ImageGenerateParamsNonStreaming);

beforeAll(async () => {
  model = studios.model();
  studio = await studios.start({ models: [model], maxImages: 4 });
  client = new OpenAI({ baseURL: `${studio.url}/v1`, apiKey: "none", maxRetries: 0 });
});
afterAll(() => studios.end());

const settingsOf = (b64: string) => readSettings(readPng(Buffer.from(b64, "base64"), "it").text, "it");
const idle = () => expect.poll(() => studio.queue.running + studio.queue.waiting, { interval: 20 }).toBe(0);
const grey = async (side: number) =>
  Buffer.from(await encodeImage({ width: side, height: side, data: new Uint8Array(side * side * 3).fill(90) }, []));
const fromForm = async (form: FormData, path = "/v1/images/edits") =>
  fetch(`${studio.url}${path}`, { method: "POST", body: form });

describe("images.generate", () => {
  it("gives pictures with their settings, their seeds and what they took", async () => {
    const answer = await generate({ n: 2, rewardTargets: { clip_score: 0.5 } });
    expect(answer).toMatchObject({ output_format: "png", size: studio.engine.card(undefined)!.size.join("x") });
    expect(answer.data!.map(({ revised_prompt }) => revised_prompt)).toEqual(["a cat", "a cat"]);
    expect(answer.data!.map((one) => (one as { seed?: number }).seed)).toEqual([3, 4]);
    const [first, second] = answer.data!.map(({ b64_json }) => settingsOf(b64_json!));
    expect(first).toMatchObject({ prompt: "a cat", seed: 3, steps: 2, rewardTargets: { clip_score: 0.5 } });
    expect(second!.seed).toBe(4);
    const { usage } = answer;
    expect(usage!.input_tokens).toBeGreaterThan(0);
    expect(usage!.total_tokens).toBe(usage!.input_tokens + usage!.output_tokens);
    expect(Math.abs(answer.created - Date.now() / 1000)).toBeLessThan(60);
  });

  it("takes quality as a number of steps, and an own number before it", async () => {
    const stepsOf = async (body: Record<string, unknown>) =>
      settingsOf((await generate({ steps: null, ...body })).data![0]!.b64_json!).steps;
    expect(await stepsOf({ quality: "low" })).toBe(20);
    expect(await stepsOf({ quality: "medium" })).toBe(studio.engine.card(undefined)!.defaults.steps);
    expect(await stepsOf({ quality: "high" })).toBe(100);
    expect(await stepsOf({ quality: "high", steps: 3 })).toBe(3);
  });

  it("writes other formats, smaller where asked, and addresses that lead to them", async () => {
    for (const output_format of ["jpeg", "webp"] as const) {
      const [{ b64_json: large }] = (await generate({ output_format })).data as [{ b64_json: string }];
      const [{ b64_json: small }] = (await generate({ output_format, output_compression: 10 })).data as [
        { b64_json: string },
      ];
      expect((await sharp(Buffer.from(large, "base64")).metadata()).format).toBe(output_format);
      expect(small.length).toBeLessThan(large.length);
      const { data } = await generate({ output_format, output_compression: 10, response_format: "url" });
      const answer = await fetch(data![0]!.url!);
      expect(answer.headers.get("content-type")).toBe(`image/${output_format}`);
      expect(Buffer.from(await answer.arrayBuffer()).toString("base64")).toBe(small);
    }
    const { data } = await generate({ response_format: "url" });
    expect(data![0]!.url).toMatch(/\/api\/pictures\/\w+\.png$/);
    expect((await fetch(data![0]!.url!)).headers.get("content-type")).toBe("image/png");
    // A proxy in front says how it was asked.
    const headers = {
      "x-forwarded-proto": "https",
      "x-forwarded-host": "draw.example",
      "x-forwarded-prefix": "/studio/",
    };
    const body = { prompt: "a cat", ...extra, response_format: "url" } as OpenAI.Images.ImageGenerateParamsNonStreaming;
    const behind = await client.images.generate(body, { headers });
    expect(behind.data![0]!.url).toMatch(/^https:\/\/draw\.example\/studio\/api\/pictures\//);
  });

  it("gives pictures that went to the trash meanwhile, and says where one is gone altogether", async () => {
    const { gallery } = studio;
    const add = gallery.add.bind(gallery);
    const adding = vi.spyOn(gallery, "add");
    const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      adding.mockImplementation((...given) => {
        const id = add(...given);
        gallery.remove(id);
        return id;
      });
      for (const output_format of ["png", "webp"] as const)
        expect((await generate({ output_format })).data![0]!.b64_json).toMatch(/^[\w+/]+=*$/);
      adding.mockImplementation((path, settings) => {
        const id = add(path, settings);
        rmSync(path);
        return id;
      });
      await expect(generate()).rejects.toThrow("500 a picture was removed before it could be sent");
    } finally {
      adding.mockRestore();
      said.mockRestore();
    }
  });

  it("streams as many partial pictures as asked for, then each picture, in the format that it names", async () => {
    const stream = await client.images.generate({
      prompt: "a cat",
      ...extra,
      steps: 9,
      n: 2,
      stream: true,
      partial_images: 2,
      output_format: "webp",
    } as OpenAI.Images.ImageGenerateParamsStreaming);
    const events: (OpenAI.Images.ImageGenStreamEvent & { index?: number })[] = [];
    for await (const event of stream) events.push(event);
    const of = (type: string) => events.filter((event) => event.type === type);
    const partial = of("image_generation.partial_image") as (OpenAI.Images.ImageGenPartialImageEvent & {
      index: number;
    })[];
    expect(partial.map(({ index, partial_image_index }) => [index, partial_image_index]).sort()).toEqual([
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ]);
    const done = of("image_generation.completed") as OpenAI.Images.ImageGenCompletedEvent[];
    expect(done).toHaveLength(2);
    expect(events.at(-1)!.type).toBe("image_generation.completed");
    const [width, height] = studio.engine.card(undefined)!.size;
    for (const event of [...partial, ...done]) {
      expect(event).toMatchObject({ output_format: "webp", quality: "medium", size: `${width}x${height}` });
      const { format, ...size } = await sharp(Buffer.from(event.b64_json, "base64")).metadata();
      expect([format, size.width, size.height]).toEqual(["webp", width, height]);
    }
    for (const { usage } of done) expect(usage.total_tokens).toBe(usage.input_tokens + usage.output_tokens);
  });

  it("tells in the stream why there are no pictures", async () => {
    const damage = Buffer.from([0x47, 0x49, 0x46, 0x38, 0x39, 0x61, 8, 0, 8, 0, 0, 0, 0]).toString("base64");
    const stream = await client.images
      .generate({
        prompt: "a cat",
        ...extra,
        stream: true,
        image: `data:image/gif;base64,${damage}`,
        strength: 0.5,
      } as unknown as OpenAI.Images.ImageGenerateParamsStreaming)
      .catch((error: Error) => error);
    if (stream instanceof Error) expect(stream).toBeInstanceOf(OpenAI.BadRequestError);
    else
      await expect(async () => {
        for await (const _ of stream);
      }).rejects.toBeInstanceOf(OpenAI.APIError);
  });

  it("cancels the job of who hangs up, waiting for an answer or in the middle of a stream", async () => {
    const abort = new AbortController();
    const call = client.images.generate(
      { prompt: "a cat", ...extra, steps: 50_000 } as OpenAI.Images.ImageGenerateParamsNonStreaming,
      { signal: abort.signal },
    );
    await expect.poll(() => studio.queue.running).toBe(1);
    abort.abort();
    await expect(call).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
    await idle();
    const stream = await client.images.generate({
      prompt: "a cat",
      ...extra,
      steps: 50_000,
      stream: true,
      partial_images: 3,
      previewEvery: 10,
    } as OpenAI.Images.ImageGenerateParamsStreaming);
    expect(studio.queue.running + studio.queue.waiting).toBe(1);
    stream.controller.abort();
    await idle();
    expect(studio.queue.list().filter(({ status }) => status === "cancelled")).toHaveLength(2);
  });
});

describe("images.edit", () => {
  it("draws over a picture, and with a mask in its transparent places alone", async () => {
    const [side] = studio.engine.card(undefined)!.size;
    const image = await toFile(await grey(side), "grey.png", { type: "image/png" });
    const edited = await client.images.edit({
      image,
      prompt: "a cat",
      ...extra,
      steps: 4,
      strength: 0.5,
      rewardTargets: { clip_score: 0.25 },
    } as OpenAI.Images.ImageEditParamsNonStreaming);
    expect(settingsOf(edited.data![0]!.b64_json!)).toMatchObject({
      strength: 0.5,
      seed: 3,
      steps: 4,
      image: { sha256: expect.any(String) },
      rewardTargets: { clip_score: 0.25 },
    });
    const alpha = Buffer.alloc(side * side * 4, 255);
    for (let y = 0; y < side; y++) for (let x = 0; x < side / 2; x++) alpha[(y * side + x) * 4 + 3] = 0;
    const mask = await sharp(alpha, { raw: { width: side, height: side, channels: 4 } })
      .png()
      .toBuffer();
    const painted = await client.images.edit({
      image: [image],
      mask: await toFile(mask, "mask.png", { type: "image/png" }),
      prompt: "a cat",
      ...extra,
    } as OpenAI.Images.ImageEditParamsNonStreaming);
    const { data } = await decodeShown(Buffer.from(painted.data![0]!.b64_json!, "base64"));
    const far = (from: number, to: number) => {
      let sum = 0;
      for (let y = 0; y < side; y++) for (let x = from; x < to; x++) sum += Math.abs(data[(y * side + x) * 3]! - 90);
      return sum / (side * (to - from));
    };
    expect(far(side / 2 + 1, side)).toBeLessThan(1);
    expect(far(0, side / 2 - 1)).toBeGreaterThan(4);
  });

  /** The types of the events of an edit. */
  const streamed = async (options: object): Promise<string[]> => {
    const stream = await client.images.edit({
      image: await toFile(await grey(64), "grey.png", { type: "image/png" }),
      prompt: "a cat",
      ...extra,
      stream: true,
      ...options,
    } as OpenAI.Images.ImageEditParamsStreaming);
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    return types;
  };

  it("streams under its own names", async () => {
    expect(await streamed({ steps: 8, strength: 1, partial_images: 1 })).toEqual([
      "image_edit.partial_image",
      "image_edit.completed",
    ]);
  });

  it("streams as many partial pictures as asked for where not all steps are drawn", async () => {
    expect(await streamed({ steps: 12, partial_images: 3 })).toEqual([
      ...Array(3).fill("image_edit.partial_image"),
      "image_edit.completed",
    ]);
  });

  it("refuses what it cannot draw over", async () => {
    const form = (fields: Record<string, string | Blob>) => {
      const made = new FormData();
      for (const [name, value] of Object.entries({ prompt: "a cat", ...fields })) made.append(name, value);
      return made;
    };
    const png = new Blob([await grey(64)]);
    // A good header with half of the pixels is found when they are decoded.
    const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251);
    const whole = await encodeImage({ width: 64, height: 64, data: noise }, []);
    const half = new Blob([new Uint8Array(whole.subarray(0, whole.length / 2))]);
    const bomb = await sharp({ create: { width: 9000, height: 9000, channels: 3, background: "white" } })
      .png()
      .toBuffer();
    const cases: [FormData, number, string | null][] = [
      [form({}), 400, "image"],
      [form({ image: new Blob(["no picture"]) }), 400, "image"],
      [form({ image: new Blob([new Uint8Array(bomb)]) }), 400, "image"],
      [form({ image: half }), 400, "image"],
      [form({ image: png, mask: png }), 400, "mask"],
      [form({ image: png, other: png }), 400, "other"],
      [form({ image: png, steps: "few" }), 400, "steps"],
      [form({ image: png, "__proto__[a]": "1" }), 400, "__proto__[a]"],
      [form({ image: new Blob([new Uint8Array(33 * 2 ** 20)]) }), 413, null],
    ];
    for (const [body, status, param] of cases) {
      const answer = await fromForm(body);
      const { error } = (await answer.json()) as { error: { param: string; type: string } };
      expect([answer.status, error.type, error.param]).toEqual([status, "invalid_request_error", param]);
    }
  });
});

describe("other clients and routes", () => {
  it("serves the AI SDK", async () => {
    const provider = createOpenAICompatible({ name: "miro", baseURL: `${studio.url}/v1` });
    const { image, images } = await generateImage({
      model: provider.imageModel(model),
      prompt: "a cat",
      n: 2,
      providerOptions: { miro: extra as never },
    });
    expect(images).toHaveLength(2);
    expect(settingsOf(image.base64)).toMatchObject({ prompt: "a cat", steps: 2 });
  });

  it("lists the models", async () => {
    const { data } = await client.models.list();
    expect(data).toMatchObject([{ id: model, object: "model", owned_by: "miro" }]);
    expect(await client.models.retrieve(model)).toEqual(data[0]);
    await expect(client.models.retrieve("gpt-image-1")).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  it("errs as OpenAI does, naming the parameter", async () => {
    const own = studio.engine.card(undefined)!.size.join("x");
    const cases: [Record<string, unknown>, number, string | null, RegExp][] = [
      [{ size: "1024x1024" }, 400, "size", new RegExp(own)],
      [{ n: 5 }, 400, "n", /1 to 4/],
      [{ model: "gpt-image-1" }, 404, "model", /gpt-image-1/],
      [{ prompt: "" }, 400, "prompt", /text/],
      [{ steps: 0 }, 400, "steps", /at least 1/],
      [{ partial_images: 4 }, 400, "partial_images", /0 to 3/],
      [{ output_compression: 50 }, 400, "output_compression", /jpeg or webp/],
      [{ rewardTargets: { beauty: 1 } }, 400, "rewardTargets.beauty", /rewards/],
      [{ colour: "red" }, 400, "colour", /unknown/],
      [{ prompt: "a".repeat(2 ** 20) }, 413, null, /large/i],
    ];
    for (const [body, status, param, message] of cases) {
      const error = (await generate(body).catch((caught: Error) => caught)) as InstanceType<typeof OpenAI.APIError>;
      expect(error).toBeInstanceOf(OpenAI.APIError);
      expect([error.status, error.type, error.param ?? null]).toEqual([status, "invalid_request_error", param]);
      expect(error.message).toMatch(message);
    }
    const missing = await fetch(`${studio.url}/v1/chat/completions`, { method: "POST" });
    expect(await missing.json()).toMatchObject({ error: { type: "invalid_request_error", param: null } });
  });

  it("answers 429 when the queue is full, and 401 without the key", async () => {
    const own = await studios.start({ models: [model], queue: 1, key: "correct-horse" });
    const keyed = (apiKey: string) => new OpenAI({ baseURL: `${own.url}/v1`, apiKey, maxRetries: 0 });
    const body = { prompt: "a cat", ...extra, steps: 50_000, deterministic: true };
    const abort = new AbortController();
    const ask = () => keyed("correct-horse").images.generate(body as never, { signal: abort.signal });
    const held = [ask()];
    await expect.poll(() => own.queue.running).toBe(1);
    held.push(ask());
    await expect.poll(() => own.queue.waiting).toBe(1);
    await expect(ask()).rejects.toMatchObject({ status: 429, type: "rate_limit_error", code: "rate_limit_exceeded" });
    await expect(keyed("wrong-horse").models.list()).rejects.toMatchObject({
      status: 401,
      type: "authentication_error",
      code: "invalid_api_key",
    });
    abort.abort();
    for (const call of held) await expect(call).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
  });
});
