import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { REWARD_KEYS } from "../../networks/config.js";
import type { GenerateOptions } from "../../pipeline/generate-options.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { PictureFiles } from "../../pipeline/requests/picture-files.js";
import { checkedScorer, type Scorer } from "../../rewards/scorer.js";
import { parseAxis } from "./axis.js";
import { summariseSide, sweepFooter, sweepSheet, sweepToJson } from "./report.js";
import { runSweep, type SweepOptions } from "./run.js";

const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
const load = () =>
  MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
    dtype: "float32",
    textEncoder: `${tiny}/text_encoder`,
    vae: `${tiny}/vae`,
  });
const prompts = ["a cat", "two dogs on a sofa"];
const axis = (text: string) => parseAxis(text, "axis", prompts);
const settings = { steps: 2, guidanceScale: 1 };
const base: Omit<SweepOptions, "x"> = { prompts: ["a cat"], model: "tiny", load, settings };

/** The mean of all bytes: a judge that needs no weights. */
const brightness: Scorer = {
  key: "brightness",
  name: "mean of all bytes",
  usesText: false,
  score: async (images) => images.map(({ data }) => data.reduce((sum, value) => sum + value, 0) / data.length),
  dispose: () => {},
};

async function draw(pipe: MiroPipeline, prompt: string, options: GenerateOptions): Promise<Uint8Array> {
  const { images } = await pipe.generate(prompt, options);
  return images[0]!.data;
}

