import { memory, tensor } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import type { RgbImage } from "../pictures/rgb.js";
import { clipPixels, clipPixelsKey, keyedPixels } from "./clip-pixels.js";
import { KeptFeatures, pictureKey } from "./kept-features.js";
import { Shared } from "./shared.js";

const picture = (level: number, width = 2, height = 2): RgbImage => ({
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) => level + (i % 7)),
});

it("features of equal content are encoded once, however many are asked for, and no more are kept than allowed", async () => {
  const before = memory.stats().liveTensors;
  const kept = new KeptFeatures(3);
  const encoded: number[] = [];
  const of = async (levels: number[]) => {
    const images = levels.map((level) => picture(level));
    using features = await kept.of(images, images.map(pictureKey), async (missing) => {
      encoded.push(...missing.map(({ data }) => data[0]!));
      return tensor(missing.map(({ data }) => [data[0]!]));
    });
    return features.toList();
  };
  expect(await of([1, 2, 1])).toEqual([[1], [2], [1]]);
  expect(await of([2, 3])).toEqual([[2], [3]]);
  expect(encoded).toEqual([1, 2, 3]);
  expect(await of([4, 5, 6, 7])).toEqual([[4], [5], [6], [7]]);
  expect(memory.stats().liveTensors - before).toBe(3);
  expect(await of([5, 6, 7])).toEqual([[5], [6], [7]]);
  expect(encoded).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(await of([4])).toEqual([[4]]);
  expect(encoded.at(-1)).toBe(4);
  kept.dispose();
  expect(memory.stats().liveTensors).toBe(before);
});

it("calls that come while another encodes wait for it, and go on when it fails", async () => {
  const before = memory.stats().liveTensors;
  const kept = new KeptFeatures(2);
  let fail!: (error: Error) => void;
  const first = kept.of(["a"], ["a"], () => new Promise((_, reject) => (fail = reject)));
  const encoded: string[][] = [];
  const encode = async (missing: readonly string[]) => {
    encoded.push([...missing]);
    return tensor(missing.map((text) => [text.charCodeAt(0)]));
  };
  const others = [kept.of(["a", "b"], ["a", "b"], encode), kept.of(["b", "c", "a"], ["b", "c", "a"], encode)];
  await new Promise((resolve) => setImmediate(resolve));
  expect(encoded).toEqual([]);
  fail(new Error("stopped"));
  await expect(first).rejects.toThrow("stopped");
  const values = (await Promise.all(others)).map((features) => {
    using owned = features;
    return owned.toList();
  });
  expect(values).toEqual([
    [[97], [98]],
    [[98], [99], [97]],
  ]);
  expect(encoded).toEqual([["a", "b"], ["c"]]);
  kept.dispose();
  expect(memory.stats().liveTensors).toBe(before);
});

it("pictures are told apart by content and by the pixels that a tower sees of them", () => {
  const image = picture(3, 9, 6);
  const changed = picture(3, 9, 6);
  expect(clipPixelsKey(changed, 4, "pillow")).toBe(clipPixelsKey(image, 4, "pillow"));
  expect(pictureKey({ ...image, width: 6, height: 9 })).not.toBe(pictureKey(image));
  // The longer side becomes 6, whose surplus of 2 needs no rounding; of 11 x 4 it becomes 11, with one that does.
  expect(clipPixelsKey(image, 4, "transformers")).toBe(clipPixelsKey(image, 4, "pillow"));
  const odd = picture(3, 11, 4);
  expect(clipPixelsKey(odd, 4, "transformers")).not.toBe(clipPixelsKey(odd, 4, "pillow"));
  expect(clipPixelsKey(odd, 4, "tensor")).not.toBe(clipPixelsKey(odd, 4, "letterbox"));
  // A picture whose pixels were written over is another one.
  const first = clipPixels(image, 4, "pillow").toList();
  image.data.fill(200);
  expect(clipPixels(image, 4, "pillow").toList()).not.toEqual(first);
  // A key that is known is not made again.
  expect(keyedPixels({ image, key: clipPixelsKey(changed, 4, "pillow") }, 4, "pillow").toList()).toEqual(first);
});

it("what is shared is made once and freed by the last of its owners", async () => {
  let made = 0;
  let freed = 0;
  const shared = new Shared<{ dispose(): void }>();
  const hold = () => shared.hold("tower", async () => ({ made: ++made, dispose: () => void freed++ }));
  const [a, b] = await Promise.all([hold(), hold()]);
  expect(b.value).toBe(a.value);
  a.dispose();
  a.dispose();
  expect([made, freed]).toEqual([1, 0]);
  b.dispose();
  expect([made, freed]).toEqual([1, 1]);
  expect((await hold()).value).not.toBe(a.value);
  const broken = async () => {
    throw new Error("no file");
  };
  await expect(shared.hold("broken", broken)).rejects.toThrow("no file");
  expect(made).toBe(2);
});

it("whoever waits for what another gave up makes it", async () => {
  const shared = new Shared<{ name: string; dispose(): void }>();
  const given = Promise.reject(new Error("given up"));
  const first = shared.hold("tower", () => given);
  const second = shared.hold("tower", async () => ({ name: "second", dispose() {} }));
  const third = shared.hold("tower", async () => ({ name: "third", dispose() {} }));
  await expect(first).rejects.toThrow("given up");
  expect((await second).value.name).toBe("second");
  expect((await third).value).toBe((await second).value);
});
