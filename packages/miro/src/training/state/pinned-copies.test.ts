// Copies of a checkpoint in a few blocks of memory; here in memory that is not pinned, which a CPU has.
import { empty, noGrad, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { afterEach, expect, it } from "vitest";
import { PinnedCopies } from "./pinned-copies.js";

let blocks: number[] = [];
let copies: PinnedCopies;
afterEach(() => copies.dispose());

function start(): PinnedCopies {
  blocks = [];
  copies = new PinnedCopies((bytes) => {
    blocks.push(bytes);
    return empty([bytes], { dtype: "uint8" });
  });
  return copies;
}

const formsOf = (...shapes: number[][]) =>
  shapes.map((shape) => ({ dtype: "float32" as const, shape, numel: shape.reduce((a, b) => a * b, 1) }));

it("each has its tensor's shape and dtype, and memory of its own", () => {
  scope(() => {
    const tensors = (["float32", "float16", "bool", "int64", "float64"] as const).flatMap((dtype) =>
      [[3, 5], [], [0, 4], [17]].map((shape) => zeros(shape, { dtype })),
    );
    const found = start().like(tensors);
    const described = (list: readonly Tensor[]) => list.map(({ dtype, shape }) => `${dtype} ${shape}`);
    expect(described(found)).toEqual(described(tensors));
    noGrad(() => {
      for (const [i, copy] of found.entries()) copy.fill_(copy.dtype === "bool" ? i % 2 : i);
    });
    for (const [i, copy] of found.entries()) {
      const value = copy.dtype === "bool" ? i % 2 : i;
      const values = copy.to({ dtype: "float64" }).flatten().toList() as number[];
      expect(values.every((one) => Number(one) === value)).toBe(true);
    }
  });
});

it("those of the next checkpoint are the same tensors; of others, in the same memory", () => {
  const pinned = start();
  const first = pinned.like(formsOf([100, 10], [7]));
  expect(pinned.like(formsOf([100, 10], [7]))).toBe(first);
  const other = pinned.like(formsOf([7], [50, 20]));
  expect(other.map(({ shape }) => shape)).toEqual([[7], [50, 20]]);
  expect(blocks).toEqual([4096]);
});

it("what was reserved suffices, in whatever order the tensors come", () => {
  const shapes = Array.from({ length: 300 }, (_, i) => [1 + ((i * 7919) % 4001), 1 + (i % 3)]);
  const pinned = start();
  pinned.reserve(formsOf(...shapes));
  const reserved = blocks.length;
  expect(reserved).toBeGreaterThan(0);
  pinned.like(formsOf(...shapes.reverse()));
  expect(blocks.length).toBe(reserved);
});

it("memory comes in few blocks that are powers of two, little more than is needed", () => {
  // As of the published network, weights, one average and two moments: 23 MB, 8 MB, 4 MB and small.
  const layer = formsOf([5632, 1024], [1024, 2816], [1024, 1024], [1024], [64]);
  const forms = Array.from({ length: 4 * 32 }, () => layer).flat();
  const needed = forms.reduce((sum, { numel }) => sum + 4 * numel, 0);
  copies = new PinnedCopies((bytes) => {
    blocks.push(bytes);
    return empty([bytes], { dtype: "uint8" }); // never written, so it takes no memory
  });
  blocks = [];
  copies.reserve(forms);
  const whole = blocks.reduce((sum, bytes) => sum + bytes, 0);
  expect(blocks.every((bytes) => Number.isInteger(Math.log2(bytes)))).toBe(true);
  expect(blocks.length).toBeLessThan(needed / 2 ** 28 + 3);
  expect(whole / needed).toBeLessThan(1.1);
});
