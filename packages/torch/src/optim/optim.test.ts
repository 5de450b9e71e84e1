import { afterEach, describe, expect, test } from "vitest";
import {
  aten,
  fullLike,
  getNumThreads,
  linspace,
  noGrad,
  ones,
  scope,
  setNumThreads,
  type Tensor,
  TorchError,
  tensor,
  zeros,
} from "../index.js";
import { flat, reference, relativeError } from "../testing/reference.js";
import { AdamW, clipGradNorm_, Lamb, type LambOptions, TensorList } from "./index.js";

const kept: { dispose(): void }[] = [];
const own = <T extends { dispose(): void }>(value: T): T => {
  kept.push(value);
  return value;
};
afterEach(() => {
  for (const value of kept.splice(0)) value.dispose();
});
const parameter = (t: Tensor): Tensor => own(t.keep().requiresGrad_());
const twoParameters = (): [Tensor, Tensor] =>
  scope(() => [parameter(linspace(-1, 1, 6).reshape(2, 3)), parameter(linspace(0.5, 2, 4))]);

/** Gradients of Σa² + k·Σb³. */
function backward([a, b]: readonly Tensor[], k: number): void {
  scope(() => a!.square().sum().add(b!.pow(3).sum().mul(k)).backward());
}

describe("AdamW", () => {
  test("follows PyTorch's, with groups and clipping", () => {
    const params = twoParameters();
    const optimizer = own(
      new AdamW(
        [
          { params: [params[0]], weightDecay: 0.1 },
          { params: [params[1]], lr: 0.05 },
        ],
        { lr: 0.01, betas: [0.8, 0.95] },
      ),
    );
    for (const [step, want] of reference.optim.adamw.entries()) {
      optimizer.zeroGrad();
      backward(params, step + 1);
      const norm = scope(() => clipGradNorm_(params, 5).item());
      optimizer.step();
      expect(Math.abs(norm / want.norm - 1)).toBeLessThan(1e-6);
      for (const [i, values] of want.params.entries())
        expect(relativeError(flat(params[i]!), values)).toBeLessThan(1e-6);
    }
  });
});

describe("what is optimised", () => {
  test("an option of a group that is undefined is the optimizer's", () => {
    const [a] = twoParameters();
    const { paramGroups } = own(new AdamW([{ params: [a], lr: undefined }], { lr: 0.5, weightDecay: undefined }));
    expect([paramGroups[0]!.lr, paramGroups[0]!.weightDecay]).toEqual([0.5, 0.01]);
  });

  test("results of other tensors and what is no tensor are refused", () => {
    const [a] = twoParameters();
    scope(() => expect(() => new AdamW([a, a.mul(2)])).toThrow(/parameter 1 was computed from others/));
    expect(() => new AdamW([{ params: [3 as never] }])).toThrow(/parameter 0 is no Tensor/);
    expect(() => new AdamW({} as never)).toThrow(/expected tensors or groups of them, such as model\.parameters\(\)/);
  });

  test.each([AdamW, Lamb])("%o leaves alone what lies between the values of a slice", (Kind) => {
    const around = scope(() => linspace(-1, 1, 60).reshape(5, 12).keep());
    const slice = own(scope(() => own(around).narrow(1, 4, 3).detach().keep()).requiresGrad_());
    const copy = parameter(scope(() => slice.detach().clone()));
    const optimizers = [slice, copy].map((param) => own(new Kind([param], { lr: 0.1, weightDecay: 0.1 })));
    for (let step = 0; step < 3; step++) {
      for (const param of [slice, copy]) scope(() => param.pow(3).sum().backward());
      for (const optimizer of optimizers) optimizer.step();
    }
    expect(relativeError(flat(slice), flat(copy))).toBeLessThan(1e-6);
    const expected = scope(() => {
      const whole = linspace(-1, 1, 60).reshape(5, 12);
      whole.narrow(1, 4, 3).copy_(slice.detach());
      return flat(whole);
    });
    expect(flat(around)).toEqual(expected);
  });

  test.each([AdamW, Lamb])("%o refuses values that share their memory", (Kind) => {
    const param = scope(() => zeros([1]).expand(100_000).detach().keep().requiresGrad_());
    const optimizer = own(new Kind([own(param)]));
    scope(() => param.sum().backward());
    expect(() => optimizer.step()).toThrow(/values of Float\[100000\] share their memory/);
  });

  test.each([AdamW, Lamb])("a graph that needs values from before a step of %o says that they were changed", (Kind) => {
    const params = twoParameters();
    const optimizer = own(new Kind([...params], { weightDecay: 0.1 }));
    backward(params, 1);
    scope(() => {
      const loss = params[0].square().sum();
      optimizer.step();
      expect(() => loss.backward()).toThrow(/modified by an inplace operation/);
    });
  });
});

