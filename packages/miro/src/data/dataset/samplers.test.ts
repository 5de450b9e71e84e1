import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { camelCase } from "../../letter-case.js";
import type { SampleOrder } from "../shards/order.js";
import { BlockOrder, chunkedOrder, WeightedOrder } from "./samplers.js";
import { publishedChunked, publishedLocal, publishedShardExclusive } from "./testing/published-orders.js";

const recorded = JSON.parse(
  readFileSync(
    new URL("../../../../../tests/reference/fixtures/shards/recorded/recorded.json", import.meta.url),
    "utf8",
  ),
) as { orders: Record<string, unknown>[] };

describe("a published sampler's order", () => {
  const of = (kind: string) => recorded.orders.filter((order) => order.kind === kind);

  it.each(["shard_exclusive", "chunked", "local"])("%s is the recorded one", (kind) => {
    expect(of(kind).length).toBeGreaterThan(8);
    for (const order of of(kind)) {
      const options = Object.fromEntries(Object.entries(order).map(([key, value]) => [camelCase(key), value]));
      const compute = { shard_exclusive: publishedShardExclusive, chunked: publishedChunked, local: publishedLocal }[
        kind
      ] as (options: unknown) => number[];
      expect(compute(options), JSON.stringify({ ...order, indices: undefined })).toEqual(order.indices);
    }
  });
});

const part = (order: SampleOrder, epoch: number, start: number, count: number) =>
  Array.from({ length: count }, (_, i) => order.index(epoch, start + i));
const everything = (order: SampleOrder, epoch: number) => part(order, epoch, 0, order.length);
const sorted = (list: number[]) => [...list].sort((a, b) => a - b);
const counting = (n: number) => Array.from({ length: n }, (_, i) => i);

const blockOptions = fc.record({
  blockLengths: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 12 }),
  seed: fc.maxSafeNat(),
  streams: fc.integer({ min: 1, max: 9 }),
  batchSize: fc.integer({ min: 1, max: 7 }),
});

describe("an order by blocks", () => {
  it("has each sample once in an epoch, another order in each", () => {
    fc.assert(
      fc.property(blockOptions, fc.nat(1000), (options, epoch) => {
        const order = new BlockOrder(options);
        expect(sorted(everything(order, epoch))).toEqual(counting(order.length));
        if (order.length > 30) expect(everything(order, epoch)).not.toEqual(everything(order, epoch + 1));
      }),
    );
  });

  it("gives the same samples wherever it is entered", () => {
    fc.assert(
      fc.property(blockOptions, fc.nat(3), fc.nat(), fc.nat(), (options, epoch, a, b) => {
        const whole = everything(new BlockOrder(options), epoch);
        const start = a % (whole.length + 1);
        const count = b % (whole.length - start + 1);
        const order = new BlockOrder(options);
        part(order, epoch + 1, 0, Math.min(3, order.length)); // another epoch before leaves no trace
        expect(part(order, epoch, start, count)).toEqual(whole.slice(start, start + count));
      }),
    );
  });

  it("lets each stream read few blocks, its share of all", () => {
    const streams = 6;
    const batchSize = 5;
    const order = new BlockOrder({ blockLengths: Array(31).fill(20), seed: 3, streams, batchSize });
    const all = everything(order, 2);
    for (let stream = 0; stream < streams; stream++) {
      const own = all.filter((_, i) => Math.floor(i / batchSize) % streams === stream && i < 600);
      expect(own).toHaveLength(100);
      expect(new Set(own.map((i) => Math.floor(i / 20))).size).toBeLessThanOrEqual(7);
    }
  });

  it("keeps blocks and samples in place without shuffling", () => {
    expect(everything(new BlockOrder({ blockLengths: [3, 0, 4], seed: 1, shuffle: false }), 5)).toEqual(counting(7));
  });

  it("mixes chunks of consecutive samples from the first epoch on", () => {
    const order = chunkedOrder({ count: 103, chunkSize: 10, seed: 4 });
    const all = everything(order, 0);
    expect(sorted(all)).toEqual(counting(103));
    const firsts = counting(10).map((i) => Math.floor(all[i * 10]! / 10));
    expect(firsts).not.toEqual(sorted(firsts));
  });

  it("refuses positions outside the epoch", () => {
    expect(() => new BlockOrder({ blockLengths: [3], seed: 1 }).index(0, 3)).toThrow(
      /^position: expected an integer from 0 to 2/,
    );
  });
});

describe("a weighted mixture", () => {
  const order = (length: number, seed: number) => new BlockOrder({ blockLengths: [length], seed });

  it("gives each data set its share at every moment and walks it evenly", () => {
    const weights = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(weights, fc.nat(), (weights, seed) => {
        fc.pre(weights.some((weight) => weight > 0));
        const lengths = weights.map((_, i) => 50 + 13 * i);
        const mixture = new WeightedOrder({
          parts: weights.map((weight, i) => ({ weight, order: order(lengths[i]!, i) })),
          seed,
          length: 3000,
        });
        const counts = lengths.map((length) => new Array(length).fill(0));
        const drawn = part(mixture, 0, 0, 3000);
        for (const sample of drawn) {
          let part = 0;
          let within = sample;
          while (within >= lengths[part]!) within -= lengths[part++]!;
          counts[part]![within]++;
        }
        const total = weights.reduce((a, b) => a + b);
        counts.forEach((list, i) => {
          const share = list.reduce((a, b) => a + b, 0);
          expect(Math.abs(share - (3000 * weights[i]!) / total)).toBeLessThan(130);
          expect(Math.max(...list) - Math.min(...list)).toBeLessThanOrEqual(1);
        });
        expect(part(mixture, 0, 1020, 9)).toEqual(drawn.slice(1020, 1029));
      }),
      { numRuns: 20 },
    );
  });

  it("is refused without any weight", () => {
    expect(() => new WeightedOrder({ parts: [{ weight: 0, order: order(3, 1) }], seed: 1 })).toThrow(
      /^weight: expected/,
    );
  });
});
