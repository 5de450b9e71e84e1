import { copyFileSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zeros } from "@miro-t2i/torch";
import { writeNpy } from "@miro-t2i/torch/io";
import { afterEach, describe, expect, it } from "vitest";
import { runCaptured } from "../../cli/testing/run-captured.js";
import { indexShards } from "../../data/dataset/index-shards.js";
import { copyPublished, recorded } from "../../data/dataset/testing/published.js";
import { TrainingSet } from "../../data/dataset/training-set.js";
import { TarFile } from "../../data/shards/tar-file.js";
import { MEAN, sampleFields, WIDTH, writeShard } from "../../data/shards/testing/make-shards.js";
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

  it("names the command that computes the very bin edges of the recipe", async () => {
    const dir = fresh();
    await runCaptured("index", ...["cc12m", "laion"].map((name) => join(dir, name)), "--quiet");
    const data = {
      num_bins: 8,
      bin_strategy: "refined_quantile",
      refine_last_n_bins: 2,
      refine_factor: 3,
      distinct: true,
      synthetic_embedding_prob: 0.5,
      score_mode: "original",
      max_samples_bin_estimation: 7,
      bin_seed: 3,
    };
    const bins = async () => (await found(fitting(dir, data))).about(/bin edges/)[0]!;
    const { status, remedy } = await bins();
    expect(status).toBe("note");
    const { code } = await runCaptured(
      ...String(remedy)
        .replace(/^miro /, "")
        .split(" "),
      "--quiet",
    );
    expect(code).toBe(0);
    expect(await bins()).toMatchObject({ status: "ok" });
  });

  it("notes shards that were begun and are missing, and no others", async () => {
    const dir = fresh();
    const begin = (name: string, content: object) =>
      writeFileSync(
        join(dir, "laion", `${name}.manifest.json`),
        JSON.stringify({ format: "miro-shard-manifest", stage: "vae", state: "writing", ...content }),
      );
    begin("00002", {}); // it is made again
    begin("00003", { state: "complete" });
    begin("00004_scores.rewards", { stage: "rewards" });
    const notes = async () => (await found(fitting(dir))).about(/laion$/).filter(({ status }) => status === "note");
    expect(await notes()).toEqual([]);
    for (const name of ["00008", "00005", "00007", "00006"]) begin(name, {});
    expect(await notes()).toMatchObject([
      {
        finding: "4 shards were begun and are missing (00005, 00006, 00007, …)",
        remedy: expect.stringContaining("miro preprocess again"),
      },
    ]);
  });

  it("counts the texts that are cut, those of synthetic captions where they are read", async () => {
    const dir = fresh();
    const lengths = (name: string) =>
      ["cc12m", "laion"].flatMap((root) =>
        readdirSync(join(dir, root))
          .filter((file) => file.endsWith(".tar"))
          .flatMap((file) => {
            const tar = TarFile.open(join(dir, root, file));
            tar.close();
            // Of float16 with 16 numbers a token, behind a header of 128 bytes.
            return tar.members.filter((one) => one.name.endsWith(`.${name}`)).map(({ size }) => (size - 128) / 32);
          }),
      );
    await indexShards({ folders: ["cc12m", "laion"].map((name) => join(dir, name)) });
    const own = lengths("flan_t5_xl_embeddings.npy");
    const all = [...own, ...lengths("synthetic_flan_t5_xl_embeddings.npy")];
    for (const [texts, synthetic_embedding_prob] of [
      [own, 0],
      [all, 0.5],
    ] as const) {
      const limit = Math.max(...texts) - 1;
      const long = texts.filter((length) => length > limit).length;
      const about = async (max_text_len: number) =>
        (await found(fitting(dir, { max_text_len, synthetic_embedding_prob }))).about(/^texts/);
      expect(await about(limit)).toMatchObject([
        {
          status: "note",
          finding: expect.stringMatching(`^${long} of ${texts.length} texts .* the longest has ${limit + 1}$`),
        },
      ]);
      expect(await about(limit + 1)).toEqual([]);
    }
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
      { status: "missing", remedy: "a number beauty_score in the samples' JSON" },
    ]);
    const scorer = await found(fitting(dir, {}, { coherence_keys: ["clip_score", "colorfulness"] }));
    expect(scorer.about(/colorfulness/)).toMatchObject([
      { status: "missing", remedy: "miro preprocess --stage rewards" },
    ]);

    const size = await found(fitting(dir, {}, { data_size: 16 }));
    expect(size.about(/members/)[0]).toMatchObject({
      status: "missing",
      finding: expect.stringMatching(/shape \(4, 8, 8\) in .*, the network takes \(4, 16, 16\)/),
    });
  });

  it("finds that no sample can be read where every shard is empty, and says so where the first of them is", async () => {
    const dir = fresh();
    const empty = Buffer.alloc(10_240); // the end of an archive
    const root = ["empty"];
    mkdirSync(join(dir, "empty"));
    writeFileSync(join(dir, "empty", "0.tar"), empty);
    const none = await found(fitting(dir, { root }));
    expect(none.ready).toBe(false);
    expect(none.about(/^samples/)).toMatchObject([
      { status: "missing", finding: "none can be read in 1 shard looked at" },
    ]);
    expect(none.about(/npy|score/)).toEqual([]);
    const [shard] = readdirSync(join(dir, "cc12m")).filter((name) => name.endsWith(".tar"));
    copyFileSync(join(dir, "cc12m", shard!), join(dir, "empty", "1.tar"));
    const first = await found(fitting(dir, { root }));
    expect(first.ready).toBe(true);
    expect(first.about(/^samples/)).toMatchObject([{ status: "note" }]);
  });

  it("counts the samples that training sees, and finds too few of them for a batch", async () => {
    const dir = fresh();
    await indexShards({ folders: ["cc12m", "laion"].map((name) => join(dir, name)) });
    const { options, passing } = recorded().batches.strict!;
    const filters = { require_picture_and_caption: true, ...options };
    const report = await found(fitting(dir, filters));
    expect(report.samples).toBe(passing.length);
    expect(report.about(/^samples/)).toMatchObject([
      { status: "ok", finding: expect.stringMatching(/^16 of 32 have .* \(.*clip_filter_threshold 0\.3/) },
    ]);
    expect(report.about(/^filters/)).toMatchObject([
      { status: "note", finding: expect.stringMatching(/^1 of 32 samples has no width .* whatever the scores/) },
    ]);
    // The start says it too, and neither does where no threshold is set.
    const open = async (thresholds: object) => {
      const messages: string[] = [];
      const run = { scores: [...scores], seed: 1, batchSize: 4 };
      const onMessage = (text: string) => void messages.push(text);
      const root = ["cc12m", "laion"].map((name) => join(dir, name));
      (await TrainingSet.open({ root, ...thresholds }, run, { onMessage })).close();
      return messages.filter((text) => text.includes("width and height"));
    };
    expect(await open({ clipFilterThreshold: 0.3 })).toEqual([expect.stringMatching(/laion: 1 of 32 samples has no/)]);
    expect(await open({})).toEqual([]);
    const trained = (batch: number, more: object = {}) => ({ ...fitting(dir, filters), ...more, ...batchOf(batch) });
    const batchOf = (batchSize: number) => ({ trainer: { ...fitting(dir).trainer, batchSize } });
    expect((await found(trained(16))).ready).toBe(true);
    expect((await found(trained(17))).about(/^samples/)).toMatchObject([
      { status: "missing", finding: expect.stringMatching(/^16 of 32 .*, fewer than the 17 of trainer\.batch_size/) },
    ]);
    const validation = { everyNSteps: 1, batches: 1, root: "laion" };
    expect((await found(trained(7, { validation }))).ready).toBe(true);
    expect((await found(trained(8, { validation }))).about(/^validation samples/)).toMatchObject([
      { status: "missing", finding: expect.stringMatching(/^7 of 8 .*, fewer than the 8 of validation\.batch_size/) },
    ]);
    // Its batches are as large as what a device computes at once, or as is said.
    const inTwoSteps = { ...trained(8, { validation }), trainer: { ...batchOf(8).trainer, accumulateGradBatches: 2 } };
    expect((await found(inTwoSteps)).ready).toBe(true);
    expect((await found(trained(8, { validation: { ...validation, batchSize: 7 } }))).ready).toBe(true);
  });

  it("finds a reward without two different values, which has no bins", async () => {
    const dir = fresh();
    await writeShard(join(dir, "00000.tar"), 0, 4, (sample) => ({
      json: Buffer.from(JSON.stringify({ clip_score: sample, mood: 0.5 })),
      "vae_embeddings_std_256.npy": sampleFields(sample)[MEAN]!,
    }));
    await indexShards({ folders: [dir] });
    const sizes = { data_size: 3, patch_size: 1, label_dim: WIDTH, coherence_keys: ["clip_score", "mood"] };
    const data = { root: "00000.tar", min_image_size: 0 };
    expect((await found(fitting(dir, data, sizes))).checks.filter(({ status }) => status === "missing")).toMatchObject([
      { subject: "score mood", finding: expect.stringMatching(/is 0\.5 in every sample/) },
    ]);
    for (const other of [{ bin_coherence: false }, { distinct: true }])
      expect((await found(fitting(dir, { ...data, ...other }, sizes))).ready, JSON.stringify(other)).toBe(true);
  });

  it("looks into the file of the empty prompt", async () => {
    const dir = fresh();
    const file = join(dir, "uncond.npy");
    const about = async () => (await found(fitting(dir, { uncond_embedding: file }))).about(/uncond/);
    expect(await about()).toMatchObject([{ status: "missing", finding: expect.stringMatching(/no such file/) }]);
    for (const [shape, status] of [
      [[2, 16], "ok"],
      [[1, 2, 16], "ok"],
      [[16], "ok"],
      [[2, 15], "missing"],
      [[0, 16], "missing"],
    ] as const) {
      writeNpy(file, zeros([...shape]));
      expect(await about(), String(shape)).toMatchObject([{ status }]);
    }
    writeNpy(file, zeros([1, 16]).div(0));
    expect(await about()).toMatchObject([{ status: "missing", finding: expect.stringMatching(/that are not finite/) }]);
  });

  it("says which shard cannot be read", async () => {
    const dir = fresh();
    const broken = join(dir, "cc12m", "00000.tar");
    truncateSync(broken, 0);
    const { checks } = await found(fitting(dir, { on_bad_sample: "error", max_bad_rate: 1 }));
    expect(checks.some(({ subject, status }) => subject === broken && status === "missing")).toBe(true);
  });
});
