import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cat, memory, randn, scope } from "@miro-t2i/torch";
import { readNpy } from "@miro-t2i/torch/io";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { InvalidInputError } from "../../errors.js";
import * as options from "../../options.js";
import { readPng } from "../../pictures/png.js";
import { MiroPipeline } from "../pipeline.js";
import { type DrawReport, DrawRequest, type LoadRanker } from "./draw-request.js";
import { planPictures } from "./plan-pictures.js";
import type { PromptRequest } from "./prompt-file.js";

const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
let pipe: MiroPipeline;
let folder: string;
beforeAll(async () => {
  pipe = await MiroPipeline.fromPretrained(`${tiny}/checkpoint`, {
    dtype: "float32",
    textEncoder: `${tiny}/text_encoder`,
    vae: `${tiny}/vae`,
  });
});
afterAll(() => pipe.dispose());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-request-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const requests = (...prompts: string[]): PromptRequest[] => prompts.map((prompt) => ({ prompt, options: {} }));
const shared = { options: { steps: 2, guidanceScale: 1 }, seed: 3 };
const draw = async (request: DrawRequest, hooks = {}) => {
  try {
    await request.claim();
    return await request.draw(pipe, hooks);
  } finally {
    request.release();
  }
};

describe("a request", () => {
  it("draws what generate draws, writes it and reports it in order", async () => {
    const pictures = planPictures(
      [
        { prompt: "a cat", options: { rewardTargets: { clip_score: 0.5 } } },
        { prompt: "a fox", options: { steps: 1 } },
        { prompt: "a dog", options: {} },
      ],
      shared,
    );
    const seen: [string, boolean][] = [];
    const steps = new Set<number>();
    const report = await draw(new DrawRequest({ pictures, files: { output: folder } }), {
      onPicture: ({ image, skipped }: { image: { prompt: string }; skipped: boolean }) =>
        void seen.push([image.prompt, skipped]),
      onStep: ({ images }: { images: readonly number[] }) => images.forEach((index) => void steps.add(index)),
    });
    expect(report).toMatchObject({ drawn: 3, skipped: 0, sheet: null, warnings: [] });
    expect(report.images.map(({ prompt, seed }) => [prompt, seed])).toEqual([
      ["a cat", 3],
      ["a fox", 4],
      ["a dog", 5],
    ]);
    expect(seen.map(([prompt]) => prompt).sort()).toEqual(["a cat", "a dog", "a fox"]);
    expect([...steps].sort()).toEqual([0, 1, 2]);
    const { images } = await pipe.generate("a cat", {
      steps: 2,
      guidanceScale: 1,
      seed: 3,
      rewardTargets: { clip_score: 0.5 },
    });
    expect(existsSync(report.images[0]!.path!)).toBe(true);
    await images[0]!.save(join(folder, "again.png"));
    expect(readFileSync(report.images[0]!.path!)).toEqual(readFileSync(join(folder, "again.png")));
  });

  it("checks each option once, and plans each group of pictures once", async () => {
    const parse = vi.spyOn(options, "parseOptions");
    const plan = vi.spyOn(pipe, "plan");
    const pictures = planPictures(requests("a cat", "a fox"), shared);
    await draw(new DrawRequest({ pictures }));
    expect(parse.mock.calls.filter(([schema]) => "imagesPerPrompt" in schema.shape).length).toBe(pictures.length);
    expect(plan).toHaveBeenCalledTimes(1);
    parse.mockRestore();
    plan.mockRestore();
  });

  it("resumed draws only what is missing, also the sheet of all", async () => {
    const make = (...prompts: string[]) =>
      new DrawRequest({
        pictures: planPictures(requests(...prompts), shared),
        files: { output: folder, resume: true },
        sheet: true,
      });
    const first = await draw(make("a cat"));
    const width = ({ sheet }: DrawReport) => readPng(readFileSync(sheet!), sheet!).width;
    const narrow = width(first);
    const second = await draw(make("a cat", "a fox"));
    expect(second).toMatchObject({ drawn: 1, skipped: 1, sheet: first.sheet });
    expect(width(second)).toBeGreaterThan(narrow);
    const third = await draw(make("a cat", "a fox"));
    expect(third).toMatchObject({ drawn: 0, skipped: 2, sheet: first.sheet });
    expect(third.images.map(({ skipped }) => skipped)).toEqual([true, true]);
    expect(readdirSync(folder).sort()).toEqual(["a-cat-seed3.png", "a-fox-seed4.png", "sheet.png"]);
  });

  it("names the line of what the checkpoint cannot do, before it draws", async () => {
    const pictures = planPictures(
      [
        { prompt: "a cat", options: {}, where: "p.jsonl:1" },
        { prompt: "a fox", options: { rewardTargets: { beauty: 1 } }, where: "p.jsonl:2" },
      ],
      shared,
    );
    const onStep = () => expect.unreachable("it draws");
    const error = await draw(new DrawRequest({ pictures, files: { output: folder } }), { onStep }).catch(
      (e: Error) => e,
    );
    expect(error).toBeInstanceOf(InvalidInputError);
    expect((error as Error).message).toMatch(/^p\.jsonl:2: rewardTargets: this checkpoint was not trained on beauty/);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("keeps the best of several and its latents, and frees everything else", async () => {
    const before = memory.stats().liveTensors;
    const noise = randn([4, ...pipe.latentShape]);
    let disposed = 0;
    /** The last candidate is the best. */
    const load: LoadRanker = async () => ({
      rank: async (images) => images.map((image, index) => ({ image, index, scores: { order: index } })).reverse(),
      dispose: () => void disposed++,
    });
    const latentsFile = join(folder, "latents.npy");
    const report = await draw(
      new DrawRequest({
        pictures: planPictures(requests("a cat", "a fox"), { ...shared, seed: null, candidates: 2 }),
        files: { output: folder },
        noise,
        bestOf: { count: 2, scorer: "order", load, keepAll: true },
        latentsFile,
      }),
    );
    expect(report.images.map(({ score, candidates }) => [score, candidates!.length])).toEqual([
      [1, 2],
      [1, 2],
    ]);
    const best = scope(() => cat([noise.narrow(0, 1, 1), noise.narrow(0, 3, 1)], 0));
    const { latents } = await pipe.generate(["a cat", "a fox"], { ...shared.options, noise: best, keepLatents: true });
    const stored = readNpy(latentsFile);
    expect(stored.toList()).toEqual(latents.toList());
    expect(disposed).toBe(1);
    for (const tensor of [latents, stored, noise, best]) tensor.dispose();
    expect(memory.stats().liveTensors).toBe(before);
  });

  it("resumes the best of several as long as the same model chose it, as far as the picture says", async () => {
    const make = (models?: Record<string, string>) =>
      new DrawRequest({
        pictures: planPictures(requests("a cat"), { ...shared, candidates: 2 }),
        files: { output: folder, resume: true },
        bestOf: {
          count: 2,
          scorer: "hpsv2_score",
          load: async () => ({
            models,
            rank: async (images) => images.map((image, index) => ({ image, index, scores: { hpsv2_score: 1 } })),
            dispose: () => {},
          }),
        },
      });
    const [ours, others] = [{ hpsv2_score: "HPSv2.1" }, { hpsv2_score: "HPSv2.0" }];
    expect(await draw(make())).toMatchObject({ drawn: 1 }); // as by a version that did not write it
    expect(await draw(make(ours))).toMatchObject({ skipped: 1 });
    rmSync(join(folder, readdirSync(folder)[0]!));
    expect(await draw(make(ours))).toMatchObject({ drawn: 1 });
    expect(await draw(make(ours))).toMatchObject({ skipped: 1 });
    await expect(draw(make(others))).rejects.toThrow(
      /bestOf\.models\.hpsv2_score is "HPSv2\.1" there and "HPSv2\.0" here/,
    );
  });

  it("refuses noise of another shape, and a file of latents that is there", async () => {
    const noise = randn([3, ...pipe.latentShape]);
    const pictures = planPictures(requests("a cat"), { ...shared, seed: null });
    await expect(draw(new DrawRequest({ pictures, noise }))).rejects.toThrow("noise: expected shape (1, 4, 8, 8)");
    noise.dispose();
    expect(() => new DrawRequest({ pictures, latentsFile: join(tiny, "reference.json") })).toThrow(/exists already/);
  });
});
