import { manualSeed, scope, type Tensor, zeros } from "@miro-t2i/torch";
import type { DistributedReducer } from "@miro-t2i/torch/distributed";
import { expect, it } from "vitest";
import { RandomBatches } from "../batches/batches.js";
import { tinyRecipe } from "../testing/tiny.js";
import { accumulateGradients } from "./gradients.js";
import { createLoss, createNetworks } from "./model.js";

it("of several accumulation steps are reduced once, in the last one, and have no other values", () => {
  manualSeed(0);
  const recipe = tinyRecipe();
  const network = { ...(recipe.network as object), coherence_dropout: 0 };
  const sizes = { batchSize: 6, channels: 4, size: 4, textLength: 3, textWidth: 6 };
  const source = new RandomBatches({ seed: 1, rewardKeys: ["clip_score", "sharpness"], ...sizes });
  scope(() => {
    const model = { ...createNetworks({ ...recipe, network }), loss: createLoss(recipe, zeros([1, 6])) };
    const batch = source.batch(0);
    const rows = { start: 0, count: 6, batchSize: 6 };
    const gradients = (accumulateGradBatches: number, reducer?: DistributedReducer) => {
      const options = { seed: 3, k: 1, rows, precision: "32-true", accumulateGradBatches, reducer } as const;
      scope(() => void accumulateGradients(model, batch, options));
      const found = [...model.network.parameters()].flatMap(({ grad }) => grad?.flatten().toList() ?? []);
      for (const parameter of [...model.network.parameters(), ...model.preconditioning.parameters()])
        parameter.grad = null;
      return found as number[];
    };
    const told: string[] = [];
    let reduces = true;
    const reducer = {
      group: { worldSize: 1 },
      prepareForForward: () => told.push(`forward, ${reduces}`),
      backward(loss: Tensor) {
        told.push(`backward, ${reduces}`);
        loss.backward();
      },
      noSync(body: () => unknown) {
        reduces = false;
        const result = body();
        reduces = true;
        return result;
      },
    } as unknown as DistributedReducer;
    const whole = gradients(1);
    const parts = gradients(3, reducer);
    expect(told).toEqual([false, false, true].flatMap((is) => [`forward, ${is}`, `backward, ${is}`]));
    expect(parts).toHaveLength(whole.length);
    expect(Math.max(...whole)).toBeGreaterThan(0.01);
    parts.forEach((value, i) => void expect(value).toBeCloseTo(whole[i]!, 5));
  });
});
