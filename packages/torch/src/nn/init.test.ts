import { describe, expect, test } from "vitest";
import { empty, Generator, manualSeed, nn, scope, type Tensor, TorchError, zeros } from "../index.js";
import { flat, reference, relativeError } from "../testing/reference.js";

const { init } = nn;

describe("draws equal PyTorch's from the same seed", () => {
  test("functions, one after another from one stream", () => {
    scope(() => {
      manualSeed(11);
      const drawn: Record<string, Tensor> = {
        uniform: init.uniform_(empty([5]), -1, 2),
        normal: init.normal_(empty([5]), 0.5, 0.02),
        truncNormal: init.truncNormal_(empty([24]), { std: 0.02 }),
        truncNormalTight: init.truncNormal_(empty([24]), { mean: 0.1, std: 1, a: -1, b: 1.2 }),
        truncNormalTail: init.truncNormal_(empty([24]), { mean: 0, std: 1, a: 1, b: 2 }),
        xavierUniform: init.xavierUniform_(empty([3, 4]), { gain: 1.5 }),
        xavierNormal: init.xavierNormal_(empty([3, 4, 2])),
        kaimingUniform: init.kaimingUniform_(empty([3, 4])),
        kaimingNormal: init.kaimingNormal_(empty([3, 4]), { a: 0.2, mode: "fanOut" }),
      };
      for (const [name, values] of Object.entries(reference.init.functions)) {
        expect(relativeError(flat(drawn[name]!), values), name).toBeLessThan(1e-6);
      }
    });
  });

  test("default initialisation of the layers", () => {
    scope(() => {
      manualSeed(12);
      const layers: Record<string, nn.Module> = {
        linear: new nn.Linear(4, 3),
        embedding: new nn.Embedding(5, 2),
        conv: new nn.Conv2d(4, 6, [3, 2], { groups: 2 }),
        convTranspose: new nn.ConvTranspose2d(4, 6, 2, { groups: 2 }),
        layerNorm: new nn.LayerNorm(3),
        linear2: new nn.Linear(5, 2, { bias: false }),
      };
      for (const [name, tensors] of Object.entries(reference.init.layers)) {
        const state = layers[name]!.stateDict();
        expect([...state.keys()]).toEqual(Object.keys(tensors));
        for (const [key, values] of Object.entries(tensors)) {
          expect(relativeError(flat(state.get(key)!), values), `${name}.${key}`).toBeLessThan(1e-6);
        }
        layers[name]!.dispose();
      }
    });
  });
});

test("what has no elements draws nothing, as in PyTorch", () => {
  scope(() => {
    expect(nn.init.kaimingNormal_(zeros([2, 0])).shape).toEqual([2, 0]);
    const map = new nn.Linear(0, 2);
    expect(
      map
        .forward(zeros([3, 0]))
        .eq(0)
        .all()
        .item(),
    ).toBe(1);
    map.dispose();
  });
});

test("a generator of its own leaves the global stream alone", () => {
  scope(() => {
    manualSeed(5);
    const want = flat(init.uniform_(empty([3])));
    manualSeed(5);
    init.truncNormal_(empty([100]), { generator: new Generator().manualSeed(1) });
    expect(flat(init.uniform_(empty([3])))).toEqual(want);
  });
});

test("truncated draws stay within their bounds and fill them", () => {
  scope(() => {
    manualSeed(0);
    for (const [a, b] of [
      [-2, 2],
      [-0.1, 0.1],
      [0, 0.8],
      [1.5, 4],
    ] as const) {
      const x = init.truncNormal_(empty([20_000]), { a, b });
      expect(x.amin().item()).toBeGreaterThanOrEqual(Math.fround(a));
      expect(x.amax().item()).toBeLessThanOrEqual(Math.fround(b));
      expect(x.amin().item()).toBeLessThan(a + 0.02 * (b - a));
      // The mean of a truncated standard normal is (φ(a) − φ(b)) / (Φ(b) − Φ(a)); no σ is above half of the range.
      const density = (v: number): number => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI);
      const mass = integral(density, a, b);
      expect(Math.abs(x.mean().item() - (density(a) - density(b)) / mass)).toBeLessThan(
        (2.5 * (b - a)) / Math.sqrt(20_000),
      );
    }
  });
});

function integral(f: (x: number) => number, a: number, b: number, n = 2000): number {
  const h = (b - a) / n;
  return Array.from({ length: n }, (_, i) => f(a + (i + 0.5) * h) * h).reduce((sum, value) => sum + value, 0);
}

test("initialising records no graph and takes parameters", () => {
  scope(() => {
    const p = zeros([2, 2]).requiresGrad_();
    init.xavierUniform_(p);
    init.ones_(p);
    expect(p.isLeaf).toBe(true);
    expect(flat(p)).toEqual([1, 1, 1, 1]);
  });
});

test("wrong use is named", () => {
  scope(() => {
    for (const [wrong, names] of [
      [{ mode: "fan_out" }, /^mode must be one of fanIn, fanOut, got fan_out/],
      [{ nonlinearity: "leaky_relu" }, /^nonlinearity must be one of leakyRelu, relu, linear, got leaky_relu/],
    ] as const)
      expect(() => init.kaimingNormal_(zeros([3, 3]), wrong as never)).toThrow(names);
    expect(() => init.xavierUniform_(zeros([3]))).toThrow(/at least 2 dimensions, got shape \[3\]/);
    expect(() => init.truncNormal_(zeros([3]), { a: 1, b: 1 })).toThrow(TorchError);
  });
});
