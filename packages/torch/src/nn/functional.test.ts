/**
 * Identities between the functional layers and their formulas; recorded values are compared in ops.conformance.test.ts.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  arange,
  F,
  full,
  getNumThreads,
  manualSeed,
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
      expect(flat(F.normalize(full([2], 0)))).toEqual([0, 0]);
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

describe("toBytes", () => {
  test("puts the largest magnitude on the outermost level and rounds the others to the nearest", () => {
    const { bytes, step } = F.toBytes(
      tensor([
        [-2, 0, 0.51],
        [1, 0.009, -0.009],
      ]),
      100,
    );
    expect([bytes.dtype, bytes.toList()]).toEqual([
      "uint8",
      [
        [1, 101, 127],
        [151, 101, 101],
      ],
    ]);
    expect(step.item()).toBeCloseTo(0.02, 6);
  });

  test.each(["float32", "bfloat16"] as const)("of %s is within half a step of every value, on any threads", (dtype) => {
    scope(() => {
      manualSeed(5);
      const x = randn([3, 7, 5003]).to(dtype).transpose(0, 1);
      const threads = getNumThreads();
      const [one, two] = [1, 2].map((count) => {
        setNumThreads(count);
        return F.toBytes(x, 127);
      });
      setNumThreads(threads);
      expect(two!.bytes.eq(one!.bytes).all().item()).toBe(1);
      const { bytes, step } = one!;
      expect(bytes.shape).toEqual(x.shape);
      const off = bytes.float().sub(128).mul(step).sub(x.float()).abs().max().item();
      expect(off).toBeLessThanOrEqual(0.5001 * step.item());
      expect(bytes.min().item()).toBeGreaterThanOrEqual(1);
    });
  });

  test("zeros stay zeros, what is not a number shows in the step; other inputs are refused", () => {
    const { bytes } = F.toBytes(zeros([4]), 63);
    expect(bytes.toList()).toEqual([64, 64, 64, 64]);
    expect(F.toBytes(zeros([0, 4]), 63).bytes.shape).toEqual([0, 4]);
    expect(F.toBytes(tensor([1, Number.NaN, 2]), 63).step.item()).toBeNaN();
    expect(() => F.toBytes(tensor([1], double), 63)).toThrow(/float32 or bfloat16 on the CPU, got Double/);
    expect(() => F.toBytes(zeros([4]), 128)).toThrow(/levels must be from 1 to 127/);
  });
});