/** The formula of the variant in float64, one parameter with its state. */
class LambFormula {
  readonly m: number[];
  readonly v: number[];
  k = 0;
  constructor(
    readonly p: number[],
    readonly options: LambOptions,
  ) {
    this.m = p.map(() => 0);
    this.v = p.map(() => 0);
  }
  step(g: number[]): void {
    const { lr, eps, weightDecay, decouple, layerAdaptation } = this.options;
    const [beta1, beta2] = this.options.betas;
    this.k++;
    const r = this.p.map((p, i) => {
      this.m[i] = beta1 * this.m[i]! + (1 - beta1) * g[i]!;
      this.v[i] = beta2 * this.v[i]! + (1 - beta2) * g[i]! ** 2;
      const mHat = this.m[i]! / (1 - beta1 ** this.k);
      const vHat = this.v[i]! / (1 - beta2 ** this.k);
      return mHat / (Math.sqrt(vHat) + eps) + (decouple ? 0 : weightDecay * p);
    });
    const norms = [Math.hypot(...this.p), Math.hypot(...r)] as const;
    const adapts = layerAdaptation ?? weightDecay > 0;
    const ratio = adapts && norms[0] > 0 && norms[1] > 0 ? norms[0] / norms[1] : 1;
    for (const [i, p] of this.p.entries()) {
      this.p[i] = (p - lr * ratio * r[i]!) * (decouple ? 1 - weightDecay : 1);
    }
  }
}

