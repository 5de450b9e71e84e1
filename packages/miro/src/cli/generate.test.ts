/** The command line, run in this process on the recorded tiny checkpoint. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { scope } from "@miro-t2i/torch";
import { readNpy, readSafetensors, writeNpy } from "@miro-t2i/torch/io";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { z } from "zod";
import { readPng } from "../pictures/png.js";
import { generateSchema } from "../pipeline/generate-options.js";
import * as planning from "../pipeline/plan.js";
import { readSettings } from "../pipeline/settings.js";
import { runCaptured as miro, runStoppable } from "./testing/run-captured.js";

const root = fileURLToPath(new URL("../../../../", import.meta.url));
const tiny = join(root, "tests", "reference", "fixtures", "tiny");
const model = ["--model", `${tiny}/checkpoint`, "--text-encoder", `${tiny}/text_encoder`, "--vae", `${tiny}/vae`];
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-cli-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const generate = (...args: string[]) =>
  miro("generate", ...model, "--steps", "2", "--dtype", "float32", "--output", folder, ...args);

describe("miro generate", () => {
  it("checks reward targets once and plans them once, on the walk that docs/architecture.md names", async () => {
    // What checks a single target, whichever schema of an option it is part of.
    const [targets] = generateSchema.shape.rewardTargets.unwrap().options;
    const target = (targets as unknown as z.ZodRecord<z.ZodString, z.ZodNumber>).valueType;
    const check = vi.spyOn(target._zod, "run");
    const plan = vi.spyOn(planning, "makePlan");
    const prompts = join(folder, "prompts.jsonl");
    writeFileSync(prompts, '{"prompt": "a fox", "reward": {"clip_score": 0.125}}\n');
    const { code, stderr } = await generate("a cat", "--prompts", prompts, "--reward", "clip_score=0.25", "--json");
    expect([code, stderr]).toEqual([0, ""]);
    expect(check.mock.calls.map(([{ value }]) => value).sort()).toEqual([0.125, 0.25]);
    expect(plan.mock.calls.map(([prompts, { rewardTargets }]) => [prompts, rewardTargets])).toEqual([
      [
        ["a cat", "a fox"],
        [{ clip_score: 0.25 }, { clip_score: 0.125 }],
      ],
    ]);
    vi.restoreAllMocks();

    const section = readFileSync(join(root, "docs", "architecture.md"), "utf8")
      .split("## One picture")[1]!
      .split("\n## ")[0]!;
    const walk = [...section.matchAll(/^\| \d+ +\| `([\w-/]+\.ts)` +\| `(#?\w+)` +\|/gm)];
    expect(walk.length).toBeGreaterThan(6);
    expect(walk.length).toBeLessThanOrEqual(12);
    for (const [, file, name] of walk) {
      const source = readFileSync(join(root, "packages", "miro", "src", file!), "utf8");
      expect(source, `${file} has no function ${name}`).toMatch(new RegExp(`(function |^  )${name}(<.*>)?\\(`, "m"));
    }
  });

  it("writes pictures with their settings and prints JSON in order", async () => {
    const { code, stdout, stderr } = await generate(
      "a cat",
      "A Fox, please!",
      "--images",
      "2",
      "--seed",
      "5",
      "--reward",
      "clip_score=0.25",
      "--negative-reward",
      "aesthetic_score=0.5",
      "--guidance",
      "3",
      "--json",
    );
    expect([code, stderr]).toEqual([0, ""]);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ device: "cpu", dtype: "float32", seconds: expect.any(Number) });
    expect(report.images).toEqual(
      [
        ["a-cat-seed5", 5, "a cat"],
        ["a-cat-seed6", 6, "a cat"],
        ["a-fox-please-seed7", 7, "A Fox, please!"],
        ["a-fox-please-seed8", 8, "A Fox, please!"],
      ].map(([name, seed, prompt]) => ({ path: join(folder, `${name}.png`), seed, prompt, width: 16, height: 16 })),
    );
    const { text } = readPng(readFileSync(report.images[2].path), "picture");
    const settings = JSON.parse(text.find(({ keyword }) => keyword === "miro")!.text);
    expect(settings).toMatchObject({
      prompt: "A Fox, please!",
      seed: 7,
      steps: 2,
      guidanceScale: 3,
      rewardTargets: { clip_score: 0.25, aesthetic_score: 1, image_reward_score: 1 },
      negativeRewardTargets: { clip_score: 0, aesthetic_score: 0.5, image_reward_score: 0 },
    });
    expect(text.find(({ keyword }) => keyword === "parameters")!.text).toBe(
      `A Fox, please!\nSteps: 2, Sampler: Euler, CFG scale: 4, Seed: 7, Size: 16x16, Model hash: ${settings.weights.checkpoint.sha256.slice(0, 10)}, Model: checkpoint, VAE hash: ${settings.weights.autoencoder.sha256.slice(0, 10)}, Rewards: clip_score=0.25, Version: miro-t2i ${settings.versions.miro}`,
    );
    const info = await miro("info", report.images[2].path, "--json");
    expect(JSON.parse(info.stdout).settings).toEqual(settings);
  });

  it("is deterministic, and refuses to replace a picture unless told to", async () => {
    const first = await generate("a cat");
    expect(first).toMatchObject({ code: 0, stdout: `${join(folder, "a-cat-seed0.png")}\n` });
    const bytes = readFileSync(join(folder, "a-cat-seed0.png"));
    const again = await generate("a cat");
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(/^error: .*a-cat-seed0\.png: exists already; .*--overwrite.*\n$/);
    expect((await generate("a cat", "--overwrite")).code).toBe(0);
    expect(readFileSync(join(folder, "a-cat-seed0.png"))).toEqual(bytes);
    expect(readdirSync(folder)).toEqual(["a-cat-seed0.png"]);
  });

  it("takes noise and gives latents as arrays, in agreement with the recorded pipeline", async () => {
    const reference = readSafetensors(`${tiny}/reference.safetensors`);
    const noise = join(folder, "noise.npy");
    scope(() => writeNpy(noise, reference.get("sample.guided.noise")!.clone()));
    const { prompts } = JSON.parse(readFileSync(`${tiny}/reference.json`, "utf8"));
    const file = join(folder, "prompts.txt");
    writeFileSync(file, `\ufeff${prompts.join("\r\n\n")}\n`);
    const latents = join(folder, "out", "latents.npy");
    const { code, stdout } = await generate(
      "--prompts",
      file,
      "--init-noise",
      noise,
      "--save-latents",
      latents,
      "--steps",
      "6",
      "--guidance",
      "7",
      "--json",
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout).images.map(({ seed, prompt }: { seed: null; prompt: string }) => [seed, prompt])).toEqual(
      prompts.map((prompt: string) => [null, prompt]),
    );
    const difference = scope(() => {
      const expected = reference.get("sample.guided.latents")!;
      const actual = readNpy(latents);
      expect([actual.dtype, actual.shape]).toEqual(["float32", expected.shape]);
      return (actual.sub(expected).abs().max().item() as number) / (expected.abs().max().item() as number);
    });
    expect(difference).toBeLessThanOrEqual(1e-4);
    for (const t of reference.values()) t.dispose();
  });

  it("writes one picture to a named file", async () => {
    const path = join(folder, "sub", "one.png");
    expect(await generate("a cat", "--output", path)).toMatchObject({ code: 0, stdout: `${path}\n` });
    expect(await generate("a cat", "--images", "2", "--output", join(folder, "two.png"))).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("one file cannot hold 2 pictures"),
    });
  });

  it("draws a sheet when given no prompt", async () => {
    const { code, stdout } = await generate("--steps", "1", "--json");
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.images.length).toBeGreaterThan(3);
    const sheet = readPng(readFileSync(report.sheet), "sheet");
    expect(sheet.width).toBeGreaterThan(16 * 2);
    expect((await miro("info", report.sheet)).stdout).toContain("a fox");
  });

  it("knows the bundled model by its name", async () => {
    const args = ["generate", "--model", "miro-emoji", "a fox", "--steps", "1", "--output", folder, "--json"];
    const { code, stdout, stderr } = await miro(...args);
    expect([code, stderr]).toEqual([0, ""]);
    const [image] = JSON.parse(stdout).images;
    expect((await miro("info", image.path)).stdout).toContain("miro-emoji");
  });

  it("says nothing of a reward whose target is none, on the command line and in a prompt file", async () => {
    const prompts = join(folder, "prompts.jsonl");
    writeFileSync(prompts, '{"prompt": "a fox", "negative_reward": {"clip_score": null}}\n');
    const args = ["--reward", "clip_score=none", "--seed", "3", "--json", "--overwrite"];
    const { images } = JSON.parse((await generate("a fox", "--prompts", prompts, ...args)).stdout);
    const targets = images.map(({ path }: { path: string }) => {
      const { rewardTargets, negativeRewardTargets } = readSettings(readPng(readFileSync(path), path).text, path)!;
      return [rewardTargets.clip_score, negativeRewardTargets.clip_score];
    });
    expect(targets).toEqual([
      [null, 0],
      [null, null],
    ]);
  });

  it("stops with 130 when interrupted and leaves no partial file", async () => {
    const abort = new AbortController();
    const plan = vi.spyOn(planning, "makePlan");
    const running = runStoppable(
      ["generate", ...model, "a cat", "--steps", "100000", "--output", folder],
      abort.signal,
    );
    await expect.poll(() => plan.mock.calls.length).toBe(1);
    abort.abort();
    expect(await running).toEqual({ code: 130, stdout: "", stderr: "Interrupted: 0 of 1 picture drawn\n" });
    expect(readdirSync(folder)).toEqual([]);
    plan.mockRestore();
  });
});

describe("wrong usage gives one line and exit code 2", () => {
  it.each<[string, string[], RegExp]>([
    [
      "an unknown reward",
      ["--reward", "beauty=1"],
      /^error: --reward: this checkpoint was not trained on beauty; its rewards are clip_score, aesthetic_score, image_reward_score$/,
    ],
    ["an unknown negative reward", ["--negative-reward", "beauty=1"], /^error: --negative-reward: .* beauty/],
    [
      "a reward without a value",
      ["--reward", "clip_score"],
      /^error: --reward: expected key=value, .* received "clip_score"$/,
    ],
    [
      "a reward that is no number",
      ["--reward", "clip_score=high"],
      /^error: --reward clip_score: expected finite numbers by reward name, received "high"$/,
    ],
    [
      "a reward that is NaN",
      ["--reward", "clip_score=nan"],
      /^error: --reward clip_score: expected finite numbers by reward name, received "nan"$/,
    ],
    ["no steps", ["--steps", "0"], /^error: --steps: expected an integer of at least 1, received 0$/],
    ["half a step", ["--steps", "1.5"], /^error: --steps: /],
    ["NaN guidance", ["--guidance", "nan"], /^error: --guidance: expected a number, received "nan"$/],
    [
      "infinite guidance",
      ["--guidance", "Infinity"],
      /^error: --guidance: expected a finite number, received Infinity$/,
    ],
    ["no pictures", ["--images", "0"], /^error: --images: /],
    ["a negative seed", ["--seed", "-1"], /^error: --seed: expected an integer of at least 0/],
    ["an unknown device", ["--device", "tpu"], /^error: --device: "tpu" is not available; available: cpu/],
    [
      "an unknown dtype",
      ["--dtype", "float8"],
      /^error: --dtype: expected one of auto, float32, bfloat16, float16, received "float8"$/,
    ],
    ["an unknown variant", ["--variant", "v2"], /^error: --variant: .* has no variant "v2"/],
    [
      "a model that is not there",
      ["--model", "./nowhere"],
      /^error: --model: expected a folder or a repository owner\/name, received ".\/nowhere" \(neither\)$/,
    ],
    [
      "a folder that is no checkpoint",
      ["--model", tiny],
      /^error: --model: .* is not a checkpoint: config\.json, model\.safetensors, uncond_embedding\.npy are missing; choose one of its variants: checkpoint$/,
    ],
    [
      "a text encoder that is none",
      ["--text-encoder", `${tiny}/vae`],
      /^error: --text-encoder: tokenizer\.json not found in /,
    ],
    ["an autoencoder that is none", ["--vae", `${tiny}/text_encoder`], /^error: .*_class_name: expected one of /],
    [
      "a prompt file that is not there",
      ["--prompts", "nowhere.txt"],
      /^error: nowhere\.txt: cannot be read: no such file or directory$/,
    ],
    [
      "noise of a wrong shape",
      ["--init-noise", `${tiny}/checkpoint/uncond_embedding.npy`],
      /^error: --init-noise: expected shape \(1, 4, 8, 8\), received \(1, 48\)$/,
    ],
    ["an unknown flag", ["--stepps", "3"], /^error: unknown option '--stepps' \(Did you mean --steps\?\)$/],
    ["a flag with a value", ["--overwrite=yes"], /^error: option '--overwrite' takes no value$/],
    ["a window that is none", ["--guidance-window", "3"], /^error: --guidance-window: expected FIRST:LAST/],
    [
      "a window that ends before it begins",
      ["--guidance-window", "5:2"],
      /^error: --guidance-window: expected FIRST:LAST with the first no later than the last, .* received "5:2"$/,
    ],
    [
      "too many steps",
      ["--steps", "999999999"],
      /^error: --steps: expected an integer of at least 1, and at most 100000, received 999999999$/,
    ],
    ["no threads", ["--threads", "0"], /^error: --threads: /],
  ])("%s", async (_, args, message) => {
    const { code, stdout, stderr } = await generate("a cat", ...args);
    expect(stderr.trimEnd()).toMatch(message);
    expect(code).toBe(2);
    expect(stdout).toBe("");
    expect(stderr.trimEnd()).not.toContain("\n");
    expect(readdirSync(folder)).toEqual([]);
  });

  it("a text in place of a command is a prompt of generate", async () => {
    const { code, stdout } = await miro("a cat", ...model, "--steps", "1", "--output", folder);
    expect([code, stdout]).toEqual([0, `${folder}/a-cat-seed0.png\n`]);
    expect(await miro("a cat", ...model, "--steps", "0")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: --steps: /),
    });
  });

  it("a single word in the place of a command, which may be meant as a prompt", async () => {
    expect(await miro("zebra")).toEqual({
      code: 2,
      stdout: "",
      stderr: `error: unknown command 'zebra'; to draw it: miro generate "zebra"\n`,
    });
  });

  it("an empty prompt, an unknown command", async () => {
    expect(await generate(" ")).toMatchObject({
      code: 2,
      stderr: "error: PROMPT: expected a text, received an empty one\n",
    });
    expect(await miro("generte")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: unknown command 'generte'.*generate/),
    });
  });
});

it("targets where no model was trained, and a window without a step, are told and drawn", async () => {
  const flags = ["--reward", "clip_score=1000", "--negative-reward", "clip_score=-1", "--guidance-window", "7:"];
  const { code, stderr } = await generate("a cat", ...flags);
  expect(stderr).toContain(
    "warning: the reward target clip_score 1000 is outside of 0 to 1, where models are trained\n",
  );
  expect(stderr).toContain("warning: the negative reward target clip_score -1 is outside of 0 to 1");
  expect(stderr).toContain("warning: no step is guided: the guidance window begins at step 7, and there are 2\n");
  expect(code).toBe(0);
});

describe("help", () => {
  it.each(["generate", "info", "doctor", "train"])("of %s has examples", async (command) => {
    const { code, stdout } = await miro(command, "--help");
    expect(code).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}miro /);
  });

  it("of a command within another one is that of its --help", async () => {
    const { code, stdout } = await miro("help", "evaluate", "geneval");
    expect([code, stdout]).toEqual([0, (await miro("evaluate", "geneval", "--help")).stdout]);
    expect(stdout).toMatch(/^Usage: miro evaluate geneval /);
  });

  it.each([
    ["nowhere", "--help"],
    ["help", "nowhere"],
    ["evaluate", "nowhere", "-h"],
    ["evaluate", "help", "nowhere"],
    ["help", "evaluate", "nowhere"],
  ])("of a command that there is not, as by %s %s, is refused", async (...words) => {
    const { code, stdout, stderr } = await miro(...words);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^error: unknown command 'nowhere'[^\n]*\n$/);
  });

  it("is pointed to where options stand before the command", async () => {
    expect(await miro("--quiet", "generate", "a fox")).toEqual({
      code: 2,
      stdout: "",
      stderr: "error: unknown option '--quiet'; options stand behind a command, see: miro --help\n",
    });
  });

  it("of the program lists the commands", async () => {
    expect((await miro("--help")).stdout).toMatch(/generate +draw pictures/);
    expect((await miro("--version")).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

const bin = fileURLToPath(new URL("../../bin/miro.mjs", import.meta.url));
const built = existsSync(new URL("../../dist/cli/main.js", import.meta.url));

describe.skipIf(!built)("the process", () => {
  it("draws the lines of the standard input as the lines of a file, and names one that is wrong", () => {
    const args = [bin, "generate", ...model, "--prompts", "-", "--steps", "1", "--output", folder, "--quiet"];
    const piped = (input: string) => spawnSync(process.execPath, args, { input, encoding: "utf8" });
    const { status, stdout, stderr } = piped("a cat\n\na fox\n");
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toBe(`${join(folder, "a-cat-seed0.png")}\n${join(folder, "a-fox-seed1.png")}\n`);
    const empty = piped("\n");
    expect([empty.status, empty.stderr]).toEqual([2, "error: --prompts: standard input holds no prompt\n"]);
  });

  it("ends with 130 on Ctrl-C and leaves no partial file", async () => {
    const child = spawn(process.execPath, [
      bin,
      "generate",
      ...model,
      "a cat",
      "--steps",
      "100000",
      "--output",
      folder,
    ]);
    let stderr = "";
    child.stderr.on("data", (part) => {
      stderr += part;
    });
    const closed = new Promise((resolve) => child.on("close", resolve));
    // It loads the model from here on, and then draws.
    await expect.poll(() => readFileSync(`/proc/${child.pid}/maps`, "utf8")).toContain("libtorch_cpu.so");
    child.kill("SIGINT");
    const code = await closed;
    expect([code, stderr]).toEqual([130, "Interrupted: 0 of 1 picture drawn\n"]);
    expect(readdirSync(folder)).toEqual([]);
  });
});
