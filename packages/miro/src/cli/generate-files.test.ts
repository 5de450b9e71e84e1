/**
 * What `miro generate` does with files: drawn again, resumed, named, in other formats, chosen among several,
 * interrupted.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readImageFile } from "../pictures/image-files.js";
import { encodePng } from "../pictures/png.js";
import { type ImageSettings, readSettings } from "../pipeline/settings.js";
import { runCaptured as miro } from "./testing/run-captured.js";

const tiny = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny", import.meta.url));
const model = ["--model", `${tiny}/checkpoint`, "--text-encoder", `${tiny}/text_encoder`, "--vae", `${tiny}/vae`];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-files-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const generate = (...args: string[]) =>
  miro("generate", ...model, "--steps", "2", "--dtype", "float32", "--output", folder, ...args);
const at = (name: string) => join(folder, name);
const settingsOf = async (path: string) => readSettings((await readImageFile(path)).text, path);

/** Puts other settings into a picture's file. */
async function forge(path: string, change: (settings: Record<string, unknown>) => void) {
  const settings = structuredClone(await settingsOf(path)) as unknown as Record<string, unknown>;
  change(settings);
  writeFileSync(path, encodePng(new Uint8Array(3), 1, 1, [{ keyword: "miro", text: JSON.stringify(settings) }]));
}

