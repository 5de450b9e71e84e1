// Gradients that are replayed from a recording are those that are computed operator by operator.
import { RendezvousStore } from "@miro-t2i/torch/distributed";
import { describe, expect, it } from "vitest";
import type { Capture } from "../../flow/recording.js";
import { rerun } from "../../flow/testing/rerun.js";
import { DataParallelGroup } from "../process-group/process-group.js";
import { tinyRecipe, tinyRecipeJson } from "../testing/tiny.js";
import { type Told, trained } from "../testing/trained.js";

let captures = 0;
const counted: Capture = (body) => {
  captures++;
  return rerun(body);
};

/** Texts of a length that needs no padding: padding changes how sums are rounded. */
const WHOLE = { data: { kind: "random", text_len: 16 } };

describe("captured gradients", () => {
  it.each<[string, object]>([
    ["in float32", {}],
    ["in accumulation steps, by one recording", { device_batch_size: 2 }],
    ["in bfloat16", { precision: "bf16-mixed" }],
    ["in float16, with overflows at first", { precision: "16-mixed", max_steps: 24, max_skipped_in_a_row: 99 }],
    ["where gradients are repaired", { zero_non_finite_gradients: true }],
  ])("%s: weights, moments, averages, log and warnings are the same", async (_, trainer) => {
    captures = 0;
    const captured = await trained(trainer, WHOLE, { capture: counted, readsLater: true });
    expect(captures).toBe(1);
    expect(captured.error).toBeNull();
    expect(captured).toEqual(await trained(trainer, WHOLE, { readsLater: true }));
    expect(captured.stored.length).toBeGreaterThan(2);
    if ("precision" in trainer && trainer.precision === "16-mixed")
      expect(captured.warnings.join()).toContain("overflow at the loss scale");
  });

  it("texts are padded to one length, which changes nothing but rounding", async () => {
    captures = 0;
    const captured = await trained({}, {}, { capture: counted });
    expect(captures).toBe(1);
    const alone = await trained({}, {});
    expect(captured.records.length).toBe(alone.records.length);
    captured.records.forEach((record, i) => {
      expect(record["train/loss"]).toBeCloseTo(alone.records[i]!["train/loss"] as number, 4);
    });
    expect(captured).toEqual(await trained({}, {}, { padsTexts: true }));
  });

  it("texts stay as they are where the network reads what is padded", async () => {
    const { network } = tinyRecipeJson();
    const concatenated = {
      ...(network as object),
      concat_cond_token_to_latents: true,
      use_self_conditioning: false,
      num_latents: 12,
    };
    const captured = await trained({}, { network: concatenated }, { capture: counted });
    expect(captured.error).toBeNull();
    expect(captured).toEqual(await trained({}, { network: concatenated }));
  });

  it("a step that is not finite is named with its own tensors", async () => {
    const trainer = { max_skipped_in_a_row: 3, checkpoint_every_n_steps: 1000, log_every_n_steps: 1000 };
    const rest = { ...WHOLE, optimizer: { name: "adamw", lr: 1e30 } };
    const alone = await trained(trainer, rest);
    expect(alone.error).toMatch(/^step 4: loss .*first the output of network\.\S+ .*the step was skipped, 3 in a row/);
    for (const readsLater of [true, false]) {
      const captured = await trained(trainer, rest, { capture: counted, readsLater });
      expect([captured.error, captured.warnings]).toEqual([alone.error, alone.warnings]);
    }
  });

  it("a recording that fails is said once, and the run goes on without", async () => {
    let tried = 0;
    const why = "operation not permitted when stream is capturing";
    const capture: Capture = (body) => {
      tried++;
      body(); // leaves gradients behind
      throw new Error(why);
    };
    const failed = await trained({}, WHOLE, { capture });
    const alone = await trained({}, WHOLE);
    expect(tried).toBe(1);
    expect(failed.warnings).toEqual([
      `trainer.cuda_graphs: recording a step failed (${why}); the run goes on without, which costs speed`,
    ]);
    expect({ ...failed, warnings: [] }).toEqual(alone);
  });

  it("is refused on a CPU", () => {
    expect(() => tinyRecipe({ cuda_graphs: true })).toThrow("trainer.cuda_graphs: expected false on cpu");
    expect(tinyRecipe({ cuda_graphs: true, device: "cuda", devices: 2 }).trainer.cudaGraphs).toBe(true);
  });
});

describe("captured gradients of several processes", () => {
  /** What is drawn for rows does not depend on how they are divided. */
  const REST = {
    ...WHOLE,
    network: { ...(tinyRecipeJson().network as object), coherence_dropout: 0 },
    optimizer: { name: "adamw", lr: 0.001 },
  };

  /** What each rank of a group tells. All ranks are in this process: no pass waits for another rank. */
  async function trainedTogether(trainer: object, captures: readonly Capture[]): Promise<Told[]> {
    const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true, timeoutMs: 60_000 });
    const groups: DataParallelGroup[] = [];
    try {
      const { strategy } = tinyRecipe().trainer;
      const together = { batch_size: 12, devices: captures.length, ...trainer };
      const place = {
        worldSize: captures.length,
        oneMachine: true,
        host: "127.0.0.1",
        port: store.port,
        serves: false,
      };
      const ranks = captures.map((_, rank) => ({ ...place, rank, localRank: rank }));
      const join = ranks.map((rank) => DataParallelGroup.join(rank, { device: "cpu", strategy }));
      groups.push(...(await Promise.all(join)));
      return await Promise.all(
        captures.map((capture, rank) => trained(together, REST, { capture, group: groups[rank]! })),
      );
    } finally {
      await Promise.all(groups.map((group) => group.leave()));
      store.close();
    }
  }

  it("are those of the whole batch: ranks have the same weights, and the losses of one process alone", async () => {
    const alone = await trained({ batch_size: 12 }, REST);
    for (const settings of [{}, { accumulate_grad_batches: 3 }]) {
      const told = await trainedTogether(settings, [counted, counted]);
      expect(told.map(({ error, warnings }) => [error, warnings])).toEqual([
        [null, []],
        [null, []],
      ]);
      expect(told[1]!.stored).toEqual(told[0]!.stored);
      expect(told[0]!.records.length).toBe(alone.records.length);
      told[0]!.records.forEach((record, i) => {
        expect(record["train/loss"]).toBeCloseTo(alone.records[i]!["train/loss"] as number, 4);
        expect(record["train/grad_norm"]).toBeCloseTo(alone.records[i]!["train/grad_norm"] as number, 4);
      });
    }
  });

  it("a rank that cannot record computes with the others, who do", async () => {
    const whole = await trainedTogether({}, [counted, counted, counted]);
    const why = "out of memory";
    const fails: Capture = () => {
      throw new Error(why);
    };
    const told = await trainedTogether({}, [counted, fails, counted]);
    expect(told[1]!.warnings).toEqual([
      `trainer.cuda_graphs: recording a step failed (${why}); the run goes on without, which costs speed`,
    ]);
    expect({ ...told[1]!, warnings: [] }).toEqual(whole[1]);
    expect(told[0]).toEqual(whole[0]);
  });
});
