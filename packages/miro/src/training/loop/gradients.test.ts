import { manualSeed, memory, scope, type Tensor, tensor, zeros } from "@miro-t2i/torch";
import type { DistributedReducer } from "@miro-t2i/torch/distributed";
import { afterAll, describe, expect, it } from "vitest";
import { RandomBatches } from "../batches/batches.js";
import { tinyRecipe } from "../testing/tiny.js";
import { accumulateGradients, type GradientOptions } from "./gradients.js";
import { createLoss, createNetworks } from "./model.js";

const recipe = tinyRecipe();
const sizes = { batchSize: 6, channels: 4, size: 4, textLength: 3, textWidth: 6 };
const source = new RandomBatches({ seed: 1, rewardKeys: ["clip_score", "sharpness"], ...sizes });
manualSeed(0);
const network = { ...(recipe.network as object), coherence_dropout: 0 };
const model = { ...createNetworks({ ...recipe, network }), loss: createLoss(recipe, zeros([1, 6])) };
const parameters = [...model.network.parameters(), ...model.preconditioning.parameters()];
afterAll(() => {
  for (const parameter of parameters) parameter.dispose();
});

/** The gradients of a batch, one after another. */
function gradients(accumulateGradBatches: number, options: Partial<GradientOptions> = {}): number[] {
  return scope(() => {
    const rows = { start: 0, count: 6, batchSize: 6 };
    const own = { seed: 3, k: 1, rows, precision: "32-true", accumulateGradBatches } as const;
    accumulateGradients(model, source.batch(0), { ...own, ...options });
    const found = parameters.flatMap(({ grad }) => (grad?.flatten().toList() as number[] | undefined) ?? []);
    for (const parameter of parameters) parameter.grad = null;
    return found;
  });
}

/** What stands for the reducer of so many processes: it tells when it is called, and reduces nothing. */
function reducerOf(worldSize: number, tell: (call: string) => void = () => {}): DistributedReducer {
  let reduces = true;
  return {
    group: { worldSize },
    prepareForForward: () => tell(`forward, ${reduces}`),
    backward(loss: Tensor) {
      tell(`backward, ${reduces}`);
      loss.backward();
    },
    noSync(body: () => unknown) {
      reduces = false;
      const result = body();
      reduces = true;
      return result;
    },
  } as unknown as DistributedReducer;
}

function expectClose(found: readonly number[], wanted: readonly number[]): void {
  expect(found).toHaveLength(wanted.length);
  expect(Math.max(...wanted)).toBeGreaterThan(0.01);
  found.forEach((value, i) => void expect(value).toBeCloseTo(wanted[i]!, 5));
}

describe("gradients of several accumulation steps", () => {
  it("are reduced once, in the last one, and have no other values", () => {
    const told: string[] = [];
    const parts = gradients(3, { reducer: reducerOf(1, (call) => told.push(call)) });
    expect(told).toEqual([false, false, true].flatMap((is) => [`forward, ${is}`, `backward, ${is}`]));
    expectClose(parts, gradients(1));
  });

  it("need the memory of one step: what it has left is freed before the next", () => {
    const live: number[] = [];
    gradients(3, { reducer: reducerOf(1, () => live.push(memory.stats().liveBytes)) });
    const [, , second, , third] = live;
    expect(third! - second!).toBeLessThan(1024);
  });
});

it("gradients are scaled alike by a number and by a value on the device, with the loss of several processes", () => {
  const wanted = gradients(1).map((value) => 2 * 8 * value);
  for (const lossScale of [8, tensor(Float32Array.of(8))])
    expectClose(gradients(1, { lossScale, reducer: reducerOf(2) }), wanted);
});
