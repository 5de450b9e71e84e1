import { memory, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { expect, it } from "vitest";
import { atOnce, type ByLayer, freeing } from "./by-layer.js";

/** Adds `count` numbers, and closes what it had open. */
function* adding(count: number, state: { open: boolean; before?: () => void }): ByLayer<Tensor> {
  state.open = true;
  try {
    const all = tensor([100]);
    let x = tensor([0]);
    for (let i = 1; i <= count; i++) {
      yield [all, x];
      state.before?.();
      x = scope(() => x.add(i).mul(1));
    }
    return x.add(all);
  } finally {
    state.open = false;
  }
}

it("a computation by layers gives its result, and holds what it needs and nothing else, at once or stopped", () => {
  const before = memory.stats().liveTensors;
  const most: number[] = [];
  const state = { open: false, before: () => void most.push(memory.stats().liveTensors - before) };
  const value = scope(() => atOnce(adding(4, state)).toList());
  expect(value).toEqual([110]);
  expect(most).toEqual([2, 2, 2, 2]);
  expect(memory.stats().liveTensors).toBe(before);

  const run = freeing(adding(4, state));
  expect([run.next().done, run.next().done]).toEqual([false, false]);
  expect(memory.stats().liveTensors - before).toBe(2);
  run.return(undefined as never);
  expect(memory.stats().liveTensors).toBe(before);
  expect(state.open).toBe(false);
});

it("an error of a layer frees everything and is passed on", () => {
  const before = memory.stats().liveTensors;
  let layer = 0;
  const failing = adding(4, {
    open: false,
    before: () => {
      if (++layer === 3) throw new Error("the third layer");
    },
  });
  expect(() => atOnce(failing)).toThrow("the third layer");
  expect(memory.stats().liveTensors).toBe(before);
});