describe("Lamb", () => {
  const base: LambOptions = {
    lr: 0.01,
    betas: [0.9, 0.999],
    eps: 1e-8,
    weightDecay: 0.01,
    decouple: false,
    layerAdaptation: null,
  };
  const variants: [string, Partial<LambOptions>][] = [
    ["coupled decay with adaptation, as trained", {}],
    ["coupled decay without adaptation", { layerAdaptation: false }],
    ["no decay: plain Adam", { weightDecay: 0 }],
    ["no decay, with adaptation", { weightDecay: 0, layerAdaptation: true }],
    ["decoupled decay", { decouple: true }],
    ["decoupled decay without adaptation", { decouple: true, layerAdaptation: false }],
    ["other constants", { lr: 0.2, betas: [0.5, 0.7], eps: 1e-3 }],
  ];
  test.each(variants)("equals the formula: %s", (_, changes) => {
    const options = { ...base, ...changes };
    const params = scope(() => [
      parameter(linspace(-1, 1, 6, { dtype: "float64" }).reshape(2, 3)),
      parameter(linspace(0.5, 2, 4, { dtype: "float64" })),
    ]);
    const formula = params.map((p) => new LambFormula(flat(p), options));
    const optimizer = own(new Lamb(params, options));
    for (let step = 1; step <= 6; step++) {
      optimizer.zeroGrad();
      backward(params, step);
      for (const [i, p] of params.entries()) formula[i]!.step(scope(() => flat(p.grad!)));
      optimizer.step();
      for (const [i, p] of params.entries()) expect(relativeError(flat(p), formula[i]!.p)).toBeLessThan(1e-12);
    }
  });

  test("a tensor without gradient keeps its own count of steps", () => {
    const params = scope(() => twoParameters());
    const formula = new LambFormula(flat(params[1]), base);
    const optimizer = own(new Lamb(params, base));
    for (let step = 1; step <= 4; step++) {
      optimizer.zeroGrad();
      if (step % 2 === 0) backward(params, step);
      else scope(() => params[0].square().sum().backward());
      if (step % 2 === 0) formula.step(scope(() => flat(params[1].grad!)));
      optimizer.step();
    }
    expect(relativeError(flat(params[1]), formula.p)).toBeLessThan(1e-6);
    expect(optimizer.stateDict().tensors["0.step"]!.item()).toBe(4);
    expect(optimizer.stateDict().tensors["1.step"]!.item()).toBe(2);
  });

  test("the trust ratio is 1 where the weights are 0", () => {
    const p = parameter(tensor([0, 0]));
    const optimizer = own(new Lamb([p], base));
    scope(() =>
      p
        .mul(tensor([2, -3]))
        .sum()
        .backward(),
    );
    optimizer.step();
    expect(relativeError(flat(p), [-0.01, 0.01])).toBeLessThan(1e-6);
  });

  test("of large tensors equals the formula, and is the same on any number of threads", () => {
    const count = 100_003;
    const threads = getNumThreads();
    const train = (on: number) => {
      setNumThreads(on);
      const p = scope(() => parameter(linspace(-1, 2, count)));
      const average = scope(() => zeros([count]).keep());
      const optimizer = own(new Lamb([p], { ...base, weightDecay: 0.02, decouple: false }));
      const formula = new LambFormula(flat(p), { ...base, weightDecay: 0.02, decouple: false });
      const norms: number[] = [];
      for (let step = 1; step <= 3; step++) {
        optimizer.zeroGrad();
        scope(() => p.square().mean().mul(step).backward());
        norms.push(scope(() => clipGradNorm_([p], 1e-3).item()));
        formula.step(scope(() => flat(p.grad!)));
        optimizer.step();
        expect(relativeError(flat(p), formula.p)).toBeLessThan(1e-6);
      }
      new TensorList([average]).lerp_(new TensorList([p]), 0.25);
      expect(
        relativeError(
          flat(average),
          formula.p.map((value) => value / 4),
        ),
      ).toBeLessThan(1e-6);
      return { p: flat(p), norms, average: flat(own(average)) };
    };
    try {
      expect(train(2)).toEqual(train(1));
    } finally {
      setNumThreads(threads);
    }
  });

  test("half-precision parameters move", () => {
    const p = scope(() => parameter(linspace(0.5, 2, 4, { dtype: "bfloat16" })));
    const before = flat(p);
    const optimizer = own(new Lamb([p], { ...base, lr: 0.1 }));
    scope(() => p.square().sum().backward());
    optimizer.step();
    expect(flat(p).every((value, i) => value < before[i]!)).toBe(true);
  });
});