describe("runSweep", () => {
  it("draws in every place what a call with that place's settings draws", async () => {
    const [a] = REWARD_KEYS;
    const { cells } = await runSweep({
      ...base,
      prompts,
      x: axis(`reward.${a}=0,1`),
      y: axis("prompt"),
      settings: { ...settings, rewardTargets: { aesthetic_score: 0.25 } },
      seed: 5,
    });
    await using pipe = await load();
    for (const [row, prompt] of prompts.entries()) {
      for (const [column, target] of [0, 1].entries()) {
        const expected = await draw(pipe, prompt, {
          ...settings,
          seed: 5,
          rewardTargets: { aesthetic_score: 0.25, [a!]: target },
        });
        expect(Buffer.compare(cells[row]![column]!.images[0]!.data, expected)).toBe(0);
      }
    }
  });

  it("changes what the axis names, and nothing else", async () => {
    const { cells } = await runSweep({ ...base, x: axis("guidance=0,2"), y: axis("seed=3,4"), imagesPerCell: 2 });
    const settingsOf = (row: number, column: number, i: number) => cells[row]![column]!.images[i]!.settings;
    expect(cells.flat().map(({ images }) => images.map(({ seed }) => seed))).toEqual([
      [3, 4],
      [3, 4],
      [4, 5],
      [4, 5],
    ]);
    expect([settingsOf(0, 0, 0).guidanceScale, settingsOf(0, 1, 0).guidanceScale]).toEqual([0, 2]);
    expect({ ...settingsOf(0, 0, 0), guidanceScale: 2 }).toEqual(settingsOf(0, 1, 0));
    expect(Buffer.compare(cells[0]![1]!.images[1]!.data, cells[1]![1]!.images[0]!.data)).toBe(0);
  });

  it("draws variations of one picture in each place where pictures are varied", async () => {
    const settings = { ...base.settings, variationSeed: 9 };
    const { cells } = await runSweep({ ...base, settings, x: axis("variation_strength=0,1"), imagesPerCell: 2 });
    for (const { images } of cells.flat())
      expect(images.map(({ seed, settings }) => [seed, settings.variationSeed])).toEqual([
        [images[0]!.seed, 9],
        [images[0]!.seed, 10],
      ]);
    const [same, other] = cells[0]!.map(({ images: [first, second] }) => Buffer.compare(first!.data, second!.data));
    expect(same).toBe(0);
    expect(other).not.toBe(0);
  });

  it.each(["seed", "variation_seed"])("refuses a %s that no picture could store", async (name) => {
    const x = axis(`${name}=${Number.MAX_SAFE_INTEGER}`);
    await expect(runSweep({ ...base, x, imagesPerCell: 2 })).rejects.toThrow(
      /^\w+: expected at most 9007199254740990 for 2 pictures of each place, received 9007199254740991$/,
    );
  });

  it("sets both negative targets of a trade-off", async () => {
    const { cells } = await runSweep({ ...base, x: axis("tradeoff.clip_score.aesthetic_score=0,0.25") });
    expect(cells[0]!.map(({ images }) => images[0]!.settings.negativeRewardTargets)).toMatchObject([
      { clip_score: 0, aesthetic_score: 1 },
      { clip_score: 0.25, aesthetic_score: 0.75 },
    ]);
  });

  it("leaves out targets that a checkpoint of a comparison lacks, and says so", async () => {
    const known = await runSweep({
      ...base,
      x: axis("model=one,two"),
      settings: { ...settings, rewardTargets: { sharpness: 0.5, clip_score: 0.5 } },
    });
    expect(known.cells[0]!.map(({ ignoredRewards }) => ignoredRewards)).toEqual([["sharpness"], ["sharpness"]]);
    expect(known.cells[0]![0]!.images[0]!.settings.rewardTargets.clip_score).toBe(0.5);
    await expect(
      runSweep({ ...base, x: axis("seed=0"), settings: { ...settings, rewardTargets: { sharpness: 0.5 } } }),
    ).rejects.toThrow(/not trained on sharpness/);
  });

  it("goes on where an earlier run stopped, with the same pictures", async () => {
    const folder = mkdtempSync(join(tmpdir(), "miro-sweep-"));
    try {
      const options = { ...base, x: axis("seed=0:3"), scorers: [brightness] };
      const files = () => new PictureFiles({ output: folder, resume: true });
      const stop = new AbortController();
      const interrupted = runSweep({
        ...options,
        files: files(),
        signal: stop.signal,
        onProgress: ({ done }) => done === 2 && stop.abort(),
      });
      await expect(interrupted).rejects.toThrow(/abort/i);
      expect(readdirSync(folder).sort()).toEqual(["r1-c1.png", "r1-c2.png"]);
      const before = statSync(join(folder, "r1-c1.png")).mtimeMs;
      const resumed = await runSweep({ ...options, files: files() });
      expect(statSync(join(folder, "r1-c1.png")).mtimeMs).toBe(before);
      const whole = await runSweep(options);
      resumed.cells[0]!.forEach(({ images: [image] }, i) => {
        const expected = whole.cells[0]![i]!.images[0]!;
        expect(Buffer.compare(image!.data, expected.data)).toBe(0);
        expect(image!.scores).toEqual(expected.scores);
      });
      await expect(runSweep({ ...options, settings: { steps: 3 }, files: files() })).rejects.toThrow(
        /r1-c1\.png: .*steps/,
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("says at the foot what all places have in common, also where checkpoints have other defaults", async () => {
    const footer = async (options: Partial<SweepOptions>) =>
      sweepFooter(await runSweep({ ...base, settings: { steps: 2 }, x: axis("seed=5"), ...options }));
    expect(await footer({})).toMatch(/^checkpoint, 2 steps, euler, guidance [\d.]+, seed 5, miro-t2i /);
    expect(await footer({ x: axis("seed=5,6"), y: axis("guidance=0,1") })).toMatch(
      /^checkpoint, 2 steps, euler, miro-t2i \S+$/,
    );
    const { cells, ...rest } = await runSweep({ ...base, settings: { steps: 2 }, x: axis("model=one,two") });
    const [first, second] = cells[0]!;
    const [image] = second!.images;
    const slower = { ...image!, settings: { ...image!.settings, steps: 7 } };
    expect(sweepFooter({ ...rest, cells: [[first!, { ...second!, images: [slower] }]] })).not.toContain("steps");
  });

  it("reports the scores of every picture and their means along both sides", async () => {
    const result = await runSweep({
      ...base,
      x: axis("seed=0,1"),
      y: axis("guidance=0,3"),
      imagesPerCell: 2,
      scorers: [brightness],
    });
    const expected = await Promise.all(
      result.cells.flat().map(async ({ images }) =>
        brightness.score(
          images,
          images.map(() => ""),
        ),
      ),
    );
    expect(result.cells.flat().map(({ images }) => images.map(({ scores }) => scores.brightness))).toEqual(expected);
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const columns = summariseSide(result, "column").map(({ scores }) => scores.brightness!);
    expect(columns[0]).toBeCloseTo(mean([...expected[0]!, ...expected[2]!]), 10);
    expect(columns[1]).toBeCloseTo(mean([...expected[1]!, ...expected[3]!]), 10);
    const json = JSON.parse(JSON.stringify(sweepToJson(result)));
    expect(json.cells).toHaveLength(4);
    expect(json.scorers).toEqual({ brightness: { name: brightness.name } });
    expect(json.cells[3].images[1].scores.brightness).toBe(expected[3]![1]);
    const sheet = await sweepSheet(result, { title: "t" });
    expect(sheet.data.length).toBe(sheet.width * sheet.height * 3);
  });

  it("shows the best picture of each place and counts it alone, where that is asked for", async () => {
    const given = [2, 9, 4, Number.NaN, 1, 3];
    let calls = 0;
    const score = async () => [given[calls++]!];
    const odd = checkedScorer(
      { key: "odd", usesText: false },
      { name: "some", batchSize: 1, score, dispose: () => {} },
    );
    const call = { ...base, x: axis("guidance=0,3"), imagesPerCell: 3, scorers: [odd, brightness] };
    const result = await runSweep({ ...call, bestBy: "odd" });
    expect(result.cells.flat().map(({ best }) => best)).toEqual([1, 2]);
    const { cells } = JSON.parse(JSON.stringify(sweepToJson(result)));
    const [first, second] = result.cells.flat();
    expect(cells).toMatchObject([
      { best: 1, scores: { odd: 9, brightness: first!.images[1]!.scores.brightness } },
      { best: 2, scores: { odd: 3, brightness: second!.images[2]!.scores.brightness } },
    ]);
    expect(cells[0].images).toHaveLength(3);
    expect(summariseSide(result, "row").map(({ scores }) => scores.odd)).toEqual([6]);
    const { width } = first!.images[0]!;
    const sheet = Buffer.from((await sweepSheet(result, { cellSize: width })).data);
    const shown = first!.images.map(({ data }) => sheet.includes(Buffer.from(data.subarray(0, width * 3))));
    expect(shown).toEqual([false, true, false]);
    await expect(runSweep({ ...call, bestBy: "beauty" })).rejects.toThrow(
      "bestBy: expected the key of one of the scorers",
    );
  });

  it("leaves pictures that a scorer cannot judge out of the means, and says how many", async () => {
    let calls = 0;
    const score = async () => [calls++ === 3 ? 5 : Number.NaN];
    const odd = checkedScorer(
      { key: "odd", usesText: false },
      { name: "some", batchSize: 1, score, dispose: () => {} },
    );
    const result = await runSweep({ ...base, x: axis("seed=0,1"), imagesPerCell: 2, scorers: [odd] });
    expect(result.cells.flat().map(({ images }) => images.map(({ scores }) => scores.odd))).toEqual([
      [null, null],
      [null, 5],
    ]);
    expect(summariseSide(result, "column").map(({ scores }) => scores.odd)).toEqual([null, 5]);
    expect(summariseSide(result, "row").map(({ scores }) => scores.odd)).toEqual([5]);
    expect(result.warnings).toContainEqual("odd: 3 of 4 scores are not finite and left out of the means");
    expect((await sweepSheet(result)).width).toBeGreaterThan(0);
  });

  it("measures how far pictures are from where their steps lead", async () => {
    const settings = { guidanceScale: 1 };
    const { cells } = await runSweep({
      ...base,
      settings,
      x: axis("steps=2,100"),
      y: axis("sampler=euler,heun"),
      distance: true,
    });
    const [[few, many], [, limit]] = cells.map((row) => row.map(({ images }) => images[0]!.scores.distance!)) as [
      [number, number],
      [number, number],
    ];
    expect(limit).toBe(0);
    expect(many).toBeLessThan(few);
    const [drawn, converged] = [cells[0]![0]!, cells[1]![1]!].map(({ images }) => images[0]!.data);
    const square = drawn!.reduce((sum, value, i) => sum + (value - converged![i]!) ** 2, 0);
    expect(few).toBeCloseTo(Math.sqrt(square / drawn!.length), 10);
  });

  it("gives each sampler those options that it has", async () => {
    const { cells } = await runSweep({ ...base, x: axis("sampler=euler,euler_ancestral"), y: axis("eta=0.25,1") });
    const options = cells.map((row) => row.map(({ images }) => images[0]!.settings.samplerOptions));
    expect(options).toEqual([
      [undefined, { eta: 0.25 }],
      [undefined, { eta: 1 }],
    ]);
  });

  it("refuses fewer evaluations than one step of a sampler takes", async () => {
    await expect(runSweep({ ...base, x: axis("evaluations=1,2"), y: axis("sampler=euler,midpoint") })).rejects.toThrow(
      /^evaluations: expected at least 2, which one step of midpoint takes, received 1/,
    );
  });

  it.each([
    ["the same axis twice", { x: "seed=0", y: "seed=1" }, /change the same thing/],
    ["steps against evaluations", { x: "steps=1", y: "evaluations=1" }, /change the same thing/],
    ["prompts without a side", { x: "seed=0", y: "guidance=0" }, /axis prompt/],
  ])("refuses %s", async (_, { x, y }, message) => {
    await expect(runSweep({ ...base, prompts, x: axis(x), y: axis(y) })).rejects.toThrow(message);
  });
});
