import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  arange,
  aten,
  call,
  cat,
  type DType,
  eye,
  float,
  full,
  type IndexItem,
  linspace,
  ones,
  scope,
  stack,
  type Tensor,
  TorchError,
  tensor,
  where,
  zeros,
} from "./index.js";

const list = (build: () => Tensor): unknown => scope(() => build().toList());
const dtypeOf = (build: () => Tensor): DType => scope(() => build().dtype);

describe("creation", () => {
  test("takes numbers, nested arrays, bigints, booleans and typed arrays", () => {
    scope(() => {
      const cases: [Tensor, DType, number[], unknown][] = [
        [tensor(2.5), "float32", [], 2.5],
        [
          tensor([
            [1, 2],
            [3, 4],
          ]),
          "float32",
          [2, 2],
          [
            [1, 2],
            [3, 4],
          ],
        ],
        [tensor([1n, -(2n ** 53n)]), "int64", [2], [1, -(2 ** 53)]],
        [tensor([true, false]), "bool", [2], [true, false]],
        [tensor(new Int16Array([1, -1])), "int16", [2], [1, -1]],
        [tensor(new Float64Array([0.1, 0.2]), { shape: [2, 1] }), "float64", [2, 1], [[0.1], [0.2]]],
        [tensor(new Uint16Array([0x3fc0]), { dtype: "bfloat16" }), "bfloat16", [1], [1.5]],
        [tensor([1, 2], { dtype: "int32" }), "int32", [2], [1, 2]],
        [tensor([]), "float32", [0], []],
        [full([2], 7, { dtype: "int64" }), "int64", [2], [7, 7]],
        [arange(3), "int64", [3], [0, 1, 2]],
        [arange(1, 2, 0.5), "float32", [2], [1, 1.5]],
        [linspace(0, 1, 3), "float32", [3], [0, 0.5, 1]],
        [
          eye(2),
          "float32",
          [2, 2],
          [
            [1, 0],
            [0, 1],
          ],
        ],
      ];
      for (const [t, dtype, shape, values] of cases)
        expect([t.dtype, t.shape, t.toList()]).toEqual([dtype, shape, values]);
    });
  });

  test("keeps numbers as they are in every dtype, cuts fractions off, and refuses what a dtype does not hold", () => {
    const ranges: [DType, bigint, bigint][] = [
      ["uint8", 0n, 255n],
      ["int8", -128n, 127n],
      ["int16", -(2n ** 15n), 2n ** 15n - 1n],
      ["int32", -(2n ** 31n), 2n ** 31n - 1n],
      ["int64", -(2n ** 63n), 2n ** 63n - 1n],
    ];
    for (const [dtype, least, largest] of ranges) {
      for (const value of [least, largest, largest - 1n, 1n]) {
        const forms = Number.isSafeInteger(Number(value)) ? [value, Number(value)] : [value];
        for (const form of forms)
          expect(
            scope(() => BigInt(tensor([form], { dtype }).data()[0]!)),
            dtype,
          ).toBe(value);
      }
      expect(list(() => tensor([1.75, 0.25, true], { dtype }))).toEqual([1, 0, 1]);
      for (const value of [largest + 1n, least - 256n, Number.NaN, Number.POSITIVE_INFINITY, 1e30])
        expect(() => tensor([value], { dtype }), `${value} in ${dtype}`).toThrow(`out of the range of ${dtype}`);
    }
    expect(list(() => tensor([0, Number.NaN, 1e-300, -1, 0n, true], { dtype: "bool" }))).toEqual([
      ...[false, true, true, true, false, true],
    ]);
    expect(list(() => tensor([0.1, 1e-300], { dtype: "float64" }))).toEqual([0.1, 1e-300]);
  });

  test("promotes what is mixed, as PyTorch's", () => {
    scope(() => {
      const mixed: [Tensor, DType, number[]][] = [
        [tensor([true, 2.5]), "float32", [1, 2.5]],
        [tensor([1n, 2.5]), "float32", [1, 2.5]],
        [tensor([true, 2n]), "int64", [1, 2]],
      ];
      for (const [t, dtype, values] of mixed) expect([t.dtype, t.toList()]).toEqual([dtype, values]);
    });
  });

  test("refuses ragged data and shapes that do not fit", () => {
    expect(() => tensor([[1, 2], [3]])).toThrow(/ragged/);
    expect(() => tensor([1, 2, 3], { shape: [2, 2] })).toThrow(TorchError);
    expect(() => tensor(["a"] as unknown as number[])).toThrow(TorchError);
    expect(() => zeros([-1])).toThrow(TorchError);
    expect(() => tensor(new Uint32Array(2) as never)).toThrow(/^tensor: no dtype has the elements of a Uint32Array/);
  });

  test("takes typed arrays of other realms, and float16 as JavaScript holds it", () => {
    const other = runInNewContext("new Float32Array([1, 2])") as Float32Array;
    expect(list(() => tensor(other))).toEqual([1, 2]);
    // Stands for the class, which not every supported release of Node has: the same bits under its name.
    class Halves extends Uint16Array {
      // @ts-expect-error the name of another class
      override get [Symbol.toStringTag]() {
        return "Float16Array";
      }
    }
    const bits = Uint16Array.of(7, 0x3c00, 0xc100);
    const halves = new Halves(bits.buffer, 2) as never;
    expect([dtypeOf(() => tensor(halves)), list(() => tensor(halves))]).toEqual(["float16", [1, -2.5]]);
    expect(list(() => tensor(halves, { dtype: "float64" }))).toEqual([1, -2.5]);
  });

  test("data() copies: neither side sees later changes of the other", () => {
    scope(() => {
      const source = new Float32Array([1, 2]);
      const t = tensor(source);
      source[0] = 9;
      const copy = t.data() as Float32Array;
      t.add_(1);
      expect([...copy]).toEqual([1, 2]);
      expect(t.toList()).toEqual([2, 3]);
    });
  });
});

