import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { COLOUR_NAMES, NAMED_COLOURS } from "./captions.js";
import { blockCode, blur, desaturate } from "./degrade.js";
import { SceneRandom } from "./random.js";
import { EMOJI_REWARD_KEYS } from "./scene-options.js";
import { EmojiScenes, type Scene } from "./scenes.js";
import { isEveryday, loadVocabulary } from "./vocabulary.js";
import { vocabularyFile } from "./vocabulary-file.js";
import { wrongWays } from "./wrong-captions.js";

const scenes = await EmojiScenes.load({ size: 64 });
const described = Array.from({ length: 4000 }, (_, i) => scenes.describe(i));
const shareOf = (test: (scene: Scene) => boolean) => described.filter(test).length / described.length;

describe("random numbers", () => {
  it("are a function of seed, index and stream, and differ between neighbours", () => {
    const first = (seed: number, index: number, stream = 0) => new SceneRandom(seed, index, stream).uint32();
    expect(first(1, 2)).toBe(first(1, 2));
    const outputs = new Set<number>();
    for (let seed = 0; seed < 8; seed++) {
      for (let index = 0; index < 500; index++) for (let s = 0; s < 3; s++) outputs.add(first(seed, index, s));
    }
    expect(outputs.size).toBeGreaterThan(11_990);
    expect(first(0, 2 ** 32 + 5)).not.toBe(first(0, 5));
  });

  it("have the moments of their distributions over counters", () => {
    let [sum, sumSquares, normal, normalSquares] = [0, 0, 0, 0];
    const n = 20_000;
    for (let index = 0; index < n; index++) {
      const random = new SceneRandom(7, index);
      const u = random.uniform();
      const z = random.normal();
      sum += u;
      sumSquares += u * u;
      normal += z;
      normalSquares += z * z;
    }
    expect(sum / n).toBeCloseTo(1 / 2, 1.7);
    expect(sumSquares / n).toBeCloseTo(1 / 3, 1.7);
    expect(Math.abs(normal / n)).toBeLessThan(0.03);
    expect(Math.abs(normalSquares / n - 1)).toBeLessThan(0.05);
  });
});