describe("--from", () => {
  const drawn = () =>
    generate("a cat", "--seed", "5", "--reward", "clip_score=0.25", "--guidance", "3", "--guidance-window", "0:1");

  it("without changes draws the same bytes, with the settings and the weights that the picture names", async () => {
    expect((await drawn()).code).toBe(0);
    const again = await miro("generate", "--from", at("a-cat-seed5.png"), "--output", at("again"));
    expect(again).toMatchObject({ code: 0, stdout: `${at("again/a-cat-seed5.png")}\n` });
    expect(again.stderr).not.toContain("warning");
    expect(readFileSync(at("again/a-cat-seed5.png"))).toEqual(readFileSync(at("a-cat-seed5.png")));
  });

  it("with changes keeps the rest, from WebP as well", async () => {
    await generate("a cat", "--seed", "5", "--reward", "clip_score=0.25", "--guidance", "3", "--format", "webp");
    const changes = ["a fox", "--reward", "aesthetic_score=0.5", "--images", "2", "--steps", "3"];
    const { code } = await miro("generate", "--from", at("a-cat-seed5.webp"), "--output", folder, ...changes);
    expect(code).toBe(0);
    expect(await settingsOf(at("a-fox-seed6.png"))).toMatchObject({
      prompt: "a fox",
      seed: 6,
      steps: 3,
      guidanceScale: 3,
      rewardTargets: { clip_score: 0.25, aesthetic_score: 0.5, image_reward_score: 1 },
    });
  });

  it("draws with a sampler's own options again, and leaves them out with another sampler", async () => {
    const ancestral = ["--sampler", "euler_ancestral", "--eta", "0.25"];
    expect((await generate("a cat", "--seed", "5", ...ancestral)).code).toBe(0);
    const first = readFileSync(at("a-cat-seed5.png"));
    const from = ["generate", "--from", at("a-cat-seed5.png")];
    expect((await miro(...from, "--output", at("again"))).code).toBe(0);
    expect(readFileSync(at("again/a-cat-seed5.png")).equals(first)).toBe(true);
    expect((await miro(...from, "--output", at("more"), "--eta", "0.5")).code).toBe(0);
    expect(await settingsOf(at("more/a-cat-seed5.png"))).toMatchObject({ samplerOptions: { eta: 0.5 } });
    expect((await miro(...from, "--output", at("other"), "--sampler", "euler")).code).toBe(0);
    expect(await settingsOf(at("other/a-cat-seed5.png"))).not.toHaveProperty("samplerOptions");
    const refused = await miro(...from, "--output", at("x"), "--eta", "2");
    expect(refused).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: --eta: expected a number from 0 to 1/),
    });
  });

  it("refuses other weights, unless they are named", async () => {
    await drawn();
    const path = at("a-cat-seed5.png");
    await forge(path, (settings) => {
      (settings as unknown as ImageSettings).weights!.checkpoint.sha256 = "0".repeat(64);
    });
    const refused = await miro("generate", "--from", path, "--output", at("x"));
    expect(refused).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /^error: --model: .* was drawn by other weights than are here \(SHA-256 0000000000… then, [0-9a-f]{10}… now\)/,
      ),
    });
    const named = await miro("generate", "--from", path, "--output", at("x"), ...model);
    expect(named).toMatchObject({ code: 0, stderr: expect.stringMatching(/^warning: .* is not what drew /) });
  });

  it("draws the empty prompt of a program again, and on another device that is named", async () => {
    await drawn();
    const path = at("a-cat-seed5.png");
    await forge(path, (settings) => Object.assign(settings, { prompt: "", device: "cuda:99" }));
    const again = await miro("generate", "--from", path, "--output", at("x"), "--device", "cpu");
    expect(again).toMatchObject({ code: 0, stdout: `${at("x/picture-seed5.png")}\n` });
    expect(await settingsOf(at("x/picture-seed5.png"))).toMatchObject({ prompt: "", device: "cpu" });
    const typed = await miro("generate", "", "--from", path, "--output", at("x"), "--device", "cpu");
    expect(typed).toMatchObject({ code: 2, stderr: "error: PROMPT: expected a text, received an empty one\n" });
  });

  it("warns of other versions", async () => {
    await drawn();
    await forge(at("a-cat-seed5.png"), (settings) => {
      settings.versions = { miro: "0.0.1", torch: "2.11.0" };
    });
    const { code, stderr } = await miro("generate", "--from", at("a-cat-seed5.png"), "--output", at("x"));
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/^warning: .* was drawn by miro-t2i 0\.0\.1 with torch 2\.11\.0/),
    ]);
  });

  it.each<[string, (settings: Record<string, unknown>) => void, RegExp]>([
    [
      "an unknown setting",
      (s) => (s.turbo = true),
      /the stored setting "turbo" is not known to this version \(written by miro-t2i "0\.1\.0"\)/,
    ],
    ["absurd steps", (s) => (s.steps = 1e12), /the stored setting "steps" .* received 1000000000000/],
    [
      "a reward that is no number",
      (s) => (s.rewardTargets = { clip_score: "1" }),
      /"rewardTargets\.clip_score" .* received "1"/,
    ],
    [
      "an unknown sampler",
      (s) => (s.sampler = "magic"),
      /the stored setting sampler: expected one of .*, received "magic"/,
    ],
    [
      "an option that its sampler has not",
      (s) => (s.samplerOptions = { eta: 1 }),
      /the stored setting samplerOptions\.eta: expected an option of the sampler euler/,
    ],
    [
      "a window that ends before it begins",
      (s) => (s.guidanceWindow = [3, 1]),
      /the stored setting "guidanceWindow" expected the first and the last guided step.*, received \[3,1\] \(written/,
    ],
    [
      "a device that is not here",
      (s) => (s.device = "cuda:99"),
      /--device: .*\.png was drawn on "cuda:99", which is not available here; name one that is \(cpu.*\), on which/,
    ],
    ["a device that is none", (s) => (s.device = "tpu\u001b[2J"), /--device: .* is not available/],
    [
      "a hash that is none",
      (s) => ((s as never as ImageSettings).weights!.checkpoint.sha256 = "x"),
      /"weights\.checkpoint\.sha256"/,
    ],
    [
      "a model that is not there",
      (s) => ((s as never as ImageSettings).weights!.checkpoint.name = "/nowhere/x"),
      /--model: expected a folder or a repository/,
    ],
    ["given noise", (s) => (s.seed = null), /was drawn from given noise; give it with --init-noise/],
    ["a sheet", (s) => (s.sheet = []), /is a sheet of several pictures/],
  ])("refuses %s in one line", async (_, change, message) => {
    await drawn();
    await forge(at("a-cat-seed5.png"), change);
    const { code, stderr, stdout } = await miro("generate", "--from", at("a-cat-seed5.png"), "--output", at("x"));
    expect(stderr).toMatch(message);
    expect([code, stdout, stderr.trimEnd().split("\n").length]).toEqual([2, "", 1]);
    expect(existsSync(at("x"))).toBe(false);
  });

  it("refuses files without settings", async () => {
    writeFileSync(at("a.png"), encodePng(new Uint8Array(3), 1, 1));
    expect((await generate("--from", at("a.png"))).stderr).toMatch(/a\.png: holds no settings of miro/);
    expect((await generate("--from", at("none.png"))).stderr).toMatch(/none\.png: cannot be read/);
  });
});