describe.each([
  ["AdamW", (params: Tensor[]) => new AdamW(params, { lr: 0.05 })],
  ["Lamb", (params: Tensor[]) => new Lamb(params, { lr: 0.05, weightDecay: 0.01 })],
] as const)("%s", (name, build) => {
  test("resumes exactly from its state", () => {
    const straight = twoParameters();
    const resumed = twoParameters();
    const first = own(build(straight));
    const second = own(build(resumed));
    const run = (params: Tensor[], optimizer: AdamW | Lamb, from: number, to: number): void => {
      for (let step = from; step <= to; step++) {
        optimizer.zeroGrad();
        backward(params, step);
        optimizer.step();
      }
    };
    run(straight, first, 1, 6);
    run(resumed, second, 1, 3);
    const third = own(build(resumed));
    third.loadStateDict(second.stateDict());
    expect(third.stepCount).toBe(3);
    run(resumed, third, 4, 6);
    expect(resumed.map(flat)).toEqual(straight.map(flat));
  });

  test("starts anew after its state was freed", () => {
    const [fresh, again] = [twoParameters(), twoParameters()];
    const [first, second] = [own(build(fresh)), own(build(again))];
    backward(again, 1);
    second.step();
    second.dispose();
    scope(() => noGrad(() => again.forEach((param, i) => void param.copy_(fresh[i]!))));
    for (const [params, optimizer] of [
      [fresh, first],
      [again, second],
    ] as const) {
      for (let step = 2; step <= 3; step++) {
        optimizer.zeroGrad();
        backward(params, step);
        optimizer.step();
      }
    }
    expect(again.map(flat)).toEqual(fresh.map(flat));
    expect(second.stateDict().step).toBe(2);
  });

  test("a skipped step changes nothing, and does not count", () => {
    const [straight, skipping] = [twoParameters(), twoParameters()];
    const [first, second] = [own(build(straight)), own(build(skipping))];
    const [go, skip] = scope(() => [zeros([]).keep(), ones([]).keep()]) as [Tensor, Tensor];
    for (let step = 1; step <= 3; step++) {
      for (const [params, optimizer] of [
        [straight, first],
        [skipping, second],
      ] as const) {
        optimizer.zeroGrad();
        backward(params, step);
        optimizer.step(go);
      }
      // Between two steps, one whose gradients are of no use.
      for (const param of skipping) param.grad = scope(() => fullLike(param, Number.NaN));
      second.step(skip);
      second.skipped();
    }
    const plain = own(build(twoParameters()));
    expect(second.stepCount).toBe(3);
    expect(skipping.map(flat)).toEqual(straight.map(flat));
    const state = (optimizer: AdamW | Lamb) =>
      Object.entries(optimizer.stateDict().tensors).map(([k, t]) => [k, flat(t)]);
    expect(state(second)).toEqual(state(first));
    expect(Object.keys(plain.stateDict().tensors)).toEqual([]);
    for (const t of [go, skip]) t.dispose();
  });

  test("takes gradients whose elements lie in another order than the parameter's", () => {
    const make = () => scope(() => parameter(linspace(-1, 1, 6).reshape(2, 3)));
    const [dense, transposed] = [make(), make()];
    const values = [
      [1, 2, 3],
      [4, 5, 6],
    ];
    dense.grad = tensor(values);
    transposed.grad = scope(() => tensor(values).transpose(0, 1).contiguous().transpose(0, 1));
    expect(transposed.grad!.isContiguous).toBe(false);
    own(build([dense])).step();
    own(build([transposed])).step();
    expect(flat(transposed)).toEqual(flat(dense));
  });

  test("takes gradients whose values are only promised: negated, zero without memory", () => {
    const make = () => scope(() => parameter(linspace(-1, 1, 4)));
    const values = tensor([1, -2, 3, -4]);
    for (const promised of [aten._neg_view(values), aten._efficientzerotensor([4], "float32")]) {
      const [written, other] = [make(), make()];
      written.grad = tensor(promised.toList() as number[]);
      other.grad = promised;
      own(build([written])).step();
      own(build([other])).step();
      expect(flat(other)).toEqual(flat(written));
    }
  });

  test("a gradient or a moment that has got another shape is refused", () => {
    const param = scope(() => parameter(linspace(-1, 1, 4)));
    const optimizer = own(build([param]));
    param.grad = ones([4]);
    optimizer.step();
    aten.resize_(optimizer.stateDict().tensors["0.exp_avg"]!, [2]);
    expect(() => optimizer.step()).toThrow(/Float\[2\] does not fit the parameter Float\[4\]/);
  });

  test("changes to a group count from the next step", () => {
    const params = twoParameters();
    const optimizer = own(build(params));
    optimizer.paramGroups[0]!.lr = 0;
    optimizer.paramGroups[0]!.weightDecay = 0;
    const before = params.map(flat);
    backward(params, 1);
    optimizer.step();
    expect(params.map(flat)).toEqual(before);
  });

  test("a step with an option that became NaN or undefined changes nothing", () => {
    const params = twoParameters();
    const optimizer = own(build(params));
    scope(() => {
      for (const p of params) p.grad = ones(p.shape);
    });
    const before = params.map(flat);
    for (const value of [Number.NaN, undefined]) {
      optimizer.paramGroups[0]!.lr = value as number;
      expect(() => optimizer.step()).toThrow(`${name}: expected lr >= 0, got ${value}`);
    }
    expect([optimizer.stepCount, params.map(flat)]).toEqual([0, before]);
    optimizer.paramGroups[0]!.lr = 0.1;
    optimizer.step();
    expect(optimizer.stepCount).toBe(1);
    expect(params.map(flat)).not.toEqual(before);
  });

  test("refuses options out of range, tensors given twice and states that do not fit", () => {
    const params = twoParameters();
    const Class = { AdamW, Lamb }[name];
    for (const options of [
      { lr: -1 },
      { lr: Number.NaN },
      { eps: -1 },
      { betas: [1, 0.9] as const },
      { betas: [0.9, -0.1] as const },
    ]) {
      expect(() => new Class(params, options)).toThrow(new RegExp(`${name}: expected`));
    }
    for (const options of [{ betas: null }, { lr: "0.1" }])
      expect(() => new Class(params, options as never)).toThrow(new RegExp(`${name}: expected`));
    expect(() => new Class([])).toThrow(/no parameters/);
    expect(() => new Class([params[0], params[0]])).toThrow(/twice/);
    expect(() => new Class([params[0], { params: [params[1]] }])).toThrow(/not both/);
    const optimizer = own(build(params));
    for (const state of [null, {}, { step: 1, tensors: {} }])
      expect(() => optimizer.loadStateDict(state as never)).toThrow(`${name}: expected { step, tensors, groups }`);
    const noTensor = { step: 1, groups: [{}], tensors: { "0.step": 5 } } as never;
    expect(() => optimizer.loadStateDict(noTensor)).toThrow("0.step: expected a Tensor, got 5");
    scope(() => {
      const state = { step: 1, groups: [{}, {}], tensors: { "0.exp_avg": tensor([1]), "9.exp_avg": tensor([1]) } };
      let message = "";
      try {
        optimizer.loadStateDict(state);
      } catch (error) {
        expect(error).toBeInstanceOf(TorchError);
        message = (error as Error).message;
      }
      expect(message).toContain("expected 1 groups, got 2");
      expect(message).toContain("0.exp_avg: expected [2,3], got [1]");
      expect(message).toContain("9.exp_avg: unexpected");
      expect(message).toContain("0: only expAvg given");
    });
  });
});

