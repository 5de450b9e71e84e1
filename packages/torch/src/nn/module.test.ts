import { afterEach, describe, expect, test } from "vitest";
import { type DType, memory, nn, ones, randn, scope, type Tensor, TorchError, tensor, zeros } from "../index.js";

/** One level of everything: parameters, buffers of both kinds, sub-modules, a tied weight. */
class Block extends nn.Module {
  readonly scale = this.parameter("scale", ones([2]));
  readonly flags = this.parameter("flags", tensor([true, false]));
  readonly seen = this.buffer("seen", zeros([1], { dtype: "int64" }));
  readonly scratch = this.buffer("scratch", zeros([3]), { persistent: false });
  readonly inner = this.register("inner_layer", new nn.Linear(2, 2));
  readonly drops = this.register("drops", new nn.ModuleList([new nn.Dropout(0.5), new nn.Dropout(0.1)]));

  forward(x: Tensor): Tensor {
    return this.inner.forward(x).mul(this.scale);
  }
}

class Tied extends nn.Module {
  readonly a = this.register("a", new nn.Linear(2, 2, { bias: false }));
  readonly b = this.parameter("b", this.a.weight);
}

const made: nn.Module[] = [];
function make<M extends nn.Module>(build: () => M): M {
  const module = scope(build);
  made.push(module);
  return module;
}
afterEach(() => {
  for (const module of made.splice(0)) module.dispose();
});

const keys = ["scale", "flags", "seen", "inner_layer.weight", "inner_layer.bias"];
const values = (state: Map<string, Tensor>): Record<string, unknown> =>
  Object.fromEntries([...state].map(([key, t]) => [key, t.toList()]));

describe("names", () => {
  test("follow registration, own tensors first", () => {
    const block = make(() => new Block());
    expect([...block.stateDict().keys()]).toEqual(keys);
    expect([...block.namedParameters()].map(([name]) => name)).toEqual(keys.filter((key) => key !== "seen"));
    expect([...block.namedParameters("net")].map(([name]) => name)[0]).toBe("net.scale");
    expect([...block.namedBuffers()].map(([name]) => name)).toEqual(["seen", "scratch"]);
    expect([...block.namedModules()].map(([name]) => name)).toEqual(["", "inner_layer", "drops", "drops.0", "drops.1"]);
    expect([...block.children()].length).toBe(2);
  });

  test("a tied weight is one parameter under two keys", () => {
    const tied = make(() => new Tied());
    expect([...tied.parameters()].length).toBe(1);
    expect([...tied.stateDict().keys()]).toEqual(["b", "a.weight"]);
    scope(() => tied.loadStateDict({ b: ones([2, 2]), "a.weight": ones([2, 2]) }, { assign: true }));
    expect(tied.a.weight.toList()).toEqual([
      [1, 1],
      [1, 1],
    ]);
  });

  test("a name that is taken, empty or dotted is refused", () => {
    class Wrong extends nn.Module {
      constructor(name: string) {
        super();
        this.register("x", new nn.Dropout());
        this.register(name, new nn.Dropout());
      }
    }
    for (const name of ["x", "", "a.b"]) expect(() => new Wrong(name)).toThrow(TorchError);
    class Twice extends nn.Module {
      constructor(kinds: readonly ("module" | "parameter" | "buffer")[]) {
        super();
        for (const kind of kinds) {
          if (kind === "module") this.register("x", new nn.Dropout());
          else this[kind]("x", zeros([1]));
        }
      }
    }
    const kinds = ["module", "parameter", "buffer"] as const;
    for (const first of kinds)
      for (const second of kinds) expect(() => scope(() => new Twice([first, second]))).toThrow(/"x" is registered/);
  });
});

describe("parameters", () => {
  test("outlive the scope they were made in, and dispose frees them", () => {
    const before = memory.stats().liveTensors;
    const block = scope(() => new Block());
    expect(block.scale.toList()).toEqual([1, 1]);
    block.dispose();
    expect(memory.stats().liveTensors).toBe(before);
  });

  test("record gradients where they are floating", () => {
    const block = make(() => new Block());
    expect(block.scale.requiresGrad).toBe(true);
    expect(block.flags.requiresGrad).toBe(false);
    scope(() =>
      block
        .forward(ones([1, 2]))
        .sum()
        .backward(),
    );
    scope(() => expect(block.scale.grad?.shape).toEqual([2]));
    block.zeroGrad();
    expect(block.scale.grad).toBe(null);
    block.requiresGrad_(false);
    expect([...block.parameters()].some((p) => p.requiresGrad)).toBe(false);
  });
});