describe("dtypes", () => {
  test("promote as PyTorch's", () => {
    scope(() => {
      const i = tensor([1n]);
      const f = tensor([1.5]);
      const b = tensor([true]);
      const half = f.bfloat16();
      expect(dtypeOf(() => i.add(1))).toBe("int64");
      expect(dtypeOf(() => i.add(1.5))).toBe("float32");
      expect(dtypeOf(() => i.mul(float(2)))).toBe("float32");
      expect(dtypeOf(() => i.add(f))).toBe("float32");
      expect(dtypeOf(() => i.div(i))).toBe("float32");
      expect(dtypeOf(() => b.add(b))).toBe("bool");
      expect(dtypeOf(() => b.add(1))).toBe("int64");
      expect(dtypeOf(() => half.add(f.sum()))).toBe("bfloat16");
      expect(dtypeOf(() => half.add(f))).toBe("float32");
      expect(dtypeOf(() => f.eq(i))).toBe("bool");
      expect(dtypeOf(() => b.sum())).toBe("int64");
    });
  });

  test("conversions round as they should and give the same object when nothing changes", () => {
    scope(() => {
      const t = tensor([1.7, -1.7, 257]);
      expect(t.long().toList()).toEqual([1, -1, 257]);
      expect(t.to("bfloat16").toList()).toEqual([1.703125, -1.703125, 256]);
      expect(t.half().toList()).toEqual([1.7001953125, -1.7001953125, 257]);
      expect(tensor([0, 0.5]).bool().toList()).toEqual([false, true]);
      expect(t.float()).toBe(t);
      expect(t.to({ dtype: "float32", device: "cpu" })).toBe(t);
      expect(t.to({ copy: true })).not.toBe(t);
      expect(t.double().item === undefined).toBe(false);
    });
  });

  test("become JSON and numbers as JavaScript asks for them", () => {
    scope(() => {
      const x = tensor([
        [1, 2.5],
        [Number.NaN, -1],
      ]);
      expect(JSON.stringify({ x, list: x.toList() })).toBe(
        '{"x":"Tensor(float32, [2, 2])","list":[[1,2.5],[null,-1]]}',
      );
      expect([Number(tensor(2.5)), Math.max(tensor([7n]) as never, 3), tensor(1) < tensor(2)]).toEqual([2.5, 7, true]);
      expect(() => x < tensor(2)).toThrow(/^item\(\) needs a tensor of one element, got Float\[2, 2\]$/);
      expect([`${x}`, String(tensor(1n)), `x: ${tensor(true)}`]).toEqual([
        "Tensor(float32, [2, 2])",
        "Tensor(int64, [])",
        "x: Tensor(bool, [])",
      ]);
    });
  });

  test("every pair of dtypes converts small integers without loss", () => {
    const dtypes: DType[] = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"];
    for (const from of dtypes) {
      for (const to of dtypes)
        expect(
          list(() => tensor([0, 1, 100], { dtype: from }).to(to)),
          `${from} to ${to}`,
        ).toEqual([0, 1, 100]);
    }
  });
});

