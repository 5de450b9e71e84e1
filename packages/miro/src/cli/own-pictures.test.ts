/** From a folder of pictures to a picture by a reward of one's own: numbers in the samples' JSON are enough. */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCaptured } from "./testing/run-captured.js";

const COUNT = 12;
const folder = mkdtempSync(join(tmpdir(), "miro-own-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (...path: string[]) => join(folder, ...path);
const recipe = at("mine.yaml");

/** Runs a command that must succeed. */
async function miro(...args: readonly string[]) {
  const captured = await runCaptured(...args);
  expect(captured.code, captured.stderr).toBe(0);
  return captured;
}

const recipeText = (keys: string) => `extends: emoji-shards
name: mine
data: { root: ${at("shards")}, synthetic_embedding_prob: 0, num_bins: 4, score_columns: [${keys}] }
network: { coherence_keys: [${keys}], num_blocks: 1, num_latents: 8, latents_dim: 32, data_dim: 32 }
lr_scheduler: { warmup_steps: 1 }
trainer: { max_steps: 3, batch_size: 4, replicas: 1, log_every_n_steps: 1 }
logger: { tensorboard: false, peak_tflops: 1 }
samples: { every_n_steps: 3, steps: 1, prompts: [a fox] }
`;

beforeAll(async () => {
  mkdirSync(at("pictures"));
  for (let i = 0; i < COUNT; i++) {
    const create = { width: 64, height: 64, channels: 3 as const, background: { r: 20 * i, g: 90, b: 200 } };
    await sharp({ create })
      .jpeg()
      .toFile(at("pictures", `${i}.jpg`));
    writeFileSync(at("pictures", `${i}.txt`), "a fox");
    // One reward in tenths, one that is the same for all, and what is no number.
    writeFileSync(at("pictures", `${i}.json`), JSON.stringify({ mood: i / 10, flat: 1, by: "me" }));
  }
  await miro(
    ...["preprocess", "--stage", "vae", "--missing-scores", "allow", "--src", at("pictures"), "--dest", at("shards")],
    ...["--model", "models/miro-emoji", "--no-vae-512", "--workers", "1", "--threads", "1"],
  );
  writeFileSync(recipe, recipeText("mood"));
});

describe("a reward of one's own", { timeout: 180_000 }, () => {
  it("is named where it is missing, with the numbers that there are", async () => {
    writeFileSync(at("other.yaml"), recipeText("beauty"));
    const dry = await runCaptured("train", at("other.yaml"), "--dry-run");
    expect(dry.code).toBe(1);
    expect(dry.stdout).toMatch(/MISSING +score beauty: in none of 12 samples looked at; numbers are in mood, flat,/);
    const trained = await runCaptured("train", at("other.yaml"), "--output", at("runs", "other"));
    expect(trained.code).toBe(2);
    expect(trained.stderr).toMatch(/beauty: no bins can be made, no sample has one \(numbers are in mood, flat\)/);
    writeFileSync(at("flat.yaml"), recipeText("flat"));
    const flat = await runCaptured("train", at("flat.yaml"), "--output", at("runs", "flat"));
    expect(flat.stderr).toMatch(/flat: no bins can be made, all 12 sampled values are 1/);
    const unnamed = await runCaptured("index", at("shards"), "--bins");
    expect(unnamed).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /no sample's metadata has the score of a scorer.*numbers are in mood, flat; .*--scores/,
      ),
    });
  });

  it("is binned as its recipe says", async () => {
    const { stdout } = await miro("index", "--bins", "--recipe", recipe, "--json");
    const { folders, bins } = JSON.parse(stdout);
    expect(folders).toMatchObject([{ folder: at("shards"), samples: COUNT }]);
    expect(Object.keys(bins.edges)).toEqual(["mood"]);
    expect(bins.edges.mood).toHaveLength(5);
    const report = await miro("train", recipe, "--dry-run", "--json");
    expect(JSON.parse(report.stdout).data.checks).toContainEqual(
      expect.objectContaining({ status: "ok", subject: "bin edges", finding: bins.file }),
    );
    expect(await runCaptured("index", "--bins")).toMatchObject({ code: 2, stderr: expect.stringMatching(/--recipe/) });
    expect(await runCaptured("index", "--bins", "--recipe", "emoji")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/data\.kind emoji; only shards are indexed/),
    });
  });

  it("is planned for: batch, steps and schedule of so few pictures", async () => {
    writeFileSync(at("large.yaml"), recipeText("mood").replace("batch_size: 4", "batch_size: 64"));
    const { stdout, stderr } = await miro("train", at("large.yaml"), "seed=2", "--plan", "--json");
    expect(stderr).toMatch(/measuring steps/);
    const plan = JSON.parse(stdout);
    // 12 pictures are seen 25 · √(8192 / 12) times, 8 at a time.
    expect(plan).toMatchObject({
      overrides: { "trainer.batch_size": 8, "trainer.max_steps": 980 },
      batch: { batchSize: 8 },
      data: { samples: COUNT },
      time: { how: "measured" },
    });
    expect(plan.totalSeconds).toBeCloseTo(980 * plan.time.secondsPerStep, 6);
    expect(plan.time.steps).toBeGreaterThanOrEqual(3);
    expect(plan.command).toMatch(/^miro train \S+large\.yaml seed=2 trainer\.batch_size=8 .*trainer\.max_steps=980/);
    // What was given stays.
    const kept = await miro("train", recipe, "trainer.max_steps=40", "trainer.threads=1", "--plan");
    expect(kept.stdout).toMatch(/^ {2}steps +40: 13\.3 passes over the data$/m);
    expect(kept.stdout).not.toMatch(/trainer\.(?:threads|replicas)=[^1]/);
    // From shards without samples nothing follows.
    mkdirSync(at("empty"));
    writeFileSync(at("empty", "0.tar"), new Uint8Array(1024));
    const none = await runCaptured("train", recipe, `data.root=${at("empty")}`, "--plan");
    expect(none).toMatchObject({ code: 1, stdout: expect.stringMatching(/steps +3$/m) });
    expect(none.stderr).toMatch(/cannot start: .* missing: samples/);
    const dry = await runCaptured("train", recipe, `data.root=${at("empty")}`, "--dry-run");
    expect(dry.stdout).toMatch(/^ {4}0 samples$/m);
    // A device of another machine: by what it is said to do, or not at all.
    const elsewhere = ["trainer.device=cuda:7", "--plan"];
    expect((await miro("train", recipe, ...elsewhere)).stdout).toMatch(/s a step, estimated at 0\.5 TFLOP\/s/);
    writeFileSync(at("silent.yaml"), recipeText("mood").replace(", peak_tflops: 1", ""));
    expect((await miro("train", at("silent.yaml"), ...elsewhere)).stdout).toMatch(
      /not known: this machine has no cuda:7/,
    );
  });

  it("trains, in two processes with a scorer of one's own too, and draws", async () => {
    writeFileSync(
      at("red.mjs"),
      `export default { key: "redness", name: "red", description: "red", stage: "rewards", usesText: false,
        load: async () => ({ name: "red", batchSize: 4, score: (all) => all.map(({ data }) => data[0]), dispose() {} }) };`,
    );
    const program = fileURLToPath(new URL("../../bin/miro.mjs", import.meta.url));
    const words = ["trainer.devices=2", "samples.scorers=[redness]", "--scorer-module", at("red.mjs")];
    const args = [program, "train", recipe, ...words, "--output", at("runs", "mine")];
    await promisify(execFile)(process.execPath, args);
    const log = readFileSync(at("runs", "mine", "log.jsonl"), "utf8");
    expect(log).toMatch(/"samples\/redness":\d/);
    const model = at("runs", "mine", "export");
    expect(existsSync(model)).toBe(true);

    const draw = ["a fox", "--model", model, "--steps", "1", "--threads", "1", "--output", at("drawn"), "--json"];
    const { stdout } = await miro("generate", ...draw, "--reward", "mood=0.8");
    const [{ path }] = JSON.parse(stdout).images;
    const info = JSON.parse((await miro("info", path, "--json")).stdout);
    expect(JSON.stringify(info)).toMatch(/"mood":0\.8/);
    const unknown = await runCaptured("generate", "a fox", "--model", model, "--reward", "clip_score=1");
    expect(unknown).toMatchObject({ code: 2, stderr: expect.stringMatching(/clip_score.*mood/) });
  });
});