describe("loading", () => {
  const full = (): Record<string, Tensor> => ({
    scale: tensor([3, 4]),
    flags: tensor([false, true]),
    seen: tensor([5n]),
    "inner_layer.weight": ones([2, 2]),
    "inner_layer.bias": tensor([1, 2]),
  });

  test.each([false, true])("round trip with assign %s", (assign) => {
    const block = make(() => new Block());
    const { scale } = block;
    scope(() => {
      const wanted = Object.fromEntries(Object.entries(full()).map(([key, t]) => [key, t.toList()]));
      expect(block.loadStateDict(full(), { assign })).toEqual({ missing: [], unexpected: [] });
      expect(values(block.stateDict())).toEqual(wanted);
    });
    expect(block.scale).toBe(scale);
    expect(block.scale.requiresGrad).toBe(true);
    expect(block.scale.isLeaf).toBe(true);
    expect(scope(() => block.forward(ones([1, 2])).toList())).toEqual([[9, 16]]);
  });

  test("assign takes the dtype of what is given, copying keeps the module's", () => {
    const block = make(() => new Block());
    scope(() => {
      block.loadStateDict({ scale: tensor([1.5, 2], { dtype: "float64" }) }, { strict: false });
      expect([block.scale.dtype, block.scale.toList()]).toEqual(["float32", [1.5, 2]]);
      block.loadStateDict({ scale: tensor([2.5, 2], { dtype: "float64" }) }, { strict: false, assign: true });
      expect([block.scale.dtype, block.scale.toList()]).toEqual(["float64", [2.5, 2]]);
    });
  });

  test("assign copies into a buffer that keeps its dtype", () => {
    class Table extends nn.Module {
      readonly kept = this.buffer("kept", zeros([2]), { keepDtype: true });
      readonly other = this.buffer("other", zeros([2]));
    }
    const table = make(() => new Table());
    scope(() => {
      const half = (value: number) => tensor([value, value], { dtype: "float16" });
      table.loadStateDict({ kept: half(1.5), other: half(2.5) }, { assign: true });
    });
    expect([table.kept.dtype, table.kept.toList()]).toEqual(["float32", [1.5, 1.5]]);
    expect([table.other.dtype, table.other.toList()]).toEqual(["float16", [2.5, 2.5]]);
  });

  test("one error lists every problem, and nothing was changed", () => {
    const block = make(() => new Block());
    scope(() => {
      const before = values(block.stateDict());
      const { seen: _, "inner_layer.bias": __, ...rest } = full();
      const bad = { ...rest, scale: ones([3]), "inner_layer.weight": ones([2]), extra: ones([1]), other: ones([1]) };
      let message = "";
      try {
        block.loadStateDict(bad);
      } catch (error) {
        expect(error).toBeInstanceOf(TorchError);
        message = (error as Error).message;
      }
      expect(message).toContain("Block: the state dict does not fit");
      expect(message).toContain("missing (2): seen, inner_layer.bias");
      expect(message).toContain("unexpected (2): extra, other");
      expect(message).toContain(
        "wrong shape (2): scale: expected [2], got [3], inner_layer.weight: expected [2,2], got [2]",
      );
      expect(values(block.stateDict())).toEqual(before);
    });
  });

  test("what is no tensor is told before anything is changed", () => {
    const block = make(() => new Block());
    scope(() => {
      const before = values(block.stateDict());
      const wrong = { ...full(), "inner_layer.weight": undefined, "inner_layer.bias": [1, 2] };
      expect(() => block.loadStateDict(wrong as never)).toThrow(
        "inner_layer.weight: expected [2,2], got undefined, inner_layer.bias: expected [2], got an array",
      );
      expect(() => block.loadStateDict(undefined as never)).toThrow("Block: expected tensors by name, got undefined");
      expect(values(block.stateDict())).toEqual(before);
    });
  });

  test("not strict reports missing and unexpected, and still refuses wrong shapes", () => {
    const block = make(() => new Block());
    scope(() => {
      const result = block.loadStateDict({ scale: tensor([7, 8]), extra: ones([1]) }, { strict: false });
      expect(result).toEqual({ missing: keys.slice(1), unexpected: ["extra"] });
      expect(block.scale.toList()).toEqual([7, 8]);
      expect(() => block.loadStateDict({ scale: ones([1]) }, { strict: false })).toThrow(/wrong shape/);
    });
  });
});

