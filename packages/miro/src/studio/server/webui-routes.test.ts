/** The web UI's routes, asked as its clients ask. */
import { rmSync } from "node:fs";
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
let models: string[];
let side: number;

beforeAll(async () => {
  models = [studios.model("one"), studios.model("two")];
  studio = await studios.start({ models, maxImages: 6 });
  [side] = studio.engine.card(undefined)!.size;
});
afterAll(() => studios.end());

const call = async (path: string, body?: object): Promise<{ status: number; json: any }> => {
  const answer = await fetch(`${studio.url}/sdapi/v1/${path}`, {
    ...(body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  return { status: answer.status, json: await answer.json() };
};
/** As the clients send it: everything, with what is not given as null, false or empty. */
const usual = {
  prompt: "a cat",
  negative_prompt: "",
  steps: 2,
  cfg_scale: 2,
  seed: 3,
  subseed: -1,
  subseed_strength: 0,
  batch_size: 1,
  n_iter: 1,
  sampler_name: "Euler",
  sampler_index: "Euler",
  scheduler: "automatic",
  eta: 1,
  enable_hr: false,
  restore_faces: false,
  tiling: false,
  styles: [],
  script_name: null,
  script_args: [],
  s_churn: 0,
  override_settings: {},
  override_settings_restore_afterwards: true,
  alwayson_scripts: {},
  send_images: true,
  save_images: false,
  firstphase_width: 0,
  hr_scale: 2,
};
const draw = async (body: object = {}, path = "txt2img") => {
  const { status, json } = await call(path, { ...usual, ...body });
  expect([status, json.detail]).toEqual([200, undefined]);
  return { ...json, info: JSON.parse(json.info) } as { images: string[]; info: any; parameters: any };
};
const settingsOf = (image: string) => readSettings(readPng(Buffer.from(image, "base64"), "it").text, "it");
const picture = async (width: number, height: number, level = 90) =>
  Buffer.from(await encodeImage({ width, height, data: new Uint8Array(width * height * 3).fill(level) }, [])).toString(
    "base64",
  );

describe("txt2img", () => {
  it("gives pictures of all rounds with their seeds and settings", async () => {
    const { images, info, parameters } = await draw({
      batch_size: 2,
      n_iter: 2,
      negative_prompt: "a dog",
      width: side,
      height: side,
      alwayson_scripts: { miro: { args: [{ clip_score: 0.5 }] } },
    });
    expect(images).toHaveLength(4);
    expect(info.all_seeds).toEqual([3, 4, 5, 6]);
    expect(info.all_prompts).toEqual(Array(4).fill("a cat"));
    expect(info).toMatchObject({ seed: 3, steps: 2, cfg_scale: 2, width: side, sampler_name: "Euler" });
    expect(info.infotexts[1]).toMatch(/^a cat\nNegative prompt: a dog\nSteps: 2, .*CFG scale: 2, Seed: 4/);
    expect(settingsOf(images[2]!)).toMatchObject({
      seed: 5,
      guidanceScale: 1,
      negativePrompt: "a dog",
      rewardTargets: { clip_score: 0.5 },
    });
    expect(parameters).toMatchObject({ prompt: "a cat", batch_size: 2 });
    const again = await draw({
      seed: 4,
      negative_prompt: "a dog",
      alwayson_scripts: { miro: { args: { clip_score: 0.5 } } },
    });
    const pixels = async (image: string) => (await decodeShown(Buffer.from(image, "base64"))).data;
    expect(await pixels(again.images[0]!)).toEqual(await pixels(images[1]!));
  });

  it("leaves out what was removed meanwhile, but nothing that is only in the trash", async () => {
    const { gallery } = studio;
    const add = gallery.add.bind(gallery);
    const adding = vi.spyOn(gallery, "add").mockImplementation((path, settings) => {
      const id = add(path, settings);
      if (settings.seed === 3) gallery.remove(id);
      if (settings.seed === 4) rmSync(path);
      return id;
    });
    try {
      const { images, info } = await draw({ n_iter: 3 });
      expect([images.length, info.all_seeds]).toEqual([2, [3, 5]]);
    } finally {
      adding.mockRestore();
    }
  });

  it("has the sampler's own noise where eta is null", async () => {
    const { images } = await draw({ sampler_name: "Euler a", eta: null });
    expect(settingsOf(images[0]!)).toMatchObject({ sampler: "euler_ancestral", samplerOptions: { eta: 1 } });
  });

  it("takes options of its own routes, samplers by their titles, variations and random seeds", async () => {
    const { images } = await draw({
      sampler_name: "Euler a",
      eta: 0.5,
      cfg_scale: 1,
      subseed: 7,
      subseed_strength: 0.3,
      n_iter: 2,
      alwayson_scripts: { miro: { args: [{ rewardTargets: { clip_score: 0.25 }, guidanceType: "linear" }] } },
    });
    const [first, second] = images.map(settingsOf);
    expect(first).toMatchObject({
      sampler: "euler_ancestral",
      samplerOptions: { eta: 0.5 },
      guidanceScale: 0,
      guidanceType: "linear",
      seed: 3,
      variationSeed: 7,
      variationStrength: 0.3,
      rewardTargets: { clip_score: 0.25 },
    });
    expect(second).toMatchObject({ seed: 3, variationSeed: 8 });
    const seeds = [await draw({ seed: -1 }), await draw({ seed: -1 })].map(({ info }) => info.seed);
    expect(seeds[0]).not.toBe(seeds[1]);
    expect((await draw({ send_images: false })).images).toEqual([]);
  });

  it("refuses what the model cannot do, with the field and what it can", async () => {
    const cases: [object, number, string, RegExp][] = [
      [{ width: 512 }, 422, "width", new RegExp(`${side}`)],
      [{ height: 0 }, 422, "height", new RegExp(`${side}`)],
      [{ sampler_name: "DDIM" }, 422, "sampler_name", /Euler/],
      [{ scheduler: "karras" }, 422, "scheduler", /automatic/],
      [{ n_iter: 7 }, 422, "batch_size", /at most 6/],
      [{ steps: 0 }, 422, "steps", /at least 1/],
      [{ prompt: "" }, 422, "prompt", /text/],
      [{ enable_hr: true }, 422, "enable_hr", /false/],
      [{ alwayson_scripts: { ControlNet: { args: [] } } }, 422, "alwayson_scripts.ControlNet", /miro alone/],
      [{ alwayson_scripts: { miro: { args: [3] } } }, 422, "alwayson_scripts.miro.args", /reward targets/],
      [{ alwayson_scripts: { miro: { args: [{ beauty: 1 }] } } }, 422, "rewardTargets.beauty", /rewards/],
    ];
    for (const [body, status, field, message] of cases) {
      const answer = await call("txt2img", { ...usual, ...body });
      expect([answer.status, answer.json.detail[0].loc.slice(1).join(".")]).toEqual([status, field]);
      expect(answer.json.detail[0].msg).toMatch(message);
      expect(answer.json.errors).toBe(answer.json.detail[0].msg);
    }
    const unknown = await call("txt2img", { ...usual, override_settings: { sd_model_checkpoint: "sdxl" } });
    expect([unknown.status, unknown.json.detail]).toEqual([404, expect.stringContaining("sdxl")]);
  });
});

describe("img2img", () => {
  it("draws over a picture, stretched or cut, larger than other JSON may be", async () => {
    const noise = Uint8Array.from({ length: 900 * 600 * 3 }, (_, i) => (i * 7919) % 253);
    const large = Buffer.from(await encodeImage({ width: 900, height: 600, data: noise }, [])).toString("base64");
    for (const resize_mode of [0, 1]) {
      const body = { init_images: [`data:image/png;base64,${large}`], denoising_strength: 0.5, resize_mode };
      const { images, info } = await draw(body, "img2img");
      expect(settingsOf(images[0]!)).toMatchObject({ strength: 0.5, image: { sha256: expect.any(String) } });
      expect(info.denoising_strength).toBe(0.5);
    }
    const wide = Buffer.from(Uint8Array.from({ length: side * 2 * side * 3 }, (_, i) => (i * 31) % 256));
    const raw = { width: side * 2, height: side, channels: 3 as const };
    const pngOf = (change: (image: ReturnType<typeof sharp>) => ReturnType<typeof sharp>) =>
      change(sharp(wide, { raw })).png().toBuffer();
    const drawn = async (png: Buffer, resize_mode: number) => {
      const body = { init_images: [png.toString("base64")], denoising_strength: 0, resize_mode };
      return decodeShown(Buffer.from((await draw(body, "img2img")).images[0]!, "base64"));
    };
    const whole = await pngOf((image) => image);
    const stretched = await pngOf((image) => image.resize(side * 2, side * 2, { fit: "fill" }));
    const centre = await pngOf((image) => image.extract({ left: side / 2, top: 0, width: side, height: side }));
    expect(await drawn(whole, 1)).toEqual(await drawn(centre, 0));
    expect(await drawn(whole, 0)).toEqual(await drawn(stretched, 1));
    expect(await drawn(whole, 0)).not.toEqual(await drawn(whole, 1));
  });

  it("draws in the white places of a mask, or in the black ones", async () => {
    const data = new Uint8Array(side * side * 3);
    for (let i = 0; i < side * side; i++) if (i % side < side / 2) data.fill(255, i * 3, i * 3 + 3);
    const mask = Buffer.from(await encodeImage({ width: side, height: side, data }, [])).toString("base64");
    for (const inpainting_mask_invert of [0, 1]) {
      const { images } = await draw(
        { init_images: [await picture(side, side)], mask, mask_blur: 0, denoising_strength: 1, inpainting_mask_invert },
        "img2img",
      );
      const { data: drawn } = await decodeShown(Buffer.from(images[0]!, "base64"));
      const mean = (from: number) => {
        let sum = 0;
        for (let y = 0; y < side; y++)
          for (let x = from; x < from + side / 2 - 1; x++) sum += Math.abs(drawn[(y * side + x) * 3]! - 90);
        return sum / (side * (side / 2 - 1));
      };
      const [left, right] = [mean(0), mean(side / 2 + 1)];
      expect(inpainting_mask_invert ? left : right).toBeLessThan(1);
      expect(inpainting_mask_invert ? right : left).toBeGreaterThan(4);
    }
  });

  it("refuses what is no picture, and one that is too large", async () => {
    const bomb = await sharp({ create: { width: 9000, height: 9000, channels: 3, background: "white" } })
      .png()
      .toBuffer();
    const cases: [object, string][] = [
      [{ init_images: [] }, "init_images"],
      [{ init_images: ["AAAA"] }, "init_images.0"],
      [{ init_images: ["no base64!"] }, "init_images.0"],
      [{ init_images: [bomb.toString("base64")] }, "init_images.0"],
      [{ init_images: [await picture(8, 8)], mask: "AAAA" }, "mask"],
      [{ init_images: [await picture(8, 8)], denoising_strength: 2 }, "denoising_strength"],
    ];
    for (const [body, field] of cases) {
      const { status, json } = await call("img2img", { ...usual, ...body });
      expect([status, json.detail[0].loc.slice(1).join(".")]).toEqual([422, field]);
    }
    expect((await call("img2img", { ...usual, init_images: ["A".repeat(33 * 2 ** 20)] })).status).toBe(413);
    expect((await call("txt2img", { ...usual, prompt: "A".repeat(2 ** 20) })).status).toBe(413);
  });
});

describe("progress, interrupt and skip", () => {
  it("show what is drawn, end it, and keep what is finished", async () => {
    const long = {
      ...usual,
      steps: 50_000,
      n_iter: 2,
      alwayson_scripts: { miro: { args: [{ deterministic: true }] } },
    };
    const asked = call("txt2img", {
      ...long,
      alwayson_scripts: { miro: { args: [{ deterministic: true, previewEvery: 5 }] } },
    });
    const progress = async () => (await call("progress")).json;
    await expect.poll(async () => (await progress()).current_image).toBeTypeOf("string");
    const seen = await progress();
    expect(seen.progress).toBeGreaterThan(0);
    expect(seen.progress).toBeLessThan(1);
    expect(seen.state).toMatchObject({ job_count: 2, sampling_steps: 50_000, job_no: 0 });
    expect((await sharp(Buffer.from(seen.current_image, "base64")).metadata()).format).toBe("png");
    for (const skips of ["true", "True", "1"])
      expect((await call(`progress?skip_current_image=${skips}`)).json.current_image).toBeNull();
    expect((await call("progress?skip_current_image=False")).json.current_image).toBeTypeOf("string");
    expect((await call("skip", {})).json).toBeNull();
    await expect.poll(async () => (await progress()).state.job_no).toBe(1);
    expect((await call("interrupt", {})).status).toBe(200);
    const { status, json } = await asked;
    expect([status, json.images, JSON.parse(json.info).interrupted]).toEqual([200, [], true]);
    await expect.poll(() => studio.queue.running).toBe(0);
    expect(await progress()).toMatchObject({ progress: 0, current_image: null, state: { job_count: 0 } });
  });
});

describe("models, lists and png-info", () => {
  it("choose the model for later requests, and for one alone", async () => {
    const [one, two] = models as [string, string];
    const titles = (await call("sd-models")).json.map(({ title }: { title: string }) => title);
    expect(titles).toEqual([one, two]);
    const chosen = async () => (await call("options")).json.sd_model_checkpoint;
    expect(await chosen()).toBe(one);
    expect((await call("options", { sd_model_checkpoint: two })).json).toBeNull();
    expect(await chosen()).toBe(two);
    expect((await call("options", { sd_model_checkpoint: "sdxl" })).status).toBe(404);
    // What names none changes none.
    for (const none of ["", null]) {
      expect((await call("options", { sd_model_checkpoint: none, CLIP_stop_at_last_layers: 1 })).status).toBe(200);
      expect(await chosen()).toBe(two);
      expect((await draw({ override_settings: { sd_model_checkpoint: none } })).info.sd_model_name).toBe("two");
    }
    expect((await draw()).info.sd_model_name).toBe("two");
    expect((await draw({ override_settings: { sd_model_checkpoint: "one" } })).info.sd_model_name).toBe("one");
    expect(await chosen()).toBe(two);
    await draw({ override_settings: { sd_model_checkpoint: one }, override_settings_restore_afterwards: false });
    expect(await chosen()).toBe(one);
  });

  it("are lists as clients read them", async () => {
    for (const path of ["loras", "prompt-styles", "upscalers", "samplers", "schedulers", "sd-models"])
      expect((await call(path)).json).toBeInstanceOf(Array);
    expect((await call("embeddings")).json).toEqual({ loaded: {}, skipped: {} });
    expect((await call("memory")).json.ram.used).toBeGreaterThan(0);
    expect((await call("cmd-flags")).json).toMatchObject({ api: true });
    expect((await call("nothing")).json).toMatchObject({ detail: expect.stringContaining("/sdapi/v1/nothing") });
  });

  it("read what a picture holds", async () => {
    const { images, info } = await draw();
    const read = (await call("png-info", { image: `data:image/png;base64,${images[0]}` })).json;
    expect(read.info).toBe(info.infotexts[0]);
    expect(read.items.parameters).toBe(read.info);
    expect(read.parameters).toMatchObject({ Prompt: "a cat", Seed: "3", Steps: "2" });
    expect((await call("png-info", { image: await picture(8, 8) })).json).toMatchObject({ info: "", parameters: {} });
    expect((await call("png-info", { image: 3 })).status).toBe(422);
  });
});
