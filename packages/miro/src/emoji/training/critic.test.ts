import { aten, manualSeed, nn, noGrad, rand, randn, scope, type Tensor } from "@miro-t2i/torch";
import { AdamW } from "@miro-t2i/torch/optim";
import { describe, expect, it } from "vitest";
import { PatchAutoencoder } from "../../autoencoder/patch-autoencoder.js";
import { JudgedAutoencoder } from "./autoencoder.js";
import { PatchCritic } from "./critic.js";

const { avgPool2d, interpolate } = nn.functional;

/** Pictures (B, 3, 32, 32) of coarse squares, and the same without their edges. */
function pictures(batch: number): { sharp: Tensor; soft: Tensor } {
  const squares = rand([batch, 3, 4, 4]).mul(2).sub(1);
  return {
    sharp: interpolate(squares, { scaleFactor: 8, mode: "nearest" }),
    soft: interpolate(squares, { scaleFactor: 8, mode: "bilinear" }),
  };
}

describe("PatchCritic", () => {
  it("gives one number for each 8 × 8 pixels and sees no farther than 20 of them", () => {
    scope(() =>
      noGrad(() => {
        manualSeed(0);
        const critic = new PatchCritic();
        const x = randn([1, 3, 64, 64]);
        const judged = critic.forward(x);
        expect(judged.shape).toEqual([1, 1, 8, 8]);
        const changed = x.clone();
        changed.narrow(3, 0, 12).add_(1);
        const moved = critic.forward(changed).sub(judged).abs().sum([0, 1, 2]).gt(0).toList();
        expect(moved).toEqual([true, true, true, true, false, false, false, false]);
      }),
    );
  });

  it("learns to tell sharp from soft pictures, and its slope then points from soft to sharp", () => {
    manualSeed(0);
    const critic = new PatchCritic();
    const optimizer = new AdamW([...critic.parameters()], { lr: 2e-3 });
    const losses = Array.from({ length: 60 }, () =>
      scope(() => {
        const { sharp, soft } = pictures(4);
        const loss = critic.loss(soft, sharp);
        loss.backward();
        optimizer.step();
        optimizer.zeroGrad();
        return loss.item();
      }),
    );
    expect(losses[0]).toBeGreaterThan(0.5);
    expect(losses.at(-1)).toBeLessThan(0.2);
    scope(() => {
      const { sharp, soft } = pictures(8);
      const slope = critic.slope(soft, sharp);
      expect(slope.shape).toEqual(soft.shape);
      const told = (x: Tensor) =>
        noGrad(() =>
          aten
            .softplus(critic.forward(sharp).sub(critic.forward(x)))
            .mean()
            .item(),
        );
      const step = 0.01;
      const direction = slope.div(slope.norm());
      const rise = (told(soft.add(direction.mul(step))) - told(soft.sub(direction.mul(step)))) / (2 * step);
      expect(rise / slope.norm().item()).toBeCloseTo(1, 1);
    });
  });
});

describe("the adversarial term", () => {
  it("is 0, and its gradient is as long as that of the others and reaches the autoencoder alone", () => {
    scope(() => {
      manualSeed(0);
      const judged = new JudgedAutoencoder(new PatchAutoencoder());
      const x = pictures(2).sharp;
      const drawn = avgPool2d(x, 2).mul(0.9);
      const reconstruction = interpolate(drawn, { scaleFactor: 2, mode: "bilinear" }).requiresGrad_();
      const others = reconstruction.sub(x).square().mean();
      const term = judged.adversarialTerm(reconstruction, x, others);
      expect(term.item()).toBe(0);
      term.backward();
      const length = reconstruction.grad!.norm().item();
      for (const { grad } of judged.critic.parameters()) expect(grad).toBeNull();
      reconstruction.grad!.zero_();
      others.backward();
      expect(length).toBeCloseTo(reconstruction.grad!.norm().item(), 6);
    });
  });
});
