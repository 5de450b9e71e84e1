// On a GPU the figures of a step are read when the gradients of the next one are queued. What is computed is the same.
import { describe, expect, it } from "vitest";
import { trained } from "../testing/trained.js";

describe("figures that are read one step later", () => {
  it.each([
    ["in float32, in accumulation steps", { device_batch_size: 2 }, {}],
    ["in float16, with overflows at first", { precision: "16-mixed", max_steps: 24, max_skipped_in_a_row: 99 }, {}],
    [
      "with averages that move in skipped steps, too",
      { precision: "16-mixed" },
      { ema: { decay: 0.9, update_on_skipped_steps: true } },
    ],
  ])("%s: weights, moments, averages, log and warnings are the same", async (_, trainer, rest) => {
    const [later, atOnce] = [await trained(trainer, rest, { readsLater: true }), await trained(trainer, rest)];
    expect(later.error).toBeNull();
    expect({ ...later, losses: [], taken: [] }).toEqual({ ...atOnce, losses: [], taken: [] });
    expect(later.stored.length).toBeGreaterThan(2);
    expect(later.losses.length).toBe(atOnce.losses.length);
    expect(later.losses.every(Number.isFinite)).toBe(atOnce.losses.every(Number.isFinite));
    if ("precision" in trainer) expect(later.warnings.join()).toContain("overflow at the loss scale");
  });

  it("are logged once the next step is queued, and before a checkpoint", async () => {
    const [later, atOnce] = [await trained({}, {}, { readsLater: true }), await trained({}, {})];
    expect(later.records.map(({ step }) => step)).toEqual([2, 4, 6, 8]);
    expect(atOnce.taken).toEqual([2, 4, 6, 8]);
    expect(later.taken).toEqual([3, 4, 7, 8]); // there are checkpoints of steps 4 and 8
  });

  it("a step that is not finite is named with its own tensors, and the run ends after as many in a row", async () => {
    const trainer = { max_skipped_in_a_row: 3, checkpoint_every_n_steps: 1000, log_every_n_steps: 1000 };
    const rest = { optimizer: { name: "adamw", lr: 1e30 } };
    const [later, atOnce] = [await trained(trainer, rest, { readsLater: true }), await trained(trainer, rest)];
    expect(atOnce.error).toMatch(/^step 4: loss .*first the output of network\.\S+ .*the step was skipped, 3 in a row/);
    expect(later.error).toBe(atOnce.error);
    expect(later.warnings).toEqual(atOnce.warnings);
    expect(later.warnings.length).toBe(2);
  });
});