describe("indexing", () => {
  const base = (): Tensor => arange(24).reshape(2, 3, 4);
  /** The same in plain JavaScript: values of the base by position. */
  const at = (i: number, j: number, k: number): number => i * 12 + j * 4 + k;

  test("numbers, slices, new axes, masks and index tensors", () => {
    scope(() => {
      const x = base();
      expect(x.index(1, -1, 2).item()).toBe(at(1, 2, 2));
      expect(x.index(":", 0).toList()).toEqual([0, 1].map((i) => [0, 1, 2, 3].map((k) => at(i, 0, k))));
      expect(x.index(0, [1, null], [null, 4, 2]).toList()).toEqual([1, 2].map((j) => [0, 2].map((k) => at(0, j, k))));
      expect(x.index(null, 0, null).shape).toEqual([1, 1, 3, 4]);
      expect(x.index(0, [-2, -1]).toList()).toEqual([[0, 1, 2, 3].map((k) => at(0, 1, k))]);
      expect(x.index(tensor([1n, 0n]), tensor([2n, 2n])).toList()).toEqual(
        [1, 0].map((i) => [0, 1, 2, 3].map((k) => at(i, 2, k))),
      );
      expect(x.index(":", ":", tensor([3n])).shape).toEqual([2, 3, 1]);
      expect(x.index(x.gt(20)).toList()).toEqual([21, 22, 23]);
      expect(x.index(0, tensor([true, false, true])).shape).toEqual([2, 4]);
      for (const items of [["..."], ["...", 1], [0, "..."], [0, "...", 1], ["...", null], [1, 0, 2, "..."]] as const) {
        const at = items.indexOf("..." as never);
        const rest = Array<":">(x.ndim - items.filter((item) => typeof item === "number").length).fill(":");
        const spelt = [...items.slice(0, at), ...rest, ...items.slice(at + 1)] as IndexItem[];
        expect(x.index(...items).toList(), String(items)).toEqual(x.index(...spelt).toList());
      }
      // As in PyTorch, a tensor of one number is a number: among other tensors it moves no dimension.
      expect(x.index(tensor(-1n), null, tensor([0n, 0n])).shape).toEqual(x.index(-1, null, tensor([0n, 0n])).shape);
      expect(x.index(tensor(1n), ":", tensor([0n])).toList()).toEqual(x.index(1, ":", tensor([0n])).toList());
      // And a mask without dimensions keeps or drops the whole.
      expect(x.index(tensor(true)).toList()).toEqual([x.toList()]);
      expect([x.index(0, tensor(false)).shape, x.index(tensor(true), 1).shape]).toEqual([
        [0, 3, 4],
        [1, 3, 4],
      ]);
      const one = tensor(5);
      expect([one.index(one.gt(4)).toList(), one.index(one.gt(6)).toList()]).toEqual([[5], []]);
      // A mask of uint8 is one as well.
      const bytes = (mask: Tensor) => mask.to("uint8");
      expect(x.index(bytes(x.gt(20))).toList()).toEqual([21, 22, 23]);
      expect(x.index(bytes(x.gt(20).any(2)), "...", 3).toList()).toEqual([23]);
      expect(x.index(bytes(tensor(true))).toList()).toEqual([x.toList()]);
      expect(x.index(0, bytes(tensor(false))).shape).toEqual([0, 3, 4]);
      expect(x.index("...", tensor([3n, 0n])).toList()).toEqual(x.index(":", ":", tensor([3n, 0n])).toList());
      expect(x.index("...", x.gt(20)).toList()).toEqual([21, 22, 23]);
      expect(() => x.index("...", 0, "...")).toThrow(/expected "\.\.\." once/);
      for (const wrong of [true, undefined, "1:", {}, 1n, [], [1], [0, 1, 2, 3], Symbol("a")] as never[])
        expect(() => x.index(wrong)).toThrow(/^index: expected a number, null, .* at place 0, got /);
      expect(() => x.index(2)).toThrow(TorchError);
      for (const items of [
        [0, 0, 0, 0],
        [":", ":", ":", ":"],
        [":", null, x.gt(20)],
        ["...", [0, 1], x.gt(20)],
      ] as const)
        expect(() => x.index(...items)).toThrow(/^index: 4 are too many for a tensor of 3 dimensions$/);
      expect(() => x.index(tensor([5n]))).toThrow(/out of bounds/);
    });
  });

  test("slices agree with JavaScript's for random bounds", () => {
    const bound = fc.option(fc.integer({ min: -9, max: 9 }));
    fc.assert(
      fc.property(bound, bound, fc.integer({ min: 1, max: 3 }), (start, end, step) => {
        const values = [0, 1, 2, 3, 4, 5, 6];
        const want = values.slice(start ?? undefined, end ?? undefined).filter((_, i) => i % step === 0);
        expect(list(() => arange(7).slice(0, start, end, step))).toEqual(want);
      }),
    );
  });

  test("writes in place: fill, scatter, indexPut_, indexCopy_, through views", () => {
    scope(() => {
      const x = zeros([2, 3]);
      x.select(0, 1).fill_(5);
      x.slice(1, 0, 3, 2).add_(1);
      expect(x.toList()).toEqual([
        [1, 0, 1],
        [6, 5, 6],
      ]);
      x.indexPut_([tensor([0n]), tensor([1n])], tensor([9]));
      expect(x.toList()).toEqual([
        [1, 9, 1],
        [6, 5, 6],
      ]);
      x.scatter_(1, tensor([[0n], [2n]]), -1);
      expect(x.toList()).toEqual([
        [-1, 9, 1],
        [6, 5, -1],
      ]);
      x.indexCopy_(0, tensor([1n]), ones([1, 3]));
      expect(x.toList()).toEqual([
        [-1, 9, 1],
        [1, 1, 1],
      ]);
      x.maskedFill_(x.eq(1), 0)
        .clamp_(0, 5)
        .lerp_(ones([2, 3]), 0.5);
      expect(x.toList()).toEqual([
        [0.5, 3, 0.5],
        [0.5, 0.5, 0.5],
      ]);
    });
  });
});

