import { manualSeed, noGrad, randn, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { beforeAll, describe, expect, it } from "vitest";
import { checkT5Config } from "./t5-config.js";
import { T5Seq2Seq } from "./t5-seq2seq.js";
import { relativeBuckets, T5Block, T5Stack } from "./t5-stack.js";

const config = checkT5Config({ vocabSize: 40, dModel: 24, dKv: 8, dFf: 48, numLayers: 2, numHeads: 3 });
const difference = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item() as number;

describe("T5 whole", () => {
  let t5: T5Seq2Seq;
  beforeAll(() => {
    manualSeed(5);
    const blocks = (side: "encoder" | "decoder") => [
      new T5Block(config, side).eval(),
      new T5Block(config, side).eval(),
    ];
    const source = { encoder: blocks("encoder"), decoder: blocks("decoder") } as {
      encoder: T5Block[];
      decoder: T5Block[];
    };
    t5 = new T5Seq2Seq(config, 40, source).eval() as T5Seq2Seq;
  });
  const logits = (rows: number[][], labels: number[]) =>
    noGrad(() =>
      scope(() => {
        const states = t5.embed(rows.flat());
        const encoded = t5.encode({ states, lengths: rows.map((row) => row.length) });
        return t5.logits(t5.decode(encoded, labels, 0));
      }),
    );
  const rows = [[3, 4, 5, 1], [7, 8, 1], Array.from({ length: 30 }, (_, i) => 2 + (i % 30))];

  it("gives a text the same whatever stands beside it, in any order", () => {
    const together = logits(rows, [9, 1]);
    const reversed = logits([...rows].reverse(), [9, 1]);
    rows.forEach((row, i) => {
      expect(difference(logits([row], [9, 1]).select(0, 0), together.select(0, i))).toBeLessThan(1e-5);
      expect(difference(reversed.select(0, rows.length - 1 - i), together.select(0, i))).toBeLessThan(1e-5);
    });
  });

  it("lets a label see the labels before it and not those behind it", () => {
    const [a, b, c] = [
      [9, 1, 3],
      [9, 1, 7],
      [8, 1, 3],
    ].map((labels) => logits(rows, [...labels, 1])) as [Tensor, Tensor, Tensor];
    expect(difference(a.narrow(1, 0, 3), b.narrow(1, 0, 3))).toBeLessThan(1e-6);
    expect(difference(a.select(1, 3), b.select(1, 3))).toBeGreaterThan(1e-3);
    expect(difference(a.select(1, 1), c.select(1, 1))).toBeGreaterThan(1e-3);
  });

  it("keeps its head in float32", () => {
    const head = t5.stateDict().get("lm_head.weight")!;
    t5.to({ dtype: "bfloat16" });
    expect([head.dtype, t5.stateDict().get("shared.weight")!.dtype]).toEqual(["float32", "bfloat16"]);
    expect(logits(rows, [9, 1]).isfinite().all().item()).toBeTruthy();
  });
});

it("texts without padding have the states that padded ones have", () => {
  manualSeed(6);
  const stack = new T5Stack(config).eval() as T5Stack;
  noGrad(() =>
    scope(() => {
      const lengths = [5, 2, 9];
      const states = randn([16, 24]);
      const mask = tensor(lengths.flatMap((length) => Array.from({ length: 9 }, (_, i) => i < length))).view(3, 9);
      const padded = randn([3, 9, 24]);
      const starts = [0, 5, 7];
      lengths.forEach((length, i) => {
        padded
          .select(0, i)
          .narrow(0, 0, length)
          .copy_(states.narrow(0, starts[i]!, length));
      });
      const [packed, wanted] = [stack.encode({ states, lengths }), stack.forward(padded, mask)];
      lengths.forEach((length, i) => {
        const own = wanted.select(0, i).narrow(0, 0, length);
        expect(difference(packed.narrow(0, starts[i]!, length), own)).toBeLessThan(1e-5);
      });
    }),
  );
});

it("a decoder's buckets are all for keys before the query, at distances 16, 19, 21, 24, … of its wide ones", () => {
  const length = 200;
  const buckets = relativeBuckets(length, 32, 128, "decoder");
  const at = (distance: number) => Number(buckets[distance * length]); // first key, later queries
  expect([0, 1, 15, 16, 18, 19, 20, 21, 23, 24, 113, 128, 199].map(at)).toEqual([
    0, 1, 15, 16, 16, 17, 17, 18, 18, 19, 31, 31, 31,
  ]);
  expect(buckets.subarray(0, length).every((bucket) => bucket === 0n)).toBe(true); // first query, later keys
});
