import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type SampleOrder, ShuffledOrder, samplesBefore, stepPosition } from "./order.js";

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const epochOf = (order: SampleOrder, epoch: number): number[] => range(order.length).map((i) => order.index(epoch, i));
const sizes = fc.array(fc.nat(40), { minLength: 1, maxLength: 30 });
const window = fc.oneof(fc.constant("all" as const), fc.integer({ min: 1, max: 8 }));

describe("ShuffledOrder", () => {
  test("visits each sample exactly once an epoch, whatever the shards and windows", () => {
    fc.assert(
      fc.property(sizes, window, fc.nat(), fc.nat(100), (shardSizes, windowShards, seed, epoch) => {
        const order = new ShuffledOrder({ shardSizes, seed, windowShards });
        expect(epochOf(order, epoch).sort((a, b) => a - b)).toEqual(range(order.length));
      }),
    );
  });

  test("depends on seed, epoch and position alone: asking in any order, of any instance, gives the same", () => {
    fc.assert(
      fc.property(
        sizes,
        window,
        fc.nat(),
        fc.array(fc.tuple(fc.nat(3), fc.nat()), { maxLength: 50 }),
        (shardSizes, windowShards, seed, asked) => {
          const options = { shardSizes, seed, windowShards };
          const order = new ShuffledOrder(options);
          fc.pre(order.length > 0);
          for (const [epoch, at] of asked) {
            const position = at % order.length;
            expect(order.index(epoch, position)).toBe(new ShuffledOrder(options).index(epoch, position));
          }
        },
      ),
    );
  });

  test("ranks, workers and accumulation divide the positions of a step among them and change nothing", () => {
    const order = new ShuffledOrder({ shardSizes: [100, 37, 64], seed: 3, windowShards: 2 });
    const step = (n: number, ranks: number, micro: number) => {
      const { epoch, position } = stepPosition(n, 24, order.length);
      const part = 24 / ranks / micro;
      return range(micro).flatMap((m) =>
        range(ranks).flatMap((r) => range(part).map((i) => order.index(epoch, position + (m * ranks + r) * part + i))),
      );
    };
    for (const n of [0, 5, 8, 9, 100]) expect(step(n, 4, 3)).toEqual(step(n, 1, 1));
  });

  test("differs between epochs and seeds", () => {
    const of = (seed: number, epoch: number) => epochOf(new ShuffledOrder({ shardSizes: [500, 500], seed }), epoch);
    const fixed = (a: number[], b: number[]) => a.filter((value, i) => value === b[i]).length;
    // Two random permutations agree in one place on average.
    expect(fixed(of(0, 0), of(0, 1))).toBeLessThan(10);
    expect(fixed(of(0, 0), of(1, 0))).toBeLessThan(10);
    expect(fixed(of(0, 1), of(1, 0))).toBeLessThan(10);
  });

  test("with windows, so many shards at a time", () => {
    const order = new ShuffledOrder({ shardSizes: range(12).map(() => 50), windowShards: 3 });
    const visited = epochOf(order, 1);
    for (let at = 0; at < visited.length; at += 150) {
      expect(new Set(visited.slice(at, at + 150).map((i) => Math.floor(i / 50))).size).toBe(3);
    }
  });

  test("refuses positions outside the epoch", () => {
    const order = new ShuffledOrder({ shardSizes: [3] });
    for (const position of [-1, 3, 0.5, Number.NaN]) expect(() => order.index(0, position)).toThrow(/position/);
  });
});

test("stepPosition goes through epochs of whole batches", () => {
  expect([0, 1, 2, 3, 4].map((step) => stepPosition(step, 4, 11))).toEqual([
    { epoch: 0, position: 0 },
    { epoch: 0, position: 4 },
    { epoch: 1, position: 0 },
    { epoch: 1, position: 4 },
    { epoch: 2, position: 0 },
  ]);
  expect(() => stepPosition(0, 12, 11)).toThrow(/batchSize/);
});

test("stepPosition goes on behind the last sample when the batch changes: none comes twice or is left out", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 });
  const property = fc.property(
    sizes,
    fc.integer({ min: 1, max: 40 }),
    fc.integer({ min: 9, max: 60 }),
    (sizes, every, length) => {
      const spans = sizes.map((batchSize, i) => ({ from: i * every, batchSize }));
      const next = { epoch: 0, position: 0 };
      /** An epoch ends where no further batch fits. */
      const fit = (batchSize: number) => {
        if (next.position + batchSize > length) Object.assign(next, { epoch: next.epoch + 1, position: 0 });
      };
      for (let step = 0; step < sizes.length * every; step++) {
        const batchSize = sizes[Math.floor(step / every)]!;
        fit(batchSize);
        expect(stepPosition(step, spans, length)).toEqual(next);
        next.position += batchSize;
        fit(batchSize);
      }
      expect(samplesBefore(spans.length * every, spans)).toBe(sizes.reduce((sum, size) => sum + size * every, 0));
    },
  );
  fc.assert(property, { numRuns: 200 });
});