describe("broadcasting", () => {
  const sizes = fc.array(fc.constantFrom(1, 2, 3), { maxLength: 3 });
  /** The broadcast shape by the rule of NumPy, or null. */
  const broadcast = (a: number[], b: number[]): number[] | null => {
    const rank = Math.max(a.length, b.length);
    const shape = Array.from({ length: rank }, (_, i) => {
      const [m, n] = [a[a.length - rank + i] ?? 1, b[b.length - rank + i] ?? 1];
      return m === n || n === 1 ? m : m === 1 ? n : Number.NaN;
    });
    return shape.some(Number.isNaN) ? null : shape;
  };

  test("follows the rule for random shapes, and names the shapes where it cannot", () => {
    fc.assert(
      fc.property(sizes, sizes, (a, b) => {
        const want = broadcast(a, b);
        scope(() => {
          const [x, y] = [ones(a), ones(b)];
          if (want !== null) {
            expect(x.add(y).shape).toEqual(want);
            expect(where(x.gt(0), x, y).shape).toEqual(want);
          } else {
            expect(() => x.add(y)).toThrow(TorchError);
          }
        });
      }),
    );
  });

  test("sums gradients back to the shape they came from", () => {
    fc.assert(
      fc.property(sizes, sizes, (a, b) => {
        const shape = broadcast(a, b);
        if (shape === null) return;
        scope(() => {
          const x = ones(a).requiresGrad_();
          x.mul(full(b, 2)).sum().backward();
          const count = shape.reduce((p, n) => p * n, 1);
          expect(x.grad!.shape).toEqual(a);
          expect(x.grad!.sum().item()).toBe(2 * count);
        });
      }),
    );
  });
});

