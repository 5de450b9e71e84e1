import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeShard } from "../shards/testing/make-shards.js";
import { TrainingSet } from "./training-set.js";

const run = { scores: [], seed: 0, batchSize: 1 };
const data = { vaeEmbeddingNameStd: null, binCoherence: false, minImageSize: 0 };

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-training-set-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("samples without a filter", () => {
  it("have any scores, also where each needs a picture and a caption", async () => {
    const root = join(folder, "negative");
    mkdirSync(root);
    const json = Buffer.from('{"width": 300, "height": 300, "clip_score": -0.5}');
    await writeShard(join(root, "00000.tar"), 0, 4, (sample) => ({ json, ...(sample === 3 && { txt: null }) }));
    const open = async (options: object) => {
      const set = await TrainingSet.open({ root, ...data, ...options }, run);
      const { length } = set;
      set.close();
      return length;
    };
    expect(await open({})).toBe(4);
    expect(await open({ requirePictureAndCaption: true })).toBe(3);
    await expect(open({ clipFilterThreshold: 0.1 })).rejects.toThrow("none of 4 samples passes the filters");
  });
});

describe("roots that are mixed by weight", () => {
  it("are one set of shards, of which so many may be bad together", async () => {
    const roots = ["small", "large"].map((name) => join(folder, name));
    for (const root of roots) mkdirSync(root);
    for (const [root, names] of [
      [roots[0]!, ["00001"]],
      [roots[1]!, ["00000", "00001"]],
    ] as const)
      for (const [i, name] of names.entries()) await writeShard(join(root, `${name}.tar`), 4 * i, 4);
    mkdirSync(join(roots[0]!, "00000.tar")); // one of two there, one of four in all
    const set = await TrainingSet.open({ root: roots, ...data, weights: [3, 1], maxBadRate: 0.4 }, run);
    const samples = Array.from({ length: 1024 }, (_, i) => set.at(Math.floor(i / set.length), i % set.length).sample);
    set.close();
    expect(samples.filter((sample) => sample < 4)).toHaveLength(768);
    expect([...new Set(samples)].sort((a, b) => a - b)).toEqual([...Array(12).keys()]);
  });
});
