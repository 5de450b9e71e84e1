import { truncateSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { indexShards } from "../../data/dataset/index-shards.js";
import { copyPublished, recorded } from "../../data/dataset/testing/published.js";
import { loadRecipe, parseRecipe } from "../recipes/recipe.js";
import { tinyRecipeJson } from "../testing/tiny.js";
import { dryRun } from "./dry-run.js";

const { scores } = recorded();
const copies: { path: string; remove(): void }[] = [];
const fresh = () => {
  const copy = copyPublished();
  copies.push(copy);
  return copy.path;
};
afterEach(() => {
  for (const copy of copies.splice(0)) copy.remove();
});

/** A recipe whose network fits the published shards in a folder. */
function fitting(dir: string, data: object = {}, network: object = {}) {
  const json = tinyRecipeJson({}, { loss: {}, data: { kind: "shards", dir, root: ["cc12m", "laion"], ...data } });
  const sizes = { data_size: 8, label_dim: 16, num_cond_tokens: 20, coherence_keys: scores };
  return parseRecipe({ ...json, network: { ...(json.network as object), ...sizes, ...network } });
}

const found = async (recipe: ReturnType<typeof fitting>) => {
  const { data } = await dryRun(recipe);
  return { ...data, about: (subject: RegExp) => data.checks.filter((check) => subject.test(check.subject)) };
};

describe("a dry run", () => {
  it("plans the paper's reference run: 2 nodes of 8 GPUs", async () => {
    const report = await dryRun(loadRecipe("multi_cad_synth", ["trainer.devices=8", "trainer.num_nodes=2"]));
    expect(report.size.groups).toEqual({ decayed: 360_098_816 + 129, plain: 312_848 });
    expect(report.size.network).toMatchObject({ trainable: 360_411_664, buffers: 4096, tensors: 161 + 295 });
    expect(report.batch).toEqual({ batchSize: 1024, worldSize: 16, deviceBatchSize: 64, accumulateGradBatches: 1 });
    expect(report.flops.perSample / 1e12).toBeCloseTo(0.75, 2);
    expect(report.flops.perDeviceStep).toBe(report.flops.perSample * 64);
    expect(report.memory.weights + report.memory.averages + report.memory.optimizer).toBeCloseTo(4 * 4 * 360.415e6, -6);
  });

  it("finds published shards ready, and names what the first start would make", async () => {
    const dir = fresh();
    const before = await found(fitting(dir));
    expect(before.ready).toBe(true);
    expect(before.samples).toBeNull();
    expect(before.about(/tables/)).toMatchObject([
      { status: "note", remedy: expect.stringMatching(/^miro index .*cc12m/) },
    ]);
    expect(before.about(/wids-index/).length).toBe(2);

    await indexShards({
      folders: ["cc12m", "laion"].map((name) => join(dir, name)),
      bins: true,
      scores: [...scores],
      syntheticProb: 0,
    });
    const after = await found(fitting(dir));
    expect(after.about(/tables|wids-index/)).toEqual([]);
    expect(after.about(/bin edges/)).toMatchObject([{ status: "ok" }]);
    expect(after.samples).toBeGreaterThan(4);
    expect((await found(fitting(dir, { num_bins: 32 }))).about(/bin edges/)).toMatchObject([
      { status: "note", remedy: expect.stringMatching(/--bins .*--num-bins 32/) },
    ]);
  });

  it("names missing folders, members, scores and sizes, each with what puts it right", async () => {
    const dir = fresh();
    const nowhere = await found(fitting(dir, { root: ["elsewhere"] }));
    expect(nowhere.ready).toBe(false);
    expect(nowhere.checks).toMatchObject([
      { status: "missing", subject: join(dir, "elsewhere"), finding: "not there" },
    ]);

    const other = await found(fitting(dir, { text_embedding_name: "t5_small" }));
    expect(other.about(/t5_small/)).toMatchObject([{ status: "missing", remedy: "miro preprocess --stage vae" }]);

    const score = await found(fitting(dir, {}, { coherence_keys: ["clip_score", "beauty_score"] }));
    expect(score.about(/score clip_score/)).toMatchObject([{ finding: expect.stringMatching(/samples looked at/) }]);
    expect(score.about(/beauty_score/)).toMatchObject([
      { status: "missing", remedy: "miro preprocess --stage rewards" },
    ]);

    const size = await found(fitting(dir, {}, { data_size: 16 }));
    expect(size.about(/members/)[0]).toMatchObject({
      status: "missing",
      finding: expect.stringMatching(/shape \(4, 8, 8\) in .*, the network takes \(4, 16, 16\)/),
    });
  });

  it("says which shard cannot be read", async () => {
    const dir = fresh();
    const broken = join(dir, "cc12m", "00000.tar");
    truncateSync(broken, 0);
    const { checks } = await found(fitting(dir, { on_bad_sample: "error", max_bad_rate: 1 }));
    expect(checks.some(({ subject, status }) => subject === broken && status === "missing")).toBe(true);
  });
});