describe("layout", () => {
  test("views share memory, reshape copies only where it must", () => {
    scope(() => {
      const x = arange(6, { dtype: "float32" });
      const y = x.view(2, 3);
      y.t().mul_(2);
      expect(x.toList()).toEqual([0, 2, 4, 6, 8, 10]);
      expect(y.t().isContiguous).toBe(false);
      expect(() => y.t().view(6)).toThrow(TorchError);
      expect(y.t().reshape(6).toList()).toEqual([0, 6, 2, 8, 4, 10]);
      expect(y.strides).toEqual([3, 1]);
      expect(y.t().data()).toEqual(new Float32Array([0, 6, 2, 8, 4, 10]));
    });
  });

  test("unflatten, expand, cat and stack agree with each other", () => {
    scope(() => {
      const x = arange(6).unflatten(0, [2, 3]);
      expect(x.toList()).toEqual([
        [0, 1, 2],
        [3, 4, 5],
      ]);
      expect(stack(x.unbind(0)).toList()).toEqual(x.toList());
      expect(cat(x.split(1, 1), 1).toList()).toEqual(x.toList());
      expect(x.select(0, 0).expand(2, 3).toList()).toEqual([
        [0, 1, 2],
        [0, 1, 2],
      ]);
    });
  });
});

test("an operator called by name gives what it has written into, which knows its new shape", () => {
  scope(() => {
    const out = zeros([0]);
    expect(out.shape).toEqual([0]);
    expect(call("aten::add.out", ones([2, 3]), ones([3]), 1, out)).toBe(out);
    expect([out.shape, out.toList()]).toEqual([[2, 3], Array(2).fill([2, 2, 2])]);

    const [values, indices] = [zeros([0]), zeros([0], { dtype: "int64" })];
    expect([values.shape, indices.shape]).toEqual([[0], [0]]);
    const sorted = call("aten::sort.values", tensor([3, 1, 2]), 0, false, values, indices);
    expect(sorted).toEqual([values, indices]);
    expect([sorted[0] === values, sorted[1] === indices]).toEqual([true, true]);
    expect([values.toList(), indices.toList()]).toEqual([
      [1, 2, 3],
      [1, 2, 0],
    ]);

    const x = ones([2]);
    expect(call("aten::add_.Scalar", x, 1)).toBe(x);
    expect(call("aten::_foreach_add_.Scalar", [x], 1)).toBeUndefined();
    expect(x.toList()).toEqual([3, 3]);
    aten.set_data(x, ones([2, 2]));
    expect(x.shape).toEqual([2, 2]);
  });
});

test("extreme values pass through", () => {
  scope(() => {
    const x = tensor([Number.NaN, Number.POSITIVE_INFINITY, -0, 5e-324], { dtype: "float64" });
    expect(x.toList()).toEqual([Number.NaN, Number.POSITIVE_INFINITY, -0, 5e-324]);
    expect(x.isnan().toList()).toEqual([true, false, false, false]);
    expect(x.isfinite().toList()).toEqual([false, false, true, true]);
    expect(x.nanToNum(7, 8, 9).toList()).toEqual([7, 8, -0, 5e-324]);
    expect(tensor([2n ** 62n]).data()).toEqual(BigInt64Array.of(2n ** 62n));
  });
});