describe("clipGradNorm_", () => {
  test("scales gradients above the bound only", () => {
    const p = parameter(tensor([3, 4]));
    scope(() => {
      p.square().sum().div(2).backward();
      expect(clipGradNorm_([p], 10).item()).toBe(5);
      expect(flat(p.grad!)).toEqual([3, 4]);
      expect(clipGradNorm_([p], 1).item()).toBe(5);
      expect(relativeError(flat(p.grad!), [0.6, 0.8])).toBeLessThan(1e-6);
    });
  });

  test("a NaN among the gradients makes the norm NaN and leaves the others as they are", () => {
    const [p, q] = [parameter(tensor([3, 4])), parameter(tensor([1]))];
    scope(() => {
      p.grad = tensor([3, 4]);
      q.grad = tensor([Number.NaN]);
      expect(clipGradNorm_([p, q], 1).item()).toBe(Number.NaN);
      expect(flat(p.grad!)).toEqual([3, 4]);
      expect(flat(q.grad!)).toEqual([Number.NaN]);
    });
  });

  test("nothing to clip has norm 0", () => {
    const p = parameter(tensor([1]));
    expect(scope(() => clipGradNorm_([p], 1).item())).toBe(0);
  });
});

describe("TensorList", () => {
  test("moves all tensors at once, and keeps up with one that got another handle", () => {
    const [a, b, c] = scope(() => [tensor([0, 4]).keep(), tensor([[8]]).keep(), tensor([2, 2]).keep()]) as Tensor[];
    const [targets, ends] = [new TensorList([a!, b!]), new TensorList([c!, b!])];
    targets.lerp_(ends, 0.5);
    expect([a!, b!].map(flat)).toEqual([[1, 3], [8]]);
    a!.assign(tensor([10, 20]));
    targets.lerp_(ends, 0.25);
    expect(flat(a!)).toEqual([8, 15.5]);
    for (const t of [a, b, c]) t!.dispose();
  });

  test("gives gradients where there are some, and drops them", () => {
    const [p, q] = [parameter(tensor([3, 4])), parameter(tensor([1]))];
    const list = new TensorList([p, q]);
    scope(() => {
      p.grad = tensor([1, 2]);
      expect(list.gradients().map((t) => t && flat(t))).toEqual([[1, 2], null]);
      list.clearGradients();
      expect(list.gradients()).toEqual([null, null]);
      expect(() => new TensorList([p]).lerp_(list, 1)).toThrow(/moveTowards|lists/i);
    });
  });
});
