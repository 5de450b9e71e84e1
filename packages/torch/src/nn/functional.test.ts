/**
 * Identities between the functional layers and their formulas; recorded values are compared in ops.conformance.test.ts.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  arange,
  aten,
  autocast,
  cat,
  F,
  full,
  getNumThreads,
  grad,
  manualSeed,
  noGrad,
  ones,
  randn,
  scope,
  setNumThreads,
  type Tensor,
  TorchError,
  tensor,
  where,
  zeros,
} from "../index.js";
import { flat, relativeError } from "../testing/reference.js";

const close = (got: Tensor, want: Tensor, tolerance = 1e-12): void => {
  expect(got.shape).toEqual(want.shape);
  expect(relativeError(flat(got), flat(want))).toBeLessThan(tolerance);
};
const double = { dtype: "float64" } as const;

describe("attention", () => {
  /** softmax(scale · q kᵀ + bias) v */
  const formula = (q: Tensor, k: Tensor, v: Tensor, scale: number, bias: Tensor): Tensor =>
    q.matmul(k.transpose(-2, -1)).mul(scale).add(bias).softmax(-1).matmul(v);

  test("equals its formula for boolean, additive and causal masks", () => {
    scope(() => {
      manualSeed(0);
      const [q, k, v] = [randn([2, 3, 5, 8], double), randn([2, 3, 5, 8], double), randn([2, 3, 5, 4], double)];
      const scale = 1 / Math.sqrt(8);
      const none = tensor(0, double);
      const lowest = tensor(Number.NEGATIVE_INFINITY, double);
      close(F.scaledDotProductAttention(q, k, v), formula(q, k, v, scale, none));
      close(F.scaledDotProductAttention(q, k, v, { scale: 0.1 }), formula(q, k, v, 0.1, none));
      const allowed = randn([2, 1, 5, 5], double)
        .gt(-0.5)
        .logicalOr(ones([5, 5], { dtype: "bool" }).triu());
      close(
        F.scaledDotProductAttention(q, k, v, { mask: allowed }),
        formula(q, k, v, scale, where(allowed, none, lowest)),
      );
      const bias = randn([5, 5], double);
      close(F.scaledDotProductAttention(q, k, v, { mask: bias }), formula(q, k, v, scale, bias));
      const causal = where(ones([5, 5], { dtype: "bool" }).tril(), none, lowest);
      close(F.scaledDotProductAttention(q, k, v, { isCausal: true }), formula(q, k, v, scale, causal));
    });
  });
});

describe("normalisation", () => {
  test("rmsNorm without eps uses the dtype's machine epsilon", () => {
    scope(() => {
      const x = full([1, 4], 1e-9, double);
      close(F.rmsNorm(x, [4]), full([1, 4], 1e-9 / Math.sqrt(1e-18 + 2 ** -52), double));
    });
  });

  test("normalize gives unit length and survives zeros", () => {
    scope(() => {
      const x = randn([3, 5], double);
      close(F.normalize(x).norm(-1), ones([3], double));
      close(F.normalize(x, { p: 1, dim: 0 }).abs().sum(0), ones([5], double));
      const channels = F.normalize(randn([2, 3, 4, 4], double)).norm(1);
      close(channels, ones([2, 4, 4], double));
      expect(flat(F.normalize(full([2], 0), { dim: 0 }))).toEqual([0, 0]);
    });
  });
});

