import { describe, expect, test } from "vitest";
import { full, memory, nn, ones, scope, type Tensor, TorchError, tensor, zeros } from "./index.js";

const live = (): number => memory.stats().liveTensors;

describe("scope", () => {
  test("frees what is made inside and keeps what leaves, deeply", () => {
    const before = live();
    const out = scope(() => {
      const x = ones([3]);
      const y = x.add(1);
      return { list: [y], map: new Map([["z", y.mul(2)]]), number: 1, nothing: null };
    });
    expect(live()).toBe(before + 2);
    expect(out.list[0]!.toList()).toEqual([2, 2, 2]);
    expect(out.map.get("z")!.toList()).toEqual([4, 4, 4]);
    out.list[0]!.dispose();
    out.map.get("z")!.dispose();
    expect(live()).toBe(before);
  });

  test("what leaves an inner scope belongs to the outer one", () => {
    const before = live();
    scope(() => {
      const inner = scope(() => ones([2]).add(1));
      expect(inner.toList()).toEqual([2, 2]);
      expect(live()).toBe(before + 1);
    });
    expect(live()).toBe(before);
  });

  test("keep() exempts from every scope around", () => {
    const before = live();
    let kept: Tensor | undefined;
    scope(() =>
      scope(() => {
        kept = ones([2]).keep();
      }),
    );
    expect(kept!.toList()).toEqual([1, 1]);
    kept!.dispose();
    expect(live()).toBe(before);
  });

  test("an exception frees everything and passes through", () => {
    const before = live();
    expect(() =>
      scope(() => {
        ones([2]).add(1);
        scope(() => {
          throw new RangeError("inside");
        });
      }),
    ).toThrow("inside");
    expect(live()).toBe(before);
  });

  test("a promise is refused and nothing is left", () => {
    const before = live();
    expect(() => scope(async () => ones([1]))).toThrow(/synchronous/);
    expect(live()).toBe(before);
  });

  test("tensors made outside are left alone", () => {
    const x = ones([2]);
    scope(() => x.add_(1));
    expect(x.toList()).toEqual([2, 2]);
    expect(scope(() => x)).toBe(x);
    x.dispose();
  });

  test("modules made inside survive", () => {
    const before = live();
    const layer = scope(() => new nn.Linear(2, 2));
    expect(scope(() => layer.forward(zeros([1, 2])).shape)).toEqual([1, 2]);
    layer.dispose();
    expect(live()).toBe(before);
  });
});

describe("freed tensors", () => {
  test("are recognised wherever they are used, even when their slot is taken again", () => {
    const x = ones([2]);
    x.dispose();
    expect(x.isDisposed).toBe(true);
    const others = Array.from({ length: 2000 }, () => ones([3]));
    for (const use of [
      () => x.add(1),
      () => x.shape,
      () => x.toList(),
      () => others[0]!.add(x),
      () => x.dtype,
      () => x.backward(),
    ]) {
      expect(use).toThrow(TorchError);
    }
    expect(() => x.add(1)).toThrow(/freed|disposed/);
    for (const other of others) other.dispose();
  });

  test("never become one of the thousands that follow in their slot, which disposing them again leaves alone", () => {
    const disposed = ones([3]);
    disposed.dispose();
    let ofScope = disposed;
    scope(() => {
      ofScope = ones([3]);
    });
    for (let i = 0; i < 3000; i++) {
      const next = full([2], i);
      disposed.dispose();
      ofScope.dispose();
      expect([disposed.isDisposed, ofScope.isDisposed]).toEqual([true, true]);
      expect(next.toList()).toEqual([i, i]);
      next.dispose();
    }
  });

  test("may be disposed twice, and by `using`", () => {
    const before = live();
    {
      using x = tensor([1]);
      using y = x.add(1);
      expect(y.item()).toBe(2);
      y.dispose();
    }
    expect(live()).toBe(before);
  });

  test("a view keeps the storage of what it looks at", () => {
    const x = tensor([1, 2, 3, 4]);
    const view = x.narrow(0, 2, 2);
    x.dispose();
    expect(view.toList()).toEqual([3, 4]);
    view.dispose();
  });
});

describe("assign", () => {
  test("keeps the object and takes the storage", () => {
    const before = live();
    const x = tensor([1, 2]);
    const y = tensor([[3, 4, 5]]);
    expect(x.assign(y)).toBe(x);
    expect([x.shape, x.toList()]).toEqual([[1, 3], [[3, 4, 5]]]);
    expect(y.isDisposed).toBe(true);
    x.dispose();
    expect(live()).toBe(before);
  });
});
