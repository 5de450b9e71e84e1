import { describe, expect, test } from "vitest";
import {
  autocast,
  backward,
  enableGrad,
  F,
  grad,
  inferenceMode,
  isGradEnabled,
  nn,
  noGrad,
  ones,
  randn,
  scope,
  type Tensor,
  TorchError,
  tensor,
} from "./index.js";
import { clipGradNorm_ } from "./optim/index.js";

const leaf = (values: number | number[]): Tensor => tensor(values, { dtype: "float64", requiresGrad: true });

test("one tensor is as good as a list of one", () => {
  scope(() => {
    const x = tensor([3, 4], { requiresGrad: true });
    expect(grad(x.square().sum(), x).map((g) => g!.toList())).toEqual([[6, 8]]);
    backward(x.square().sum());
    expect(x.grad!.toList()).toEqual([6, 8]);
    expect(clipGradNorm_(x, 1).item()).toBe(10);
    expect(grad(x.square(), x, { gradOutputs: tensor([1, 2]) }).map((g) => g!.toList())).toEqual([[6, 16]]);
    x.grad = null;
    backward(x.square(), tensor([1, 2]));
    expect(x.grad!.toList()).toEqual([6, 16]);
  });
});

describe("backward", () => {
  test("accumulates into leaves until they are cleared", () => {
    scope(() => {
      const x = leaf([1, 2]);
      x.square().sum().backward();
      x.square().sum().backward();
      expect(x.grad!.toList()).toEqual([4, 8]);
      x.grad = null;
      expect(x.grad).toBe(null);
      backward([x.mul(3)], [tensor([1, 10], { dtype: "float64" })]);
      expect(x.grad!.toList()).toEqual([3, 30]);
    });
  });

  test("a graph is used up unless it is retained", () => {
    scope(() => {
      const x = leaf([2]);
      const y = x.square().sum();
      y.backward(undefined, { retainGraph: true });
      y.backward();
      expect(x.grad!.toList()).toEqual([8]);
      expect(() => y.backward()).toThrow(TorchError);
    });
  });

  test("what cannot be done is told by what was called", () => {
    scope(() => {
      const w = leaf([1, 2]);
      expect(() => tensor([1, 2]).sum().backward()).toThrow(/^backward: .* does not require grad/);
      expect(() => backward(w.mul(2))).toThrow(/^backward: .* scalar outputs/);
      expect(() => grad(w.sum(), leaf(1))).toThrow(/^grad: .* not have been used/);
      expect(() => tensor([1n]).requiresGrad_()).toThrow(/^requiresGrad: .* floating point/);
      const computed = w.mul(2);
      const freezings = [
        () => computed.requiresGrad_(false),
        () => {
          computed.requiresGrad = false;
        },
      ];
      for (const freeze of freezings) expect(freeze).toThrow(/^requiresGrad: .* detach\(\)/);
      expect([computed.requiresGrad, computed.requiresGrad_().isLeaf]).toEqual([true, false]);
      expect(computed.detach().requiresGrad_(false).requiresGrad).toBe(false);
    });
  });

  test("a tensor that needs no gradient, and a gradient of a vector, are errors", () => {
    scope(() => {
      expect(() => tensor([1]).sum().backward()).toThrow(/does not require grad/);
      expect(() => leaf([1, 2]).mul(2).backward()).toThrow(TorchError);
      expect(() => tensor([1n]).requiresGrad_()).toThrow(TorchError);
    });
  });

  test("gradients live on after the scope of the step", () => {
    const x = leaf([3]).keep();
    scope(() => x.square().sum().backward());
    expect(scope(() => x.grad!.toList())).toEqual([6]);
    x.dispose();
  });
});

describe("grad", () => {
  test("gives derivatives of higher order without touching leaves", () => {
    scope(() => {
      const x = leaf([2]);
      const [first] = grad([x.pow(4).sum()], [x], { createGraph: true });
      const [second] = grad([first!.sum()], [x], { createGraph: true });
      const [third] = grad([second!.sum()], [x]);
      expect([first!.item(), second!.item(), third!.item()]).toEqual([32, 48, 48]);
      expect(x.grad).toBe(null);
    });
  });

  test("unused inputs are errors or null", () => {
    scope(() => {
      const [x, y] = [leaf([1]), leaf([1])];
      expect(() => grad([x.sum()], [x, y])).toThrow(TorchError);
      expect(grad([x.sum()], [x, y], { allowUnused: true })[1]).toBe(null);
    });
  });
});

describe("modes", () => {
  test("nest and end with an exception", () => {
    expect(isGradEnabled()).toBe(true);
    expect(() =>
      noGrad(() => {
        throw new RangeError();
      }),
    ).toThrow(RangeError);
    expect(isGradEnabled()).toBe(true);
    scope(() => {
      const x = leaf([1]);
      expect(noGrad(() => x.mul(2).requiresGrad)).toBe(false);
      expect(noGrad(() => enableGrad(() => x.mul(2).requiresGrad))).toBe(true);
      expect(x.detach().mul(2).requiresGrad).toBe(false);
    });
  });

  test("inference tensors cannot join a graph", () => {
    scope(() => {
      const y = inferenceMode(() => ones([2]).mul(2));
      expect(() => leaf([1, 2]).mul(y).sum()).toThrow(/[Ii]nference/);
    });
  });

  test("a promise is refused", () => {
    expect(() => noGrad(async () => 1)).toThrow(/synchronous/);
    expect(isGradEnabled()).toBe(true);
  });
});

describe("autocast", () => {
  test("multiplies in bfloat16 and keeps what needs range in float32", () => {
    scope(() => {
      const [a, b] = [randn([8, 16]), randn([16, 8])];
      autocast({ device: "cpu", dtype: "bfloat16" }, () => {
        expect(a.matmul(b).dtype).toBe("bfloat16");
        expect(F.mseLoss(a.matmul(b), a.matmul(b)).dtype).toBe("float32");
        autocast({ device: "cpu", dtype: "bfloat16", enabled: false }, () => expect(a.matmul(b).dtype).toBe("float32"));
        expect(a.matmul(b).dtype).toBe("bfloat16");
      });
      expect(a.matmul(b).dtype).toBe("float32");
    });
  });

  test("gradients of float32 weights stay float32", () => {
    const layer = scope(() => new nn.Linear(16, 4));
    scope(() => {
      const x = randn([3, 16]);
      autocast({ device: "cpu", dtype: "bfloat16" }, () => layer.forward(x).float().square().sum()).backward();
      expect(layer.weight.grad!.dtype).toBe("float32");
      const exact = layer.forward(x).square().sum();
      layer.weight.grad = layer.weight.grad!.clone();
      const [want] = grad([exact], [layer.weight]);
      const error = layer.weight.grad!.sub(want!).norm().div(want!.norm()).item();
      expect(error).toBeLessThan(0.02);
    });
    layer.dispose();
  });

  test("ends with an exception", () => {
    expect(() =>
      autocast({ device: "cpu", dtype: "bfloat16" }, () => {
        throw new RangeError();
      }),
    ).toThrow(RangeError);
    expect(scope(() => ones([2, 2]).matmul(ones([2, 2])).dtype)).toBe("float32");
  });
});