describe("--prompts", () => {
  it("with settings a line: calls are shared, order is the file's", async () => {
    const lines = [
      { prompt: "a cat", seed: 3, steps: 3 },
      { prompt: "a fox", reward: { clip_score: 0.5 }, images: 2 },
      { prompt: "a cow", steps: 3, name: "cow-{steps}" },
    ];
    writeFileSync(at("p.jsonl"), lines.map((line) => JSON.stringify(line)).join("\n"));
    const { code, stdout } = await generate("--prompts", at("p.jsonl"), "--seed", "10", "--json");
    expect(code).toBe(0);
    const { images } = JSON.parse(stdout);
    expect(images.map(({ path }: { path: string }) => path)).toEqual(
      ["a-cat-seed3", "a-fox-seed11", "a-fox-seed12", "cow-3"].map((name) => at(`${name}.png`)),
    );
    const settings = await Promise.all(images.map(({ path }: { path: string }) => settingsOf(path)));
    expect(settings.map(({ seed, steps, rewardTargets }) => [seed, steps, rewardTargets.clip_score])).toEqual([
      [3, 3, 1],
      [11, 2, 0.5],
      [12, 2, 0.5],
      [13, 3, 1],
    ]);
  });

  it("may be more than a call takes arguments", async () => {
    writeFileSync(at("p.txt"), "a cat\n".repeat(150_000));
    const { code, stderr } = await generate("--prompts", at("p.txt"), "--reward", "beauty=1");
    expect([code, stderr]).toEqual([2, expect.stringMatching(/not trained on beauty/)]);
  });

  it("names the line of a reward that the checkpoint does not have", async () => {
    writeFileSync(at("p.csv"), "prompt,reward.beauty\na cat,\na fox,1\n");
    const { code, stderr } = await generate("--prompts", at("p.csv"));
    expect([code, stderr]).toEqual([2, expect.stringMatching(/p\.csv:3: rewardTargets: .* not trained on beauty/)]);
  });
});

describe("--resume", () => {
  it("draws what is missing, skips what is there, refuses what differs", async () => {
    await generate("a cat", "--images", "3");
    const kept = readFileSync(at("a-cat-seed0.png"));
    rmSync(at("a-cat-seed1.png"));
    const { code, stdout } = await generate("a cat", "--images", "3", "--resume", "--json");
    expect(code).toBe(0);
    const { images, skipped } = JSON.parse(stdout);
    expect(skipped).toBe(2);
    expect(images.map(({ skipped, seed }: { skipped?: true; seed: number }) => [seed, skipped ?? false])).toEqual([
      [0, true],
      [1, false],
      [2, true],
    ]);
    expect(readFileSync(at("a-cat-seed0.png"))).toEqual(kept);
    expect((await generate("a cat", "--images", "3", "--resume")).stderr).toMatch(/^0 pictures in .* 3 skipped/);

    const other = await generate("a cat", "--images", "4", "--resume", "--guidance", "2");
    expect(other).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /a-cat-seed0\.png: is another picture: guidanceScale is 7 there and 2 here; .*--overwrite/,
      ),
    });
    expect(existsSync(at("a-cat-seed3.png"))).toBe(false);
    expect((await generate("a cat", "--resume", "--overwrite", "--guidance", "2")).code).toBe(0);
    expect((await settingsOf(at("a-cat-seed0.png"))).guidanceScale).toBe(2);
    writeFileSync(at("a-cat-seed0.png"), kept.subarray(0, 100));
    expect((await generate("a cat", "--resume")).stderr).toMatch(/not a valid PNG.*--overwrite to replace it/);
  });

  it("cannot be combined with what cannot be compared", async () => {
    for (const flags of [
      ["--seed", "random"],
      ["--save-latents", at("l.npy")],
    ]) {
      expect(await generate("a cat", "--resume", ...flags)).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(/^error: --resume: /),
      });
    }
  });
});

