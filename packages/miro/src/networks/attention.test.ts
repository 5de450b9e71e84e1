import { manualSeed, noGrad, ones, randn, scope, type Tensor } from "@miro-t2i/torch";
import { beforeEach, describe, expect, it } from "vitest";
import {
  CrossAttention,
  CrossAttentionBlock,
  SelfAttention,
  SelfAttentionBlock,
  TransformerBlock,
} from "./attention.js";
import { EPS } from "./norms.js";

const [B, Q, S, HEADS] = [2, 3, 5, 2];
const evaluate = (test: () => void) => () => scope(() => noGrad(test));
const difference = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item() / b.abs().max().item();
const normed = (x: Tensor) => {
  const centred = x.sub(x.mean(-1, true));
  return centred.div(centred.square().mean(-1, true).add(EPS).sqrt());
};

/** softmax(q kᵀ / √E) v, one head at a time, with q and k normalised where asked for. */
function attended(q: Tensor, k: Tensor, v: Tensor, qkNorm: boolean, mask?: Tensor): Tensor {
  const E = q.size(-1) / HEADS;
  const out = ones([q.size(0), q.size(1), q.size(2)]);
  for (let head = 0; head < HEADS; head++) {
    const cut = (t: Tensor) => t.narrow(-1, head * E, E);
    const [qh, kh] = qkNorm ? [normed(cut(q)), normed(cut(k))] : [cut(q), cut(k)];
    let scores = qh.matmul(kh.transpose(1, 2)).div(Math.sqrt(E));
    if (mask) scores = scores.maskedFill(mask.logicalNot(), Number.NEGATIVE_INFINITY);
    cut(out).copy_(scores.softmax(-1).matmul(cut(v)));
  }
  return out;
}

beforeEach(() => {
  manualSeed(1);
});

describe("attention", () => {
  it(
    "of receiving to source tokens is softmax(q kᵀ / √E) v by head, keys before values",
    evaluate(() => {
      const ca = new CrossAttention(8, 12, HEADS).eval() as CrossAttention;
      const [to, from] = [randn([B, Q, 8]), randn([B, S, 12])];
      const [k, v] = from.matmul(ca.kv.weight.transpose(0, 1)).chunk(2, -1) as [Tensor, Tensor];
      const q = to.matmul(ca.q.weight.transpose(0, 1));
      const expected = ca.out.forward(attended(q, k, v, true));
      expect(difference(ca.forward(to, ca.keyValue(from), null), expected)).toBeLessThan(1e-5);
    }),
  );

  it(
    "never reads masked keys, and reads all others",
    evaluate(() => {
      const sa = new SelfAttention(8, HEADS, { qkvBias: true, qkNorm: false }).eval() as SelfAttention;
      const x = randn([B, S, 8]);
      const mask = ones([B, 1, 1, S], { dtype: "bool" });
      mask.narrow(3, 3, 2).fill_(false);
      const [q, k, v] = sa.qkv.forward(x).chunk(3, -1) as [Tensor, Tensor, Tensor];
      const expected = sa.out.forward(attended(q, k, v, false, mask.select(1, 0)));
      expect(difference(sa.forward(x, mask), expected)).toBeLessThan(1e-5);
    }),
  );
});

describe("blocks", () => {
  it(
    "add what each layer makes of the normed stream",
    evaluate(() => {
      const cross = new CrossAttentionBlock(8, 12, HEADS, 4, 0).eval() as CrossAttentionBlock;
      const [to, from] = [randn([B, Q, 8]), randn([B, S, 12])];
      const source = cross.ca.keyValue(from);
      const h = to.add(cross.ca.forward(cross.initialNorm.forward(to), source, null));
      expect(difference(cross.forward(to, source), h.add(cross.ffn.forward(cross.middleNorm.forward(h))))).toBeLessThan(
        1e-5,
      );

      const self = new SelfAttentionBlock(8, HEADS, 4, 0, 0).eval() as SelfAttentionBlock;
      const g = to.add(self.sa.forward(self.initialNorm.forward(to), null));
      expect(difference(self.forward(to), g.add(self.ffn.forward(self.middleNorm.forward(g))))).toBeLessThan(1e-5);
    }),
  );

  it(
    "of the conditioning transformer scale their branches, by 0.1 at first",
    evaluate(() => {
      const block = new TransformerBlock(16, HEADS).eval() as TransformerBlock;
      const x = randn([B, S, 16]);
      const h = x.add(block.sa.forward(block.initialNorm.forward(x), null).mul(0.1));
      const expected = h.add(block.ffn.forward(block.middleNorm.forward(h)).mul(0.1));
      expect(difference(block.forward(x, null), expected)).toBeLessThan(1e-5);
      block.scale1.zero_();
      block.scale2.zero_();
      expect(difference(block.forward(x, null), x)).toBe(0);
    }),
  );
});
