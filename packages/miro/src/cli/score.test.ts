import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, describe, expect, it } from "vitest";
import { encodePng } from "../pictures/png.js";
import { colorfulnessScore, laplacianEnergy } from "../rewards/measured.js";
import { scorerSpecs } from "../rewards/registry.js";
import { type Captured, runCaptured } from "./testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-score-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function score(...args: string[]): Promise<Captured> {
  return runCaptured("score", ...args);
}

/** A picture of coloured stripes. */
const data = Uint8Array.from({ length: 24 * 16 * 3 }, (_, i) => (i % 3 === 0 ? 8 * (((i / 3) | 0) % 24) : 40));
const noise = Uint8Array.from(data, (_, i) => (i * 7919 * (i + 3)) % 251);
const image = { width: 24, height: 16, data };
const file = (name: string, bytes: Uint8Array) => {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
};
const settings = { prompt: "a red apple" };
const plain = file("plain.png", encodePng(data, 24, 16));
const told = file("told.png", encodePng(data, 24, 16, [{ keyword: "miro", text: JSON.stringify(settings) }]));

describe("miro score", () => {
  it.each([
    ["--by", "sharpness", "--by", "colorfulness"],
    ["--by", "sharpness,colorfulness"],
    ["--by", "sharpness", "colorfulness"],
  ])("takes scorers as in %s %s %s %s", async (...by) => {
    const { code, stdout } = await score(plain, ...by, "--json");
    expect(code).toBe(0);
    const { images } = JSON.parse(stdout);
    expect(images.map(({ path }: { path: string }) => path)).toEqual([plain]);
    expect(Object.keys(images[0].scores)).toEqual(["sharpness", "colorfulness"]);
  });

  it("prints one JSON object with every score in the order of the files", async () => {
    const webp = await sharp(data, { raw: { width: 24, height: 16, channels: 3 } })
      .webp({ lossless: true })
      .toBuffer();
    const files = [plain, file("same.webp", webp), told];
    const { code, stdout } = await score(...files, "--by", "colorfulness", "--by", "sharpness", "--json");
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.images.map(({ path }: { path: string }) => path)).toEqual(files);
    expect(report.images.map(({ prompt }: { prompt: string }) => prompt)).toEqual([null, null, "a red apple"]);
    for (const { scores } of report.images) {
      expect(Object.keys(scores)).toEqual(["colorfulness", "sharpness"]);
      expect(scores.colorfulness).toBe(colorfulnessScore(image));
      expect(scores.sharpness).toBeCloseTo(1 - 2 ** (-(Math.sqrt(laplacianEnergy(image)) * 16) / 256 / 3), 12);
    }
    expect(report.means.colorfulness).toBeCloseTo(colorfulnessScore(image), 12);
    expect(report.scorers.map(({ key }: { key: string }) => key)).toEqual(["colorfulness", "sharpness"]);
  });

  it("takes the prompt from the picture, or from --prompt, and says when there is none", async () => {
    const stored = JSON.parse((await score(told, "--json")).stdout);
    const given = JSON.parse((await score(plain, "--prompt", "a red apple", "--json")).stdout);
    expect(stored.images[0].scores).toEqual(given.images[0].scores);
    const other = JSON.parse((await score(told, "--prompt", "a blue car", "--json")).stdout);
    expect(other.images[0]).not.toEqual(stored.images[0]);
    expect(await score(plain)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(
        "plain.png: holds no prompt, which emoji_clip_score needs; " +
          "give one for all with --prompt TEXT, or each its own with --pairs FILE",
      ),
    });
  });

  it("refuses a scorer that cannot judge what the picture's model draws, whatever the prompt", async () => {
    const text = JSON.stringify({ prompt: "a red apple", model: "nicolas-dufour/miro" });
    const published = file("published.png", encodePng(data, 24, 16, [{ keyword: "miro", text }]));
    for (const prompt of [[], ["--prompt", "a fox"]])
      expect(await score(published, "--by", "emoji_clip_score", ...prompt)).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(/published\.png: emoji_clip_score was trained on emoji scenes alone .*dufour/),
      });
    expect((await score(published, "--by", "sharpness")).code).toBe(0);
  });

  it("shows transparency over white and turns pictures as EXIF says", async () => {
    const clear = { r: 0, g: 0, b: 0, alpha: 0 };
    const alpha = await sharp({ create: { width: 8, height: 8, channels: 4, background: clear } })
      .png()
      .toBuffer();
    const { stdout } = await score(file("clear.png", alpha), "--by", "colorfulness", "--json");
    expect(JSON.parse(stdout).images[0].scores.colorfulness).toBe(0);
    const sideways = await sharp(data, { raw: { width: 24, height: 16, channels: 3 } })
      .withExif({ IFD0: { Orientation: "6" } })
      .jpeg()
      .toBuffer();
    expect((await score(file("turned.jpg", sideways), "--by", "sharpness")).code).toBe(0);
  });

  it("reads BMP, GIF and AVIF as every other command does, with transparency over white", async () => {
    const clear = await sharp({
      create: { width: 8, height: 8, channels: 4, background: { r: 255, g: 0, b: 0, alpha: 0 } },
    })
      .composite([{ input: { create: { width: 4, height: 8, channels: 4, background: "#fff" } }, left: 0, top: 0 }])
      .png()
      .toBuffer();
    const half = { r: 255, g: 0, b: 0, alpha: 0.5 };
    const pink = { width: 8, height: 8, data: Uint8Array.from({ length: 192 }, (_, i) => (i % 3 === 0 ? 255 : 127)) };
    // 24 bits, rows from the bottom, blue first.
    const bmp = Buffer.alloc(54 + 24 * 3 * 16);
    bmp.write("BM");
    bmp.writeUInt32LE(54, 10);
    bmp.writeUInt32LE(40, 14);
    bmp.writeUInt32LE(24, 18);
    bmp.writeUInt32LE(16, 22);
    bmp.writeUInt16LE(24, 28);
    for (let y = 0; y < 16; y++)
      for (let x = 0; x < 72; x++) bmp[54 + (15 - y) * 72 + x - (x % 3) + (2 - (x % 3))] = data[y * 72 + x]!;
    const files = [
      file("a.bmp", bmp),
      file("a.gif", await sharp(clear).gif().toBuffer()),
      file(
        "a.avif",
        await sharp({ create: { width: 8, height: 8, channels: 4, background: half } })
          .avif({ lossless: true })
          .toBuffer(),
      ),
    ];
    const { code, stdout } = await score(...files, "--by", "colorfulness", "--json");
    expect(code).toBe(0);
    const [first, second, third] = JSON.parse(stdout).images.map(
      ({ scores }: { scores: { colorfulness: number } }) => scores.colorfulness,
    );
    expect(first).toBe(colorfulnessScore(image));
    expect(second).toBe(0);
    expect(Math.abs(third - colorfulnessScore(pink))).toBeLessThan(0.05 * colorfulnessScore(pink));
  });

  it("refuses what is no picture, unknown scorers, missing files and wrong usage with exit code 2", async () => {
    const broken = file("broken.png", Buffer.from("not a picture"));
    const cut = file("cut.png", encodePng(noise, 24, 16).subarray(0, 300));
    for (const path of [broken, cut]) {
      const { code, stderr } = await score(path, "--prompt", "a fox");
      expect(code).toBe(2);
      expect(stderr).toMatch(/cannot be read as a picture/);
    }
    expect(await score(plain, "--by", "beauty")).toMatchObject({ code: 2, stderr: expect.stringMatching(/"beauty"/) });
    expect((await score()).code).toBe(2);
    expect((await score(join(folder, "none.png"))).code).toBe(2);
  });

  it("names every scorer in its help", async () => {
    const { code, stdout } = await score("--help");
    expect(code).toBe(0);
    for (const { key } of scorerSpecs()) expect(stdout).toContain(key);
  });
});