describe("names, formats, seeds", () => {
  it("follow a template", async () => {
    const { code, stdout } = await generate(
      "a cat",
      "--images",
      "2",
      "--name",
      "{model}/{index}-{steps}-{reward.clip_score}.webp",
      "--format",
      "webp",
      "--reward",
      "clip_score=0.5",
    );
    expect([code, stdout]).toEqual([0, `${at("checkpoint/0-2-0.5.webp")}\n${at("checkpoint/1-2-0.5.webp")}\n`]);
    expect((await generate("a cat", "--name", "{promt}")).stderr).toMatch(
      /^error: --name: .* unknown field \{promt\}; there are \{prompt\}/,
    );
    expect((await generate("a cat", "--name", "{reward.beauty}")).stderr).toMatch(
      /--name: .* this checkpoint has clip_score/,
    );
  });

  it("jpeg by the name of the file; contradictions are refused", async () => {
    expect((await generate("a cat", "--output", at("one.jpg"), "--quality", "80")).code).toBe(0);
    expect((await readImageFile(at("one.jpg"))).format).toBe("jpeg");
    expect((await miro("info", at("one.jpg"))).stdout).toMatch(/format: jpeg\n[\s\S]*prompt: a cat\n/);
    expect((await generate("a cat", "--output", at("two.jpg"), "--format", "png")).stderr).toMatch(
      /^error: --format: png contradicts/,
    );
    expect((await generate("a cat", "--quality", "80")).stderr).toMatch(/^error: --quality: png keeps every pixel/);
    expect((await generate("a cat", "--format", "gif")).stderr).toMatch(
      /^error: --format: expected one of png, webp, jpeg/,
    );
  });

  it("a random seed is printed, stored, and another one each time", async () => {
    const seeds = new Set<number>();
    for (let i = 0; i < 2; i++) {
      const { stderr, stdout } = await generate("a cat", "--seed", "random", "--json");
      const printed = Number(/^seed (\d+)\n/.exec(stderr)![1]);
      const [{ path, seed }] = JSON.parse(stdout).images;
      expect([seed, (await settingsOf(path)).seed]).toEqual([printed, printed]);
      seeds.add(printed);
    }
    expect(seeds.size).toBe(2);
  });
});

describe("--best-of", () => {
  const best = (...args: string[]) =>
    generate("a cat", "--best-of", "3", "--by", "sharpness", "--seed", "4", "--json", ...args);

  it("writes the best, which is that of its seed, and reports all scores", async () => {
    const { code, stdout } = await best();
    expect(code).toBe(0);
    const [image] = JSON.parse(stdout).images;
    expect(image.path).toBe(at("a-cat-seed4-best-of-3.png"));
    expect(image.candidates.map(({ seed }: { seed: number }) => seed).sort()).toEqual([4, 5, 6]);
    const scores = image.candidates.map(({ scores }: { scores: { sharpness: number } }) => scores.sharpness);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    expect(image.score).toBe(scores[0]);
    const { bestOf, ...settings } = await settingsOf(image.path);
    expect(bestOf).toEqual({
      count: 3,
      seed: 4,
      scorer: "sharpness",
      scores: { sharpness: scores[0] },
      models: { sharpness: "Laplacian energy" },
      rank: 1,
    });
    expect(readdirSync(folder)).toEqual(["a-cat-seed4-best-of-3.png"]);
    await miro("generate", "--from", image.path, "--output", folder);
    expect(await settingsOf(at(`a-cat-seed${image.seed}.png`))).toEqual(settings);
  });

  it("of several scorers adds their standardised scores, records all, and resumes", async () => {
    const by = "sharpness=-1,colorfulness=0.5";
    const two = (...args: string[]) =>
      generate("a cat", "--best-of", "3", "--by", by, "--seed", "4", "--json", ...args);
    const [image] = JSON.parse((await two()).stdout).images;
    const columns = ["sharpness", "colorfulness"].map((key): number[] =>
      image.candidates.map(({ scores }: { scores: Record<string, number> }) => scores[key]!),
    );
    const z = (values: number[]) => {
      const mean = values.reduce((a, b) => a + b) / 3;
      const std = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 3);
      return values.map((x) => (x - mean) / std);
    };
    const [sharp, colour] = columns.map(z);
    const totals = sharp!.map((value, i) => -value + 0.5 * colour![i]!);
    expect(totals).toEqual([...totals].sort((a, b) => b - a));
    expect(image.score).toBeCloseTo(totals[0]!, 10);
    expect((await settingsOf(image.path)).bestOf).toMatchObject({ scorer: by, scores: image.candidates[0].scores });
    expect(JSON.parse((await two("--resume")).stdout).skipped).toBe(1);
    const wrong = await generate("a cat", "--best-of", "2", "--by", "sharpness=x");
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringMatching(/^error: --by: expected scorers, each/) });
  });

  it("of a model of other pictures than emoji is chosen by ImageReward where nobody says by what", async () => {
    const weights = fileURLToPath(
      new URL("../../../../tests/reference/fixtures/scorers/image_reward", import.meta.url),
    );
    const given = ["--best-of", "2", "--json", "--weights", `image_reward_score=${weights}`];
    const { code, stdout, stderr } = await generate("a cat", ...given);
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/chosen by image_reward_score, as/),
    });
    const [image] = JSON.parse(stdout).images;
    expect(Object.keys(image.candidates[0].scores)).toEqual(["image_reward_score"]);
    expect((await generate("a cat", "--weights", `image_reward_score=${weights}`)).stderr).toMatch(
      /^error: --weights: expected --best-of with it/,
    );
  });

  it("keeps all where asked to, and resumes", async () => {
    expect((await best("--keep-all")).code).toBe(0);
    const names = ["a-cat-seed4-best-of-3-rank2.png", "a-cat-seed4-best-of-3-rank3.png", "a-cat-seed4-best-of-3.png"];
    expect(readdirSync(folder)).toEqual(names);
    expect(JSON.parse((await best("--keep-all", "--resume")).stdout).skipped).toBe(1);
    rmSync(at(names[0]!));
    expect(JSON.parse((await best("--keep-all", "--resume")).stdout).skipped).toBe(0);
    expect(readdirSync(folder)).toEqual(names);
    expect((await generate("a cat", "--by", "sharpness")).stderr).toMatch(/^error: --by: expected --best-of/);
    // The scorer of the emoji scenes has nothing to say about what a published checkpoint draws.
    const judged = await generate("a cat", "--best-of", "2", "--by", "emoji_clip_score");
    expect(judged).toMatchObject({ code: 2 });
    expect(judged.stderr).toMatch(/^error: --by: emoji_clip_score was trained on emoji scenes alone and cannot judge/);
    expect((await generate("a cat", "--best-of", "2", "--by", "beauty")).stderr).toMatch(
      /^error: --by: "beauty" is not known/,
    );
  });
});