describe("pictures", () => {
  test("pixelShuffle undoes pixelUnshuffle", () => {
    const sizes = fc.record({
      factor: fc.integer({ min: 1, max: 3 }),
      c: fc.integer({ min: 1, max: 3 }),
      h: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(sizes, ({ factor, c, h }) => {
        scope(() => {
          const x = arange(2 * c * h * factor * h * factor).view(2, c, h * factor, h * factor);
          const packed = F.pixelUnshuffle(x, factor);
          expect(packed.shape).toEqual([2, c * factor ** 2, h, h]);
          expect(F.pixelShuffle(packed, factor).toList()).toEqual(x.toList());
        });
      }),
      { numRuns: 30 },
    );
  });

  test("resizing by an integer: area averages, nearest repeats, constants stay constant", () => {
    scope(() => {
      const x = randn([1, 2, 6, 6], double);
      close(F.interpolate(x, { size: 3, mode: "area" }), F.avgPool2d(x, 2));
      close(F.interpolate(x, { scaleFactor: 0.5, mode: "area" }), F.avgPool2d(x, 2));
      close(F.interpolate(x, { scaleFactor: 3 }), x.repeatInterleave(3, 2).repeatInterleave(3, 3));
      close(F.interpolate(x, { size: 12, mode: "nearest-exact" }), x.repeatInterleave(2, 2).repeatInterleave(2, 3));
      for (const mode of ["bilinear", "bicubic"] as const) {
        for (const antialias of [false, true]) {
          close(
            F.interpolate(full([1, 1, 5, 5], 0.3, double), { size: [3, 8], mode, antialias }),
            full([1, 1, 3, 8], 0.3, double),
          );
        }
      }
    });
  });

  test("wrong options are named", () => {
    scope(() => {
      const x = ones([1, 1, 4, 4]);
      expect(() => F.interpolate(x, {})).toThrow(/exactly one of size and scaleFactor/);
      expect(() => F.interpolate(x, { size: 2, scaleFactor: 2 })).toThrow(/exactly one/);
      expect(() => F.interpolate(x, { size: 2, antialias: true })).toThrow(/antialias/);
      expect(() => F.interpolate(x, { size: 2, alignCorners: true })).toThrow(/alignCorners works with bilinear/);
      expect(() => F.interpolate(ones([4, 4]), { size: 2 })).toThrow(/\(B, C, H, W\), got shape \[4,4\]/);
      expect(() => F.dropout(x, 2)).toThrow(TorchError);
    });
  });
});

describe("losses", () => {
  test("crossEntropy ignores an index and takes probabilities", () => {
    scope(() => {
      const logits = randn([3, 4], double);
      const rows = logits.logSoftmax(1);
      const target = tensor([1n, -100n, 3n]);
      const want = rows.index(0, 1).add(rows.index(2, 3)).div(-2);
      close(F.crossEntropy(logits, target), want);
      const p = randn([3, 4], double).softmax(1);
      close(F.crossEntropy(logits, p, { reduction: "none" }), rows.mul(p).sum(1).neg());
    });
  });
});

describe("fusedRmsNorm", () => {
  /** Values and gradients of a residual block around a norm, as bytes. */
  const blockWith = (norm: (x: Tensor, weight: Tensor) => Tensor, shape: number[]): string[] =>
    scope(() => {
      manualSeed(3);
      const width = shape.at(-1)!;
      const x = randn(shape).requiresGrad_();
      const weight = randn([width]).requiresGrad_();
      const mix = randn([width, width]);
      const h = x.mul(1.5); // not a leaf: gradients of three branches meet here
      const y = h.add(norm(h, weight).matmul(mix)).add(h.sin());
      y.square().sum().backward();
      return [y, x.grad!, weight.grad!].map((t) =>
        Buffer.from((t.detach().data() as Float32Array).buffer).toString("hex"),
      );
    });

  test.each([[[2, 5, 7]], [[3, 64]], [[1, 1, 1]], [[4, 33, 130]]])(
    "of %j gives values and gradients of the operators one by one, to the bit",
    (shape) => {
      const fused = blockWith((x, weight) => F.fusedRmsNorm(x, weight, 1e-6), shape);
      expect(fused).toEqual(blockWith((x, weight) => F.rmsNorm(x, [shape.at(-1)!], null, 1e-6).mul(weight), shape));
    },
  );

  test("takes what is not contiguous, other dtypes and no gradients; refuses a weight that does not fit", () => {
    scope(() => {
      manualSeed(4);
      const x = randn([6, 5]).transpose(0, 1);
      const weight = randn([6]);
      const formula = (t: Tensor) => t.div(t.square().mean([-1], true).add(1e-6).sqrt()).mul(weight);
      close(F.fusedRmsNorm(x, weight, 1e-6), formula(x), 1e-5);
      close(F.fusedRmsNorm(x.to("bfloat16"), weight, 1e-6), formula(x.to("bfloat16").float()), 2e-2);
      close(F.fusedRmsNorm(x.double(), weight.double(), 1e-6), formula(x.double()), 1e-5);
      expect(() => F.fusedRmsNorm(x, randn([5]), 1e-6)).toThrow(/a weight for each value of the last dimension/);
    });
  });
});

describe("norms on the CPU without gradients", () => {
  /** The same on one thread and on three, with which nothing may change. */
  const onAnyThreads = (norm: () => Tensor): Tensor => {
    const threads = getNumThreads();
    try {
      const [one, three] = [1, 3].map((count) => {
        setNumThreads(count);
        return norm();
      }) as [Tensor, Tensor];
      expect(three.eq(one).all().item()).toBe(1);
      return one;
    } finally {
      setNumThreads(threads);
    }
  };
  const most = (t: Tensor): number => t.abs().max().item();

  test.each([1, 7, 16, 32, 50, 1024])("in bfloat16 of width %i round the quotient, then its product", (width) => {
    scope(() => {
      manualSeed(21);
      const x = randn([900, width]).mul(3).to("bfloat16");
      const weight = randn([width]).to("bfloat16");
      const quotient = x.double().div(x.double().square().mean([-1], true).add(1e-6).sqrt());
      const expected = quotient.to("bfloat16").mul(weight);
      const y = onAnyThreads(() => F.fusedRmsNorm(x, weight, 1e-6));
      expect([y.dtype, y.shape]).toEqual(["bfloat16", x.shape]);
      const inColumns = x.t().contiguous().t();
      expect(F.fusedRmsNorm(inColumns, weight, 1e-6).eq(y).all().item()).toBe(1);
      // A quotient may lie so near to the middle of two that float32 rounds it to the other.
      const off = y.float().sub(expected.float()).abs().div(expected.float().abs().add(1e-3));
      expect(most(off)).toBeLessThan(2 ** -6);
      expect(off.gt(0).float().mean().item()).toBeLessThan(1e-3);
    });
  });

  test.each(["float32", "bfloat16"] as const)("of rows in %s that lie in any way are layer norm's", (dtype) => {
    scope(() => {
      manualSeed(22);
      const layouts = {
        "one of three side by side": randn([2, 80, 3, 16, 32]).to(dtype).unbind(2)[1]!,
        "side by side": randn([3, 50, 64]).add(5).to(dtype),
        "every second": randn([80, 2, 33]).to(dtype).select(1, 0),
        "in no order": randn([7, 5, 6, 20]).to(dtype).permute(2, 0, 1, 3),
        "with gaps": randn([20, 64]).to(dtype).t(),
        repeated: randn([1, 24]).to(dtype).expand(30, -1),
        "of one value": randn([9, 1]).to(dtype),
        "a single one": randn([300]).to(dtype),
      };
      for (const [layout, x] of Object.entries(layouts)) {
        const width = x.shape.at(-1)!;
        const [weight, bias] = [randn([width]).to(dtype), randn([width]).to(dtype)];
        const y = onAnyThreads(() => F.fusedLayerNorm(x, weight, bias, 1e-6));
        expect([y.dtype, y.shape, y.isContiguous], layout).toEqual([dtype, x.shape, true]);
        const expected = F.layerNorm(x.double(), [width], weight.double(), bias.double(), 1e-6);
        const off = most(y.double().sub(expected).div(expected.abs().add(1)));
        expect(off, layout).toBeLessThan(dtype === "float32" ? 2e-6 : 2 ** -8);
      }
      const none = F.fusedLayerNorm(zeros([0, 4]), ones([4]), zeros([4]), 1e-6);
      expect(none.shape).toEqual([0, 4]);
      const unknown = F.fusedLayerNorm(tensor([[1, Number.NaN]]).to(dtype), ones([2]), zeros([2]), 1e-6);
      expect(unknown.isnan().all().item()).toBe(1);
    });
  });
});

/** The values of tensors as bytes. */
const bytesOf = (...tensors: Tensor[]): string[] =>
  tensors.map((t) => Buffer.from((t.detach().float().data() as Float32Array).buffer).toString("hex"));

test("values that a tensor only promises are taken as they are: negated, zero without memory", () => {
  scope(() => {
    const x = tensor([
      [1, -2],
      [3, 4],
    ]);
    const [weight, bias] = [tensor([2, -3]), tensor([0.5, 1])];
    const heads = (t: Tensor): Tensor => t.view(1, 2, 1, 2);
    for (const promised of [aten._neg_view(x), aten._efficientzerotensor([2, 2], "float32")]) {
      const written = tensor(promised.toList() as number[][]);
      const row = written.select(0, 0);
      const promisedRow = promised.select(0, 0);
      const pairs: [Tensor, Tensor][] = [
        [F.fusedRmsNorm(promised, weight, 1e-6), F.fusedRmsNorm(written, weight, 1e-6)],
        [F.fusedRmsNorm(x, promisedRow, 1e-6), F.fusedRmsNorm(x, row, 1e-6)],
        [F.fusedLayerNorm(promised, weight, bias, 1e-6), F.fusedLayerNorm(written, weight, bias, 1e-6)],
        [F.fusedLayerNorm(x, promisedRow, promisedRow, 1e-6), F.fusedLayerNorm(x, row, row, 1e-6)],
        [F.swiGlu(promised), F.swiGlu(written)],
        [
          F.multiHeadAttention(heads(promised), heads(x), heads(x)),
          F.multiHeadAttention(heads(written), heads(x), heads(x)),
        ],
        [
          F.multiHeadAttention(heads(x), heads(promised), heads(promised), promised),
          F.multiHeadAttention(heads(x), heads(written), heads(written), written),
        ],
        [F.toBytes(promised, 127).bytes, F.toBytes(written, 127).bytes],
        [F.scaleRows_(x.clone(), weight, null, promised), F.scaleRows_(x.clone(), weight, null, written)],
        [F.scaleRows_(x.clone(), promisedRow), F.scaleRows_(x.clone(), row)],
        [F.gateRows_(x.clone(), promised, weight), F.gateRows_(x.clone(), written, weight)],
      ];
      for (const [got, want] of pairs) expect(flat(got)).toEqual(flat(want));
    }
    expect(() => F.scaleRows_(aten._neg_view(x), weight)).toThrow(/expected rows of products/);
    // A gradient, too.
    const [one, other] = [x.clone().requiresGrad_(), x.clone().requiresGrad_()];
    F.fusedRmsNorm(one, weight, 1e-6).backward(aten._neg_view(x));
    F.fusedRmsNorm(other, weight, 1e-6).backward(x.neg());
    expect(flat(one.grad!)).toEqual(flat(other.grad!));
  });
});

describe("linear", () => {
  const PRECISIONS = ["float32", "bfloat16 by autocast", "float64"] as const;
  const LAYERS = [
    { shape: [5, 7], bias: true },
    { shape: [2, 5, 7], bias: true },
    { shape: [2, 5, 7], bias: false },
    { shape: [2, 3, 4, 7], bias: true },
    { shape: [1, 1, 7], bias: true },
  ];

  test.each(LAYERS.flatMap((layer) => PRECISIONS.map((precision) => ({ ...layer, precision }))))(
    "of $shape, bias $bias, in $precision gives values and gradients of ATen's operators, to the bit",
    ({ shape, bias, precision }) => {
      const dtype = precision === "float64" ? precision : "float32";
      const run = (layer: (x: Tensor, weight: Tensor, bias: Tensor | null) => Tensor) =>
        scope(() => {
          manualSeed(5);
          const x = randn(shape, { dtype }).requiresGrad_();
          const weight = randn([3, 7], { dtype }).requiresGrad_();
          const offset = bias ? randn([3], { dtype }).requiresGrad_() : null;
          const mix = randn([3], { dtype });
          const body = () => layer(x.mul(1.5), weight, offset).mul(mix);
          const inHalf = { device: "cpu", dtype: "bfloat16" } as const;
          const y = precision === "bfloat16 by autocast" ? autocast(inHalf, body) : body();
          y.float().square().sum().backward();
          return bytesOf(y, x.grad!, weight.grad!, ...(offset === null ? [] : [offset.grad!]));
        });
      expect(run(F.linear)).toEqual(run((x, weight, offset) => aten.linear(x, weight, offset)));
    },
  );

  test("takes what is not contiguous and what needs no gradient, and has a derivative of its derivative", () => {
    scope(() => {
      manualSeed(6);
      const weight = randn([3, 7], double).requiresGrad_();
      const x = randn([7, 2, 5], double).transpose(0, 2);
      const y = F.linear(x, weight);
      close(y, x.matmul(weight.t()));
      const [first] = grad([y.square().sum()], [weight], { createGraph: true }) as [Tensor];
      const [second] = grad([first.square().sum()], [weight]) as [Tensor];
      const gram = x.reshape(-1, 7).t().matmul(x.reshape(-1, 7));
      close(second, weight.matmul(gram).matmul(gram).mul(8), 1e-9);
      expect(noGrad(() => F.linear(x, weight)).requiresGrad).toBe(false);
      const there = { device: "meta" } as const;
      expect(F.linear(randn([2, 7], there).requiresGrad_(), randn([3, 7], there)).shape).toEqual([2, 3]);
    });
  });
});

describe("swiGlu", () => {
  test.each([[[5, 8]], [[2, 3, 66]], [[4, 2]]])(
    "of %j gives values and gradients of three operators, to the bit",
    (shape) => {
      const run = (gate: (x: Tensor) => Tensor) =>
        scope(() => {
          manualSeed(7);
          const x = randn(shape).requiresGrad_();
          const y = gate(x.mul(2));
          y.square().sum().backward();
          return bytesOf(
            y,
            noGrad(() => gate(x)),
            x.grad!,
          );
        });
      const three = (x: Tensor) => {
        const [value, gate] = x.chunk(2, -1) as [Tensor, Tensor];
        return F.silu(gate).mul(value);
      };
      expect(run(F.swiGlu)).toEqual(run(three));
    },
  );

  test("refuses an odd width", () => {
    expect(() => scope(() => F.swiGlu(randn([2, 3])))).toThrow(
      /an even number of values in the last dimension, got Float\[2, 3\]/,
    );
  });
});

describe("multiHeadAttention", () => {
  const [B, Q, S, H, E] = [2, 5, 33, 3, 8];
  const MASKS: Record<string, () => Tensor | null> = {
    none: () => null,
    boolean: () => arange(S).lt(20).view([1, 1, 1, S]).expand([B, 1, 1, S]),
    additive: () => randn([B, 1, Q, S]),
  };
  const PRECISIONS = ["float32", "bfloat16 by autocast"] as const;

  test.each(Object.keys(MASKS).flatMap((mask) => PRECISIONS.map((precision) => ({ mask, precision }))))(
    "with the mask $mask in $precision gives values and gradients of ATen's operators, to the bit",
    ({ mask: name, precision }) => {
      const run = (attend: (q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null) => Tensor) =>
        scope(() => {
          manualSeed(8);
          const [q, k, v] = [Q, S, S].map((n) => randn([B, n, H, E]).requiresGrad_()) as [Tensor, Tensor, Tensor];
          const mask = MASKS[name]!();
          const mix = randn([H * E]);
          const inHalf = { device: "cpu", dtype: "bfloat16" } as const;
          const body = () => attend(q.mul(2), k, v, mask).mul(mix);
          const y = precision === "float32" ? body() : autocast(inHalf, body);
          y.float().square().sum().backward();
          return bytesOf(
            y,
            noGrad(() => attend(q, k, v, mask)),
            q.grad!,
            k.grad!,
            v.grad!,
          );
        });
      const operators = (q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null) => {
        const [qs, ks, vs] = [q, k, v].map((t) => t.transpose(1, 2)) as [Tensor, Tensor, Tensor];
        return F.scaledDotProductAttention(qs, ks, vs, { mask }).transpose(1, 2).flatten(2);
      };
      expect(run(F.multiHeadAttention)).toEqual(run(operators));
    },
  );

  test("follows a mask with gradients, and names what does not fit", () => {
    scope(() => {
      manualSeed(9);
      const [q, k, v] = [Q, S, S].map((n) => randn([B, n, H, E])) as [Tensor, Tensor, Tensor];
      const mask = randn([B, 1, Q, S]).requiresGrad_();
      F.multiHeadAttention(q.requiresGrad_(), k, v, mask).sum().backward();
      expect(mask.grad?.shape).toEqual([B, 1, Q, S]);
      expect(() => F.multiHeadAttention(q, k, randn([B, S + 1, H, E]))).toThrow(
        /^multiHeadAttention: expected \(B, Q, H, E\), .* got Float\[2, 5, 3, 8\]/,
      );
    });
  });

  test("a result that was changed since is not taken for the one that its gradients need", () => {
    scope(() => {
      const [q, k, v] = [Q, S, S].map((n) => randn([B, n, H, E]).requiresGrad_()) as [Tensor, Tensor, Tensor];
      const y = F.multiHeadAttention(q, k, v);
      y.add_(1);
      expect(() => y.sum().backward()).toThrow(/modified by an inplace operation/);
    });
  });
});

describe("toBytes", () => {
  test("puts each row's largest magnitude on the outermost level and rounds the others to the nearest", () => {
    const { bytes, steps } = F.toBytes(
      tensor([
        [-2, 0, 0.51],
        [1, 0.009, -0.0051],
      ]),
      100,
    );
    expect([bytes.dtype, bytes.toList()]).toEqual([
      "uint8",
      [
        [1, 101, 127],
        [201, 102, 100],
      ],
    ]);
    expect(steps.shape).toEqual([2]);
    expect(steps.mul(100).toList()).toEqual([2, 1]);
  });

  test.each(["float32", "bfloat16"] as const)("of %s is within half a step of every value, on any threads", (dtype) => {
    scope(() => {
      manualSeed(5);
      const x = randn([3, 70, 503])
        .mul(randn([3, 70, 1]).exp())
        .to(dtype)
        .transpose(0, 1);
      const threads = getNumThreads();
      const [one, two] = [1, 2].map((count) => {
        setNumThreads(count);
        return F.toBytes(x, 127);
      });
      setNumThreads(threads);
      expect(two!.bytes.eq(one!.bytes).all().item()).toBe(1);
      const { bytes, steps } = one!;
      expect([bytes.shape, steps.shape]).toEqual([x.shape, [70, 3]]);
      const each = steps.unsqueeze(-1);
      const off = bytes.float().sub(128).mul(each).sub(x.float()).abs().div(each).max().item();
      expect(off).toBeLessThanOrEqual(0.5001);
      expect(bytes.min().item()).toBe(1);
      expect(bytes.max().item()).toBe(255);
    });
  });

  test("zeros stay zeros, what is not a number shows in its row's step; other inputs are refused", () => {
    const { bytes } = F.toBytes(zeros([4]), 63);
    expect(bytes.toList()).toEqual([64, 64, 64, 64]);
    for (const shape of [
      [0, 4],
      [4, 0],
    ]) {
      const { bytes, steps } = F.toBytes(zeros(shape), 50, 1);
      expect([bytes.shape, steps.mul(50).toList()]).toEqual([shape, shape[0] === 0 ? [] : [1, 1, 1, 1]]);
    }
    const none = tensor([
      [1, Number.NaN, 2],
      [1, 3, 2],
    ]);
    expect(F.toBytes(none, 60).steps.isnan().toList()).toEqual([true, false]);
    expect(() => F.toBytes(tensor([1], double), 63)).toThrow(/float32 or bfloat16 on the CPU, got Double/);
    expect(() => F.toBytes(tensor(1), 63)).toThrow(/expected rows/);
    expect(() => F.toBytes(zeros([4]), 128)).toThrow(/levels must be from 1 to 127/);
  });
});

describe("rows of products", () => {
  const close = (a: Tensor, b: Tensor, most: number) =>
    expect(a.float().sub(b.float()).abs().div(b.float().abs().add(1)).max().item()).toBeLessThan(most);
  const BOUND = { float32: 2e-6, bfloat16: 4e-3 };

  test.each(["float32", "bfloat16"] as const)("of %s are scaled and added to as by operators of their own", (dtype) => {
    scope(() => {
      manualSeed(8);
      const bias = randn([301]);
      const more = randn([5, 7, 301]);
      for (const [b, m] of [
        [null, null],
        [bias, null],
        [null, more],
        [bias, more.to("bfloat16")],
      ] as const) {
        const y = randn([5, 7, 301]).to(dtype);
        const steps = randn([5, 7]);
        const expected = y
          .mul(steps.unsqueeze(-1))
          .add(b ?? 0)
          .add(m ?? 0);
        expect(F.scaleRows_(y, steps, b, m)).toBe(y);
        expect(y.dtype).toBe(dtype);
        close(y, expected, BOUND[dtype]);
      }
    });
  });

  test.each(["float32", "bfloat16"] as const)("of %s are gated as by SiLU and a product", (dtype) => {
    scope(() => {
      manualSeed(9);
      const gate = randn([6, 2000]).mul(40).to(dtype);
      for (const bias of [null, randn([2000])]) {
        const y = randn([6, 2000]).to(dtype);
        const steps = randn([6]);
        const scaled = (t: Tensor) => t.mul(steps.unsqueeze(-1)).add(bias ?? 0);
        const expected = scaled(y).mul(F.silu(scaled(gate)));
        expect(F.gateRows_(y, gate, steps, bias, bias)).toBe(y);
        close(y, expected, BOUND[dtype]);
      }
      const ends = tensor([[-1e30, -1e4, -88, 88, 1e4, Number.NaN]]);
      const zero = expect.closeTo(0, 7);
      expect(F.gateRows_(ones([1, 6]), ends, tensor([1])).toList()).toEqual([[zero, zero, zero, 88, 1e4, Number.NaN]]);
    });
  });

  test("round to bfloat16 as a cast does", () => {
    scope(() => {
      manualSeed(10);
      const more = cat([randn([4000]), tensor([1 + 1 / 256, 1 + 3 / 256, Number.NaN, -0, 3.4e38])]).unsqueeze(0);
      const y = F.scaleRows_(zeros([1, 4005], { dtype: "bfloat16" }), tensor([1]), null, more);
      const known = (t: Tensor) => t.float().nanToNum(7);
      expect(
        known(y)
          .eq(known(more.to("bfloat16")))
          .all()
          .item(),
      ).toBe(1);
    });
  });

  test("that do not fit are refused", () => {
    const [y, steps] = [zeros([2, 3]), zeros([2])];
    expect(() => F.scaleRows_(y, zeros([3]))).toThrow(/a float32 step for each row/);
    expect(() => F.scaleRows_(y.to("float16"), steps)).toThrow(/expected float32 or bfloat16 on the CPU, got Half/);
    expect(() => F.scaleRows_(y, steps, zeros([2]))).toThrow(/bias for each column/);
    expect(() => F.scaleRows_(y, steps, null, zeros([3]))).toThrow(/scaleRows_: expected/);
    expect(() => F.scaleRows_(tensor(1), tensor(1))).toThrow(/rows of products/);
    expect(() => F.gateRows_(y, zeros([2, 4]), steps)).toThrow(/a gate for each product/);
    expect(() => F.gateRows_(y.t(), y.t(), zeros([3]))).toThrow(/contiguous/);
  });
});
