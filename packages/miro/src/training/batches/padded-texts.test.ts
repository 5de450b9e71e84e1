import { manualSeed, noGrad, ones, rand, randn, scope, type Tensor, zeros } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import type { LossBatch } from "../../flow/loss.js";
import { Rin } from "../../networks/rin.js";
import { tinyConfig } from "../../networks/testing/tiny-config.js";
import { paddedLength, withPaddedTexts } from "./padded-texts.js";

const config = tinyConfig();

function batchOf(length: number): LossBatch {
  const { numInputChannels: C, dataSize: side, labelDim, coherenceKeys } = config;
  const textMask = ones([2, length], { dtype: "bool" });
  textMask
    .narrow(0, 1, 1)
    .narrow(1, length - 2, 2)
    .fill_(false);
  return {
    x0: randn([2, C, side, side]),
    textEmbeddings: randn([2, length, labelDim]),
    textMask,
    rewards: Object.fromEntries(coherenceKeys.map((key) => [key, rand([2])])),
  };
}

it("texts get zeros that are masked; the rest of the batch stays", () => {
  scope(() => {
    const batch = batchOf(5);
    const { x0, rewards, textEmbeddings, textMask } = withPaddedTexts(batch, config);
    expect([x0, rewards]).toEqual([batch.x0, batch.rewards]);
    expect(textEmbeddings.shape).toEqual([2, 16, config.labelDim]);
    expect(textEmbeddings.narrow(1, 0, 5).toList()).toEqual(batch.textEmbeddings.toList());
    expect(textMask.narrow(1, 0, 5).toList()).toEqual(batch.textMask.toList());
    expect(textEmbeddings.narrow(1, 5, 11).abs().max().item()).toBe(0);
    expect(textMask.narrow(1, 5, 11).any().item()).toBe(0);
  });
});

it("a batch stays as it is where its length is one of the few, and where the network reads what is padded", () => {
  scope(() => {
    const [whole, short] = [batchOf(16), batchOf(5)];
    expect(withPaddedTexts(whole, config)).toBe(whole);
    expect(withPaddedTexts(short, { ...config, concatCondTokenToLatents: true })).toBe(short);
  });
});

it("picture and gradients are those without padding, up to rounding", () => {
  manualSeed(4);
  scope(() => {
    const network = new Rin(config);
    noGrad(() => {
      for (const parameter of network.parameters()) parameter.add_(randn(parameter.shape).mul(0.1));
    });
    const batch = batchOf(5);
    const [y, gamma] = [randn(batch.x0.shape), rand([2])];
    const previousLatents = zeros([2, config.numLatents, config.latentsDim]);
    const run = (given: LossBatch): number[][] => {
      for (const parameter of network.parameters()) parameter.grad = null;
      // As on a GPU, where no-one looks at the mask.
      const conditioning = network.condition(given, { keepPadding: true });
      const { F } = network.forward({ y, gamma, conditioning, previousLatents } as Parameters<Rin["forward"]>[0]);
      F.square().sum().backward();
      const gradients = [...network.parameters()].map(({ grad }) => grad).filter((grad) => grad !== null);
      return [F, ...(gradients as Tensor[])].map((t) => t.detach().flatten().toList() as number[]);
    };
    const [padded, plain] = [run(withPaddedTexts(batch, config)), run(batch)];
    expect(padded.length).toBe(plain.length);
    for (const [i, values] of plain.entries()) {
      const largest = Math.max(...values.map(Math.abs));
      const error = Math.max(...values.map((value, j) => Math.abs(value - padded[i]![j]!)));
      expect(error).toBeLessThanOrEqual(1e-4 * largest + 1e-5);
    }
  });
});

it("lengths are multiples of 16 at which neither attention has 64 keys more than a multiple of 128", () => {
  const published = { ...config, coherenceKeys: Array.from({ length: 7 }, (_, i) => `r${i}`), numTextRegisters: 16 };
  expect([1, 16, 17, 77, 120].map((length) => paddedLength(length, published))).toEqual([16, 16, 32, 80, 128]);
  for (const numTextRegisters of [0, 1, 14, 15, 16, 30])
    for (let length = 1; length <= 400; length++) {
      const of = { ...config, numTextRegisters };
      const padded = paddedLength(length, of);
      const keys = padded + config.coherenceKeys.length + numTextRegisters;
      expect([padded % 16, padded >= length, padded - length < 32]).toEqual([0, true, true]);
      expect([keys % 128, (keys + 1) % 128]).not.toContain(64);
      expect(paddedLength(padded, of)).toBe(padded);
    }
});