describe("conversion", () => {
  test.each<DType>(["bfloat16", "float16", "float64"])("to %s changes floating tensors in place", (dtype) => {
    const block = make(() => new Block());
    const before = [...block.parameters(), ...block.buffers()];
    scope(() =>
      block
        .forward(ones([1, 2]))
        .sum()
        .backward(),
    );
    expect(block.to({ dtype })).toBe(block);
    expect([...block.parameters(), ...block.buffers()]).toEqual(before);
    expect([block.scale.dtype, block.flags.dtype, block.seen.dtype, block.scratch.dtype]).toEqual([
      dtype,
      "bool",
      "int64",
      dtype,
    ]);
    expect(block.scale.requiresGrad && block.scale.isLeaf).toBe(true);
    scope(() => expect(block.scale.grad?.dtype).toBe(dtype));
    expect(scope(() => block.forward(ones([1, 2], { dtype })).dtype)).toBe(dtype);
  });

  test("to an integer dtype is refused", () => {
    const block = make(() => new Block());
    expect(() => block.to({ dtype: "int32" })).toThrow(/floating/);
  });

  test("train and eval reach every module", () => {
    const block = make(() => new Block());
    block.eval();
    expect([...block.namedModules()].map(([, module]) => module.training)).toEqual([false, false, false, false, false]);
    block.train();
    expect(block.drops.items.every((drop) => drop.training)).toBe(true);
  });
});

describe("layers", () => {
  const layers: [string, () => nn.Module & { forward(x: Tensor): Tensor }, number[], number[]][] = [
    ["Linear", () => new nn.Linear(4, 3), [2, 5, 4], [2, 5, 3]],
    ["LayerNorm", () => new nn.LayerNorm([5, 4], { eps: 1e-6 }), [2, 5, 4], [2, 5, 4]],
    ["LayerNorm without affine", () => new nn.LayerNorm(4, { affine: false }), [2, 5, 4], [2, 5, 4]],
    ["RMSNorm", () => new nn.RMSNorm(4), [2, 5, 4], [2, 5, 4]],
    ["GroupNorm", () => new nn.GroupNorm(2, 4), [2, 4, 3], [2, 4, 3]],
    ["Conv2d", () => new nn.Conv2d(4, 6, 3, { padding: 1, stride: 2 }), [1, 4, 8, 8], [1, 6, 4, 4]],
    ["ConvTranspose2d", () => new nn.ConvTranspose2d(4, 6, 2, { stride: 2 }), [1, 4, 8, 8], [1, 6, 16, 16]],
    ["Dropout", () => new nn.Dropout(0.5), [2, 3], [2, 3]],
    [
      "Sequential",
      () => new nn.Sequential(new nn.Linear(4, 8), new nn.Lambda((x) => x.silu()), new nn.Linear(8, 1)),
      [2, 4],
      [2, 1],
    ],
  ];
  test.each(layers)("%s gives its shape, and gradients to every parameter", (_, build, input, output) => {
    const layer = make(build);
    scope(() => {
      const x = randn(input).requiresGrad_();
      const y = layer.forward(x);
      expect(y.shape).toEqual(output);
      y.square().sum().backward();
      expect(x.grad?.shape).toEqual(input);
      for (const [name, p] of layer.namedParameters()) expect(p.grad?.shape, name).toEqual(p.shape);
    });
  });

  test("Embedding looks rows up and sums their gradients", () => {
    const embedding = make(() => new nn.Embedding(3, 2));
    scope(() => {
      const y = embedding.forward(tensor([[0n, 2n, 2n]]));
      expect(y.shape).toEqual([1, 3, 2]);
      y.sum().backward();
      expect(embedding.weight.grad?.toList()).toEqual([
        [1, 1],
        [0, 0],
        [2, 2],
      ]);
    });
  });

  test("Dropout keeps the mean while training and does nothing otherwise", () => {
    const drop = make(() => new nn.Dropout(0.25));
    scope(() => {
      const x = ones([40_000]);
      const y = drop.forward(x);
      expect(new Set(y.toList() as number[])).toEqual(new Set([0, Math.fround(1 / 0.75)]));
      expect(Math.abs(y.mean().item() - 1)).toBeLessThan(5 * Math.sqrt(1 / 3 / 40_000));
      expect(drop.eval().forward(x)).toBe(x);
    });
    expect(() => new nn.Dropout(1.5)).toThrow(/\[0, 1\]/);
  });
});