describe("vocabulary", () => {
  it("has the 984 core entries, each picture once", () => {
    const core = loadVocabulary("core");
    expect(core).toHaveLength(984);
    expect(new Set(core.map((entry) => entry.code)).size).toBe(984);
    expect(loadVocabulary("animals")).toHaveLength(157);
  });

  it("is what the bundled model's list of names says", () => {
    const list = readFileSync(new URL("../../../../../models/miro-emoji/NAMES.md", import.meta.url), "utf8");
    const listed = list
      .split(/^## .*$/m)
      .slice(1)
      .flatMap((group) => group.replaceAll("\n", " ").trim().split(", "));
    expect(listed).toEqual(loadVocabulary("core").map(({ label }) => label));
  });

  it("is what the file beside the bundled model's weights says, which knows every word of captions", () => {
    const path = new URL("../../../../../models/miro-emoji/vocabulary.json", import.meta.url);
    const file = JSON.parse(readFileSync(path, "utf8"));
    expect(file).toEqual(vocabularyFile(loadVocabulary("core")));
  });

  it("gives every everyday name and alias to one thing only", () => {
    const names = loadVocabulary("everyday").flatMap((entry) => [entry.label, ...entry.aliases]);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain("red apple");
  });

  it("refuses unknown labels by name", () => {
    expect(() => loadVocabulary(["red apple", "green cow"])).toThrow(/green cow/);
  });
});

/** The named colour that a caption gives the background, of several that fit the longest ("dark blue", not "blue"). */
const backgroundIn = (caption: string) =>
  COLOUR_NAMES.filter((name) => caption.includes(` ${name} background`)).sort((a, b) => b.length - a.length)[0];
/** The number before the name of what is counted, not that of "four leaf clovers". */
const counted = ({ entries }: Scene, number: string) => new RegExp(`\\b(${number}) (\\w+ )?${entries[0]!.plural}`);
const numberWord = (count: number) => ["", "one", "two", "three", "four", "five"][count];

describe("scenes", () => {
  it("are the same for the same index, whatever was drawn before", async () => {
    const again = await EmojiScenes.load({ size: 64 });
    expect(again.describe(123)).toEqual(scenes.describe(123));
    const one = scenes.batch(50, 4);
    const two = again.batch(52, 1);
    expect(two.pixels).toEqual(one.pixels.slice(2 * 3 * 64 * 64, 3 * 3 * 64 * 64));
    const other = await EmojiScenes.load({ size: 64, seed: 1 });
    expect(other.describe(123)).not.toEqual(scenes.describe(123));
  });

  it("keep the shares of kinds, backgrounds, wrong captions and damage", () => {
    const { kinds } = scenes.options;
    expect(shareOf((s) => s.kind === "small")).toBeCloseTo(kinds.small, 1);
    expect(shareOf((s) => s.kind === "pair")).toBeCloseTo(kinds.pair, 1);
    expect(Math.abs(shareOf((s) => s.background.kind === "named") - 0.6)).toBeLessThan(0.03);
    expect(Math.abs(shareOf((s) => s.background.kind === "gradient") - 0.15)).toBeLessThan(0.03);
    expect(Math.abs(shareOf((s) => s.degradation !== null) - 0.25)).toBeLessThan(0.03);
    expect(Math.abs(shareOf((s) => s.rewards.clip_score < 1) - 0.2 * 0.95)).toBeLessThan(0.03);
    for (const key of EMOJI_REWARD_KEYS) {
      expect(Math.abs(shareOf((s) => Number.isNaN(s.rewards[key])) - 0.05)).toBeLessThan(0.02);
    }
  });

  it("draw everyday things more often where asked to, never one twice in a pair", async () => {
    const options = { vocabulary: "core", size: 32, kinds: { one: 0.5, pair: 0.5 } } as const;
    const everydayShare = async (everyday: number) => {
      const drawn = await EmojiScenes.load({ ...options, everyday });
      const things = Array.from({ length: 3000 }, (_, i) => drawn.describe(i).entries).map((entries) => {
        expect(new Set(entries).size).toBe(entries.length);
        return entries.map(({ label }) => isEveryday(label));
      });
      return things.flat().filter(Boolean).length / things.flat().length;
    };
    const natural = 116 / 984;
    expect(Math.abs((await everydayShare(0)) - natural)).toBeLessThan(0.02);
    expect(Math.abs((await everydayShare(0.4)) - (0.4 + 0.6 * natural))).toBeLessThan(0.03);
    const animals = loadVocabulary("animals").map(({ label }) => label);
    const rare = animals.filter((label) => !isEveryday(label)).slice(0, 12);
    await expect(EmojiScenes.load({ vocabulary: rare, size: 32, everyday: 0.1 })).rejects.toThrow(/scenes\.everyday/);
  });

  it("tell the truth in true captions, and only there score 1", () => {
    for (const scene of described) {
      const { trueCaption, background, kind } = scene;
      const names = scene.entries.map((entry) => [entry.label, entry.plural, ...entry.aliases]);
      for (const options of names) expect(options.some((name) => trueCaption.includes(name))).toBe(true);
      if (background.kind === "named") expect(trueCaption).toContain(background.colour);
      if (background.kind === "gradient") expect(trueCaption).toContain(`${background.top} to ${background.bottom}`);
      if (kind === "count") {
        const word = ["two", "three", "four", "five"][scene.count - 2];
        expect(trueCaption).toMatch(new RegExp(`\\b(${word}|${scene.count}) `));
        expect(scene.objects).toHaveLength(scene.count);
      }
      if (kind === "small") expect(trueCaption).toMatch(/small|little|tiny/);
      for (const tint of scene.tints) if (tint !== null) expect(trueCaption).toContain(tint);
      if (scene.rewards.clip_score === 1) expect(scene.caption).toBe(trueCaption);
      if (scene.rewards.clip_score === 0) {
        for (const entry of scene.entries) expect(scene.caption).not.toMatch(new RegExp(`\\b${entry.label}\\b`));
      }
      for (const key of EMOJI_REWARD_KEYS) {
        const value = scene.rewards[key];
        if (!Number.isNaN(value)) expect(value >= 0 && value <= 1).toBe(true);
      }
    }
  });

  it("give captions that are wrong in the way that was asked for, and in that alone", () => {
    const sizeWord = /\b(small|little|tiny)\b/;
    const without = (content: Scene) => ({ ...content, tints: content.tints.map(() => null) });
    for (const scene of described.slice(0, 1500).map(without)) {
      const names = scene.entries.map((entry) => [entry.label, entry.plural, ...entry.aliases]);
      const named = (caption: string) => names.map((options) => options.some((name) => caption.includes(name)));
      const own = scene.background.kind === "named" ? scene.background.colour : undefined;
      const ways = wrongWays(scene);
      expect(ways).toEqual(expect.arrayContaining(["scene", "object", "background"]));
      for (const way of ways) {
        const caption = scenes.wrongCaption(scene, way);
        expect(scenes.wrongCaption(scene, way)).toBe(caption);
        if (way === "scene" || way === "object") continue;
        expect(named(caption), caption).not.toContain(false);
        if (way === "background") expect(backgroundIn(caption)).not.toBe(own);
        else if (scene.background.kind !== "gradient") expect(backgroundIn(caption)).toBe(own);
        if (way === "size") expect(sizeWord.test(caption)).toBe(scene.kind === "one");
        if (way === "count") expect(caption).not.toMatch(counted(scene, `${numberWord(scene.count)}|${scene.count}`));
      }
      const other = scenes.wrongCaption(scene, "object");
      const kept = names.filter((options) => options.some((name) => new RegExp(`\\b${name}\\b`).test(other)));
      expect(kept.length).toBeLessThan(names.length);
    }
  });

  it("place what the relation says", () => {
    for (const { relation, objects } of described) {
      if (relation === null) continue;
      const [first, second] = objects as [Scene["objects"][0], Scene["objects"][0]];
      if (relation === "left") expect(first.x).toBeLessThan(second.x - 0.3);
      if (relation === "right") expect(first.x).toBeGreaterThan(second.x + 0.3);
      if (relation === "above") expect(first.y).toBeLessThan(second.y - 0.3);
      if (relation === "below") expect(first.y).toBeGreaterThan(second.y + 0.3);
    }
  });

  it("draw the background in the corners and something in the cells of the objects", async () => {
    const clean = await EmojiScenes.load({ size: 64, degraded: 0, kinds: { one: 0.3, count: 0.3, pair: 0.4 } });
    const batch = clean.batch(0, 120);
    const at = (picture: number, c: number, x: number, y: number) =>
      (batch.pixels[((picture * 3 + c) * 64 + y) * 64 + x]! + 1) * 127.5;
    batch.scenes.forEach((scene, i) => {
      const { background } = scene;
      if (background.kind === "named" && scene.count !== 5) {
        const colour = NAMED_COLOURS[background.colour];
        const distance = (name: (typeof COLOUR_NAMES)[number]) =>
          Math.hypot(...[0, 1, 2].map((c) => at(i, c, 0, 0) - NAMED_COLOURS[name][c]!));
        const nearest = COLOUR_NAMES.toSorted((a, b) => distance(a) - distance(b))[0];
        expect(nearest, JSON.stringify(colour)).toBe(background.colour);
      }
      for (const object of scene.objects) {
        let difference = 0;
        const half = Math.floor((object.side * 64) / 3);
        for (let dy = -half; dy <= half; dy++) {
          for (let dx = -half; dx <= half; dx++) {
            const x = Math.round(object.x * 64) + dx;
            const y = Math.round(object.y * 64) + dy;
            const behind = (c: number) => scene.top[c]! + ((scene.bottom[c]! - scene.top[c]!) * (y + 0.5)) / 64;
            for (let c = 0; c < 3; c++) difference = Math.max(difference, Math.abs(at(i, c, x, y) - behind(c)));
          }
        }
        expect(difference, scene.trueCaption).toBeGreaterThan(12);
      }
    });
  });

  it("keep pixels in [-1, 1]", () => {
    for (const value of scenes.batch(0, 64).pixels) if (!(value >= -1 && value <= 1)) expect.fail(`${value}`);
  });
});

describe("damage", () => {
  const size = 64;
  const fresh = () => {
    const random = new SceneRandom(3, 3);
    return Float32Array.from({ length: 3 * size * size }, () => 255 * random.uniform());
  };
  const roughness = (p: Float32Array) => {
    let sum = 0;
    for (let i = 1; i < p.length; i++) sum += (p[i]! - p[i - 1]!) ** 2;
    return sum;
  };
  const mean = (p: Float32Array) => p.reduce((sum, value) => sum + value, 0) / p.length;

  it("blurs more with the amount and keeps flat pictures flat", () => {
    const values = [0, 0.25, 0.5, 1].map((amount) => {
      const picture = fresh();
      blur(picture, size, amount);
      return roughness(picture);
    });
    for (let i = 1; i < values.length; i++) expect(values[i]).toBeLessThan(values[i - 1]!);
    const flat = new Float32Array(3 * size * size).fill(77);
    blur(flat, size, 0.8);
    for (const value of flat) expect(value).toBeCloseTo(77, 3);
  });

  it("blurs with the standard deviation that the amount says", () => {
    for (const amount of [0.3, 0.7]) {
      const picture = new Float32Array(3 * size * size);
      picture[(size / 2) * size + size / 2] = 1;
      blur(picture, size, amount);
      let [mass, spread] = [0, 0];
      for (let i = 0; i < size * size; i++) {
        mass += picture[i]!;
        spread += picture[i]! * ((i % size) - size / 2) ** 2;
      }
      expect(mass).toBeCloseTo(1, 4);
      expect(Math.sqrt(spread)).toBeCloseTo(amount * 0.03 * size, 3);
    }
  });

  it("takes the colour out in proportion and keeps the luma", () => {
    const before = fresh();
    const after = before.slice();
    desaturate(after, size, 0.5);
    const plane = size * size;
    const luma = (p: Float32Array, i: number) => 0.299 * p[i]! + 0.587 * p[plane + i]! + 0.114 * p[2 * plane + i]!;
    for (const i of [0, 100, plane - 1]) {
      expect(luma(after, i)).toBeCloseTo(luma(before, i), 2);
      expect(after[i]! - after[plane + i]!).toBeCloseTo((before[i]! - before[plane + i]!) / 2, 2);
    }
  });

  it("codes blocks with more loss as the amount grows and none at zero", () => {
    const source = fresh();
    const errors = [0, 0.1, 0.5, 1].map((amount) => {
      const picture = source.slice();
      blockCode(picture, size, amount);
      return Math.sqrt(mean(picture.map((value, i) => (value - source[i]!) ** 2)));
    });
    expect(errors[0]).toBe(0);
    for (let i = 1; i < errors.length; i++) expect(errors[i]).toBeGreaterThan(errors[i - 1]!);
    // An orthonormal transform: the coefficients' rounding error is the pixels' error.
    const tiny = source.slice();
    blockCode(tiny, size, 1e-6);
    for (let i = 0; i < tiny.length; i += 97) expect(tiny[i]).toBeCloseTo(source[i]!, 1);
  });
});
