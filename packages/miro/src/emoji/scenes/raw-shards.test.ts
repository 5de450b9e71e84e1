import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import sharp from "sharp";
import { afterAll, describe, expect, it } from "vitest";
import { groupSamples } from "../../data/shards/sample-key.js";
import { TarFile } from "../../data/shards/tar-file.js";
import { rawShardsRecipeSchema, renderRawShards } from "./raw-shards.js";
import { toRgb8 } from "./render.js";
import { EmojiScenes } from "./scenes.js";

const folder = mkdtempSync(join(tmpdir(), "miro-raw-shards-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const recipe = (changes: object = {}) =>
  rawShardsRecipeSchema.parse({
    kind: "emoji-data",
    name: "emoji",
    samples: 10,
    samplesPerShard: 4,
    scenes: {
      size: 32,
      vocabulary: ["fox", "lemon", "rocket", "house", "crab", "owl", "key", "bell"],
      wrongCaption: 0.5,
    },
    ...changes,
  });

const bytes = (output: string) =>
  Object.fromEntries(
    readdirSync(output)
      .sort()
      .map((name) => [name, readFileSync(join(output, name)).toString("base64")]),
  );

describe("renderRawShards", () => {
  it("writes each scene's picture, caption and description under its number", async () => {
    const output = join(folder, "whole");
    const { shards } = await renderRawShards({ recipe: recipe(), output });
    const scenes = await EmojiScenes.load(recipe().scenes);
    let index = 0;
    for (const path of shards) {
      const tar = TarFile.open(path);
      for (const { key, members } of groupSamples(tar.members)) {
        const scene = scenes.describe(index);
        expect(key).toBe(String(index++).padStart(9, "0"));
        expect(Buffer.from(tar.read(members.get("txt")!)).toString()).toBe(scene.caption);
        const json = JSON.parse(Buffer.from(tar.read(members.get("json")!)).toString());
        expect(json).toMatchObject({ width: 32, height: 32, scene: { index: scene.index, kind: scene.kind } });
        if (json.synthetic_caption !== undefined) expect(json.synthetic_caption).toBe(scene.trueCaption);
        const { data } = await sharp(tar.read(members.get("jpg")!))
          .raw()
          .toBuffer({ resolveWithObject: true });
        const pixels = new Float32Array(3 * 32 * 32);
        scenes.render(scene, pixels);
        const drawn = toRgb8(pixels, 32);
        const error = data.reduce((sum, value, i) => sum + Math.abs(value - drawn[i]!), 0) / data.length;
        expect(error).toBeLessThan(6); // JPEG
      }
      tar.close();
    }
    expect(index).toBe(10);
  });

  it("goes on where it was interrupted, with the same bytes", async () => {
    const output = join(folder, "interrupted");
    const stop = new AbortController();
    const attempt = renderRawShards({
      recipe: recipe(),
      output,
      signal: stop.signal,
      onProgress: (done) => done === 6 && stop.abort(),
    });
    await expect(attempt).rejects.toThrow(/abort/i);
    expect(readdirSync(output).sort()).toEqual(["emoji-000000.tar", "render.json"]);
    const { kept } = await renderRawShards({ recipe: recipe(), output });
    expect(kept).toBe(1);
    expect(bytes(output)).toEqual(bytes(join(folder, "whole")));
    // What a killed process began, though all is there.
    const dead = processIdentity().replace(/\d+$/, "1");
    writeFileSync(join(output, `.emoji-000001.tar.${dead}.0123456789ab.tmp`), "");
    expect((await renderRawShards({ recipe: recipe(), output })).kept).toBe(3);
    expect(bytes(output)).toEqual(bytes(join(folder, "whole")));
  });

  it("adds shards when more samples are asked for, and keeps the whole ones", async () => {
    const output = join(folder, "more");
    await renderRawShards({ recipe: recipe({ samples: 6 }), output });
    const { kept } = await renderRawShards({ recipe: recipe(), output });
    expect(kept).toBe(1);
    expect(bytes(output)).toEqual(bytes(join(folder, "whole")));
  });

  it("does not leave shards beside fewer that are asked for", async () => {
    const output = join(folder, "fewer");
    await renderRawShards({ recipe: recipe(), output });
    const fewer = recipe({ samples: 4 });
    const before = bytes(output);
    await expect(renderRawShards({ recipe: fewer, output })).rejects.toThrow(
      /fewer: holds [12] shards? more than 4 samples take \(emoji-00000\d\.tar, …\); .*`overwrite: true`/,
    );
    expect(bytes(output)).toEqual(before);
    const { shards } = await renderRawShards({ recipe: fewer, output, overwrite: true });
    expect(readdirSync(output).filter((name) => name.endsWith(".tar"))).toEqual(shards.map((path) => basename(path)));
  });

  it("refuses a folder of another recipe, and replaces it when told to", async () => {
    const output = join(folder, "whole");
    const other = recipe({ jpegQuality: 60 });
    await expect(renderRawShards({ recipe: other, output })).rejects.toThrow(/render\.json: .*another recipe/);
    const elsewhere = join(folder, "other");
    await renderRawShards({ recipe: recipe(), output: elsewhere });
    await renderRawShards({ recipe: other, output: elsewhere, overwrite: true });
    expect(bytes(elsewhere)).not.toEqual(bytes(output));
    expect(existsSync(join(elsewhere, "emoji-000002.tar"))).toBe(true);
  });
});
