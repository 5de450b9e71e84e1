import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import { decodeImage } from "../pictures/decode.js";
import { readImageFile } from "../pictures/image-files.js";
import { GeneratedImage } from "./generated-image.js";
import { readSettings, settingsDifference } from "./settings.js";
import { IMAGE_SETTINGS } from "./testing/image-settings.js";

const settings = { ...IMAGE_SETTINGS, prompt: "a fox, asleep", rewardTargets: { sharpness: 0.5 } };
const data = Uint8Array.from({ length: 8 * 4 * 3 }, (_, i) => (i * 37) % 256);
const image = new GeneratedImage({ width: 8, height: 4, data }, settings);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-image-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("a picture", () => {
  it("has the prompt and the seed of its settings", () => {
    expect(image).toMatchObject({ prompt: "a fox, asleep", seed: 7, width: 8, height: 4 });
    const ranked = image.withSettings({ ...settings, seed: 8 });
    expect([ranked.seed, ranked.data]).toEqual([8, data]);
  });

  it.each([
    ["fox.png", "png"],
    ["new/folder/fox.webp", "webp"],
    ["fox.jpg", "jpeg"],
    ["fox.JPEG", "jpeg"],
  ] as const)("is stored as %s, with its settings inside", async (name, format) => {
    const path = join(folder, name);
    await image.save(path);
    const stored = await readImageFile(path);
    expect(stored).toMatchObject({ format, width: 8, height: 4 });
    expect(readSettings(stored.text, path)).toEqual(settings);
    expect(await image.toBuffer(format)).toEqual(readFileSync(path));
  });

  it("keeps a target that says nothing, which is neither another picture nor the default", async () => {
    const unknown = { ...settings, rewardTargets: { sharpness: null } };
    const path = join(folder, "fox.png");
    await image.withSettings(unknown).save(path);
    const { text } = await readImageFile(path);
    const stored = readSettings(text, path);
    expect(stored).toEqual(unknown);
    expect(text.map(({ text }) => text).join()).toContain("Rewards: sharpness=none");
    expect(settingsDifference(stored, unknown)).toBeNull();
    expect(settingsDifference(stored, settings)).toMatchObject({ name: "rewardTargets.sharpness", wanted: 0.5 });
  });

  it("keeps every pixel as PNG, the default of toBuffer", async () => {
    const bytes = await image.toBuffer();
    expect(Buffer.from((await decodeImage(bytes)).data)).toEqual(Buffer.from(data));
    expect(await image.toBuffer("png")).toEqual(bytes);
  });

  it("replaces a file, unless it may not", async () => {
    const path = join(folder, "fox.webp");
    await image.save(path);
    const before = readFileSync(path);
    await image.save(path, { quality: 1 });
    expect(readFileSync(path)).not.toEqual(before);
    await expect(image.save(path, { overwrite: false })).rejects.toThrow(/fox\.webp: exists already/);
  });

  it.each<[string, () => Promise<unknown>, RegExp]>([
    ["a name of no format", () => image.save(join(folder, "fox.gif")), /^path: expected a file name that ends with/],
    ["no name", () => image.save(undefined as never), /^path: expected a file name/],
    ["options that are none", () => image.save(join(folder, "a.png"), 5 as never), /^options: expected an object/],
    ["a quality of PNG", () => image.save(join(folder, "a.png"), { quality: 5 }), /^quality: /],
    ["a quality out of range", () => image.toBuffer("webp", { quality: 101 }), /^quality: expected an integer from 1/],
    ["an unknown option", () => image.save(join(folder, "a.png"), { size: 5 } as never), /^size: /],
    ["an unknown format", () => image.toBuffer("gif" as never), /^format: expected one of png, webp, jpeg/],
    ["options of toBuffer that are none", () => image.toBuffer("png", null as never), /^options: expected an object/],
  ])("refuses %s, and writes nothing", async (_, call, message) => {
    const error = await call().catch((reason: Error) => reason);
    expect(error).toBeInstanceOf(InvalidInputError);
    expect((error as Error).message).toMatch(message);
    expect(existsSync(join(folder, "a.png"))).toBe(false);
  });
});