const bin = fileURLToPath(new URL("../../bin/miro.mjs", import.meta.url));
const built = existsSync(new URL("../../dist/cli/main.js", import.meta.url));

describe.skipIf(!built)("an interrupted process", () => {
  /** Draws many pictures in a process that gets `signal` when the n-th file is there, and then some milliseconds. */
  async function interrupted(signal: "SIGINT" | "SIGKILL", files: number, delayMs: number, format: string) {
    const args = ["generate", ...model, "a cat", "--images", "2000", "--steps", "1", "--format", format];
    const child = spawn(process.execPath, [bin, ...args, "--output", folder, "--resume"], { stdio: "ignore" });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    while (child.exitCode === null && readdirSync(folder).filter((name) => !name.startsWith(".")).length < files) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    child.kill(signal);
    return ended;
  }

  it.each<["SIGINT" | "SIGKILL", string]>([
    ["SIGINT", "png"],
    ["SIGKILL", "webp"],
  ])("by %s leaves complete pictures only, and the next run goes on", async (signal, format) => {
    let before = 0;
    for (const [round, delayMs] of [0, 17].entries()) {
      const code = await interrupted(signal, before + 3 + round, delayMs, format);
      expect(code).toBe(signal === "SIGINT" ? 130 : null);
      const names = readdirSync(folder);
      if (signal === "SIGINT") expect(names.filter((name) => name.startsWith("."))).toEqual([]);
      const pictures = names.filter((name) => !name.startsWith("."));
      for (const name of pictures) expect((await settingsOf(at(name))).prompt).toBe("a cat");
      expect(pictures.length).toBeGreaterThan(before);
      before = pictures.length;
    }
    // A leftover as a kill in the middle of a write makes it: gone with the next run.
    const dead = processIdentity().replace(/\d+$/, "1"); // this process' id, of a time before
    writeFileSync(at(`.a-cat-seed99.png.${dead}.0123456789ab.tmp`), "half");
    expect((await generate("a dog")).code).toBe(0);
    expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  });
});
