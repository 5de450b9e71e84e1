import { manualSeed, ones, randn, scope, stack, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import { describe, expect, it } from "vitest";
import { EmojiScenes, type Scene } from "../scenes/scenes.js";
import { AppearanceHead, Portraits } from "./appearance.js";

const vocabulary = ["fox", "red apple", "lemon", "banana", "rocket", "pizza", "owl", "cactus"];
const VALUES = 3 * 32 * 32;

async function sceneOf(kind: Scene["kind"]): Promise<Scene> {
  const scenes = await EmojiScenes.load({ vocabulary, size: 32, kinds: { [kind]: 1 }, tint: 0 });
  return scenes.describe(5);
}

const values = (t: Tensor) => Array.from(t.data() as Float32Array);

describe("Portraits", () => {
  it("has an error of 1, averaged over the vocabulary, for the mean portrait", async () => {
    const portraits = await Portraits.load(vocabulary);
    const scene = await sceneOf("one");
    const all = vocabulary.map((_, entryIndex) => ({ ...scene, objects: [{ ...scene.objects[0]!, entryIndex }] }));
    expect(portraits.unexplained(zeros([all.length, 2, VALUES]), all).item()).toBeCloseTo(1, 4);
  });

  it("asks for both things of a pair in the order of their names, and for one thing of every other scene", async () => {
    const portraits = await Portraits.load(vocabulary);
    const pair = await sceneOf("pair");
    const alone = (at: number): Scene => ({ ...pair, kind: "one", objects: [pair.objects[at]!] });
    const error = (scene: Scene, ...looks: Tensor[]) =>
      portraits
        .unexplained(tensor(Float32Array.from(looks.flatMap(values)), { shape: [1, 2, VALUES] }), [scene])
        .item();
    // The error of a zero prediction is the mean square of the portrait; that of k · ones tells the portrait's mean as
    // well.
    const [zero, one] = [zeros([VALUES]), ones([VALUES])];
    expect(error(pair, zero, one)).toBeCloseTo((error(alone(0), zero, zero) + error(alone(1), one, zero)) / 2, 5);
    expect(error(alone(0), zero, one)).toBe(error(alone(0), zero, zero));
    expect(error(await sceneOf("count"), zero, one)).toBe(error(await sceneOf("count"), zero, zero));
  });

  it("finds a thing by its own portrait, and counts the places of a pair apart", async () => {
    const portraits = await Portraits.load(vocabulary);
    const [one, pair] = [await sceneOf("one"), await sceneOf("pair")];
    const [first, second] = pair.objects.map(({ entryIndex }) => entryIndex) as [number, number];
    const third = vocabulary.findIndex((_, i) => i !== first && i !== second);
    // As a linear map would give it from a few steps of descent: the error's gradient at zero points to the portrait.
    const portrait = (entryIndex: number) => {
      const looks = zeros([1, 2, VALUES]).requiresGrad_(true);
      portraits.unexplained(looks, [{ ...one, objects: [{ ...one.objects[0]!, entryIndex, tint: null }] }]).backward();
      return looks.grad!.select(1, 0).mul(-VALUES / 2);
    };
    const looks = (...of: number[]) => stack(of.map(portrait), 1);
    const found = (...of: number[]) => portraits.found(looks(...of), [pair]);
    expect(found(first, second)).toMatchObject({ first_found: 1, second_found: 1 });
    expect(found(second, first)).toMatchObject({ first_found: 0, second_found: 0 });
    expect(found(first, third)).toMatchObject({ first_found: 1, second_found: 0 });
    expect(portraits.found(looks(one.objects[0]!.entryIndex, third), [one]).one_found).toBe(1);
  });
});

describe("AppearanceHead", () => {
  it("does not read padding", () => {
    scope(() => {
      manualSeed(1);
      const head = new AppearanceHead(16);
      const states = randn([1, 5, 16]);
      const padded = states.clone();
      padded.narrow(1, 3, 2).fill_(100);
      const mask = tensor([true, true, true, false, false], { dtype: "bool" }).unsqueeze(0);
      expect(values(head.forward(padded, mask).detach())).toEqual(values(head.forward(states, mask).detach()));
    });
  });
});
