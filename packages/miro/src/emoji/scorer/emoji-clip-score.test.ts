import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../register.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { loadScorer } from "../../rewards/registry.js";
import type { Scorer } from "../../rewards/scorer.js";
import { toRgb8 } from "../scenes/render.js";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";
import { type WrongWay, wrongWays } from "../scenes/wrong-captions.js";

const models = fileURLToPath(new URL("../../../../../models", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "miro-clip-score-"));

/** Scenes of another seed than training's. */
const options = { seed: 77, kinds: { one: 0.7, small: 0.3 }, tint: 0, degraded: 0, wrongCaption: 0 };
const scenes = await EmojiScenes.load({ ...options, size: 128 });
const draw = (from: EmojiScenes, i: number): RgbImage => {
  const { pixels } = from.batch(i, 1);
  return { width: from.size, height: from.size, data: toRgb8(pixels, from.size) };
};
const described = Array.from({ length: 36 }, (_, i) => scenes.describe(i));
const images = described.map((_, i) => draw(scenes, i));
const captions = described.map((scene) => scene.trueCaption);

let scorer: Scorer;
let right: number[];
beforeAll(async () => {
  scorer = await loadScorer("emoji_clip_score");
  right = await scorer.score(images, captions);
});
afterAll(() => {
  scorer.dispose();
  rmSync(root, { recursive: true, force: true });
});

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
/** Scores of captions that are wrong in one way, with the share of true captions that beat theirs. */
async function against(way: WrongWay) {
  const rows = described.flatMap((scene: Scene, i) => (wrongWays(scene).includes(way) ? [i] : []));
  const wrong = await scorer.score(
    rows.map((i) => images[i]!),
    rows.map((i) => scenes.wrongCaption(described[i]!, way)),
  );
  return { wrong: mean(wrong), told: rows.filter((i, k) => right[i]! > wrong[k]!).length / rows.length };
}

describe("emoji_clip_score", () => {
  it("ranks true captions of unseen scenes over wrong ones, by a margin", async () => {
    expect(Math.abs(mean(right) - 1)).toBeLessThan(0.15);
    const other = await against("scene");
    expect(other.told).toBeGreaterThan(0.95);
    expect(Math.abs(other.wrong)).toBeLessThan(0.2);
    for (const way of ["object", "background", "size"] as const) {
      const { wrong, told } = await against(way);
      expect(told, way).toBeGreaterThan(0.9);
      expect(mean(right) - wrong, way).toBeGreaterThan(0.2);
    }
  });

  it("does not depend on what else is scored", async () => {
    const order = [5, 0, 17, 33, 2];
    const part = await scorer.score(
      order.map((i) => images[i]!),
      order.map((i) => captions[i]!),
    );
    expect(part).toEqual(order.map((i) => right[i]));
    expect(await scorer.score([images[9]!], [captions[9]!])).toEqual([right[9]]);
  });

  it("takes pictures of any size, and looks at the middle square", async () => {
    for (const size of [64, 256]) {
      const resized = await EmojiScenes.load({ ...options, size });
      const scores = await scorer.score(
        described.slice(0, 8).map((_, i) => draw(resized, i)),
        captions.slice(0, 8),
      );
      scores.forEach((score, i) => {
        expect(Math.abs(score - right[i]!), `${size} px: ${captions[i]}`).toBeLessThan(0.2);
      });
    }
    const wide: RgbImage = { width: 128 + 60, height: 128, data: new Uint8Array((128 + 60) * 128 * 3).fill(7) };
    for (let y = 0; y < 128; y++)
      wide.data.set(images[0]!.data.subarray(y * 128 * 3, (y + 1) * 128 * 3), (y * 188 + 30) * 3);
    const tiny: RgbImage = { width: 1, height: 1, data: Uint8Array.of(255, 0, 0) };
    const [same, point] = await scorer.score([wide, tiny], [captions[0]!, "a red apple"]);
    expect(same).toBe(right[0]);
    expect(Number.isFinite(point)).toBe(true);
  });

  it("is complete in its folder, and refuses a text encoder that it was not trained with", async () => {
    const model = join(root, "copy");
    cpSync(join(models, "emoji-clip"), model, { recursive: true });
    const own = await loadScorer("emoji_clip_score", { model });
    expect(await own.score([images[3]!], [captions[3]!])).toEqual([right[3]]);
    own.dispose();
    rmSync(join(model, "text_encoder"), { recursive: true });
    await expect(loadScorer("emoji_clip_score", { model })).rejects.toThrow(/text_encoder: not there; it is a part/);

    const other = join(root, "other");
    mkdirSync(other);
    cpSync(join(models, "emoji-clip", "model.safetensors"), join(other, "model.safetensors"));
    await expect(loadScorer("emoji_clip_score", { model: other })).rejects.toThrow(/config\.json: no such file/);
    await expect(loadScorer("emoji_clip_score", { model: join(other, "model.safetensors") })).rejects.toThrow(
      /model\.safetensors: is a file, not a folder/,
    );
    writeFileSync(join(other, "config.json"), JSON.stringify({ text_encoder_sha256: "0".repeat(64) }));
    cpSync(join(models, "emoji-clip", "text_encoder"), join(other, "text_encoder"), { recursive: true });
    await expect(loadScorer("emoji_clip_score", { model: other })).rejects.toThrow(
      /does not match the text encoder this scorer was trained with/,
    );
    writeFileSync(join(other, "config.json"), JSON.stringify({ text_encoder_sha256: "x", shared_dim: 1e9 }));
    await expect(loadScorer("emoji_clip_score", { model: other })).rejects.toThrow(/config\.json: shared_dim/);
  });
});
