/** A run of `miro train`, at any moment, as the model of whatever draws. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { memory, scope } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import type { Command, Option } from "commander";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../register.js";
import { run as runCommand, wholeProgram } from "../../cli/main.js";
import { commandPath } from "../../cli/settings.js";
import { runCaptured } from "../../cli/testing/run-captured.js";
import { encodePng } from "../../pictures/png.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { Engine } from "../../studio/server/engine.js";
import { runTraining } from "../../training/loop/run.js";
import { parseRecipe } from "../../training/recipes/recipe.js";
import { listCheckpoints } from "../../training/state/checkpoint.js";
import { makeTinyParts, type TinyParts, tinyEmojiJson } from "./testing/tiny-emoji.js";

const root = mkdtempSync(join(tmpdir(), "miro-run-model-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const run = join(root, "emoji");
const checkpoint = (step: number, folder = run) => join(folder, "checkpoints", `step-${String(step).padStart(8, "0")}`);
let parts: TinyParts;

const recipe = (trainer: object = {}, rest: object = {}) =>
  parseRecipe(
    tinyEmojiJson(parts, join(root, "cache"), {
      trainer,
      rest: { logger: { peak_tflops: 1, tensorboard: false }, ...rest },
    }),
  );

/** The picture that a model draws of a fox, and what it says of itself. */
async function drawn(model: string, options: Parameters<typeof MiroPipeline.fromPretrained>[1] = {}) {
  await using pipe = await MiroPipeline.fromPretrained(model, { dtype: "float32", ...options });
  const { images } = await pipe.generate("a fox", { steps: 2, seed: 3 });
  return { data: Buffer.from(images[0]!.data), settings: images[0]!.settings };
}

beforeAll(async () => {
  parts = await makeTinyParts(root);
  // In float32, so that a release in half precision would draw another picture.
  const weights = join(parts.textEncoder, "model.safetensors");
  scope(() => {
    const noisy = [...readSafetensors(weights)].map(([name, t]) => [name, t.clone().mul(1.0001)] as const);
    rmSync(weights);
    writeSafetensors(weights, new Map(noisy));
  });
  const stop = new AbortController();
  const result = await runTraining({
    recipe: recipe({ max_steps: 9, checkpoint_every_n_steps: 1, keep_last: 3 }),
    output: run,
    signal: stop.signal,
    onProgress: ({ step }) => step === 4 && stop.abort(),
  });
  expect(result).toMatchObject({ finished: false, step: 4, exported: null });
});

describe("a run that was stopped", { timeout: 120_000 }, () => {
  it("draws what the release that is made of it draws, and says which checkpoint that is", async () => {
    const release = join(root, "release");
    expect(await runCaptured("convert", run, "--output", release)).toMatchObject({ code: 0 });
    const [ours, theirs] = [await drawn(run), await drawn(release)];
    expect(ours.data.equals(theirs.data)).toBe(true);
    expect(ours.settings.model).toBe("emoji step 4");
    expect(ours.settings.weights!.checkpoint).toMatchObject({ source: "folder", name: checkpoint(4) });
    expect(ours.settings.weights!.textEncoder).toMatchObject({ source: "folder", name: parts.textEncoder });
    expect(readdirSync(run).sort()).not.toContain("export");
  });

  it("is told by its folder, by that of its checkpoints, by one of them and by the link to the newest", async () => {
    const newest = await drawn(run);
    for (const path of ["checkpoints", "checkpoints/last", `checkpoints/${basename(checkpoint(4))}`])
      expect((await drawn(join(run, path))).data.equals(newest.data), path).toBe(true);
    const earlier = await drawn(checkpoint(3));
    expect(earlier.data.equals(newest.data)).toBe(false);
    expect(earlier.settings.model).toBe("emoji step 3");
  });

  it("is taken by the commands that draw, with its vocabulary", async () => {
    const output = join(root, "pictures");
    const args = ["a zebra", "--model", run, "--steps", "2", "--dtype", "float32", "--output", output, "--json"];
    const { code, stdout, stderr } = await runCaptured("generate", ...args);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/does not know "zebra"/);
    const { images } = JSON.parse(stdout) as { images: { path: string }[] };
    expect(await runCaptured("info", images[0]!.path)).toMatchObject({ code: 0 });
    const ofRun = JSON.parse((await runCaptured("info", run, "--json")).stdout);
    expect(ofRun).toMatchObject({ checkpoints: [2, 3, 4], newest: expect.stringMatching(/step-00000004$/) });
    const earlier = join(run, "checkpoints", "step-00000002");
    const ofOne = JSON.parse((await runCaptured("info", earlier, "--json")).stdout);
    expect(ofOne).toMatchObject({ checkpoints: [2, 3, 4], checkpoint: expect.stringMatching(/step-00000002$/) });
    expect(ofOne).not.toHaveProperty("newest");
    const engine = await Engine.open({ models: [run] });
    expect(engine.cards[0]).toMatchObject({
      size: [32, 32],
      coherenceKeys: ["clip_score", "sharpness", "colorfulness"],
    });
    await engine.close();
    const redrawn = await runCaptured("generate", "--from", images[0]!.path, "--output", join(root, "again"), "--json");
    expect(redrawn.code, redrawn.stderr).toBe(0);
    const again = JSON.parse(redrawn.stdout) as { images: { path: string }[] };
    expect(readFileSync(again.images[0]!.path).equals(readFileSync(images[0]!.path))).toBe(true);
  });

  /** Command lines that take a run in the place of a model, and what they print; of each a file that they make. */
  const lines: Readonly<Record<string, readonly [string[], RegExp]>> = {
    generate: [["a fox", `--model=${run}`, "--steps=1", "--output=drawn"], /^drawn\/a-fox-seed0\.png$/m],
    sweep: [["a fox", `--model=${run}`, "--steps=1", "--x=seed=0:1", "--output=swept"], /^swept\/sheet\.png$/m],
    studio: [[`--model=${run}`, "--port=0", "--output=gallery"], /^http:/m],
    bench: [[`--model=${run}`, "--steps=1", "--rounds=1", "--batches=1"], /^\S+emoji \(cpu/m],
    "evaluate geneval": [
      [`--model=${run}`, "--prompts=emoji", "--prompt-range=0-0", "--only=generate", "--steps=1"],
      /^1 picture drawn$/m,
    ],
    "evaluate parti": [
      ["parti.tsv", `--model=${run}`, "--n-samples=1", "--steps=1", "--scorers=sharpness"],
      /^all: 1 picture of 1 prompt$/m,
    ],
    preprocess: [
      ["--stage=all", "--src=raw", "--dest=shards", `--model=${run}`, "--no-vae-512", "--scorers=sharpness"],
      /^2 done/m,
    ],
    testbed: [["bed", "--count=1", `--model=${run}`], /: 1 computed, 0 kept$/m],
    info: [[run], /^checkpoints: 2, 3, 4$/m],
    convert: [[run, "--output=made", "--samples=1", "--steps=1"], /^made$/m],
    train: [["recipe.yaml", `initialization.from=${run}`, "--output=tuned"], /^done: tuned\/export$/m],
  };

  it("is taken by every command that takes a model", async () => {
    const taking = (command: Command): string[] => {
      if (command.commands.length > 0) return command.commands.flatMap(taking);
      const isModel = ({ long, description }: Option) =>
        long === "--model" && /checkpoint|repository|offer/.test(description);
      return command.options.some(isModel) ? [commandPath(command).join(" ")] : [];
    };
    const named = taking(await wholeProgram());
    expect(Object.keys(lines)).toEqual(expect.arrayContaining(named));
    expect(named).toEqual(expect.arrayContaining(["generate", "studio", "evaluate parti", "testbed"]));
  });

  describe("in the place of a model", () => {
    const before = process.cwd();
    const work = join(root, "commands");
    beforeAll(() => {
      for (const name of ["raw", "bed"]) mkdirSync(join(work, name), { recursive: true });
      process.chdir(work);
      const picture = encodePng(new Uint8Array(3 * 256 * 256), 256, 256);
      for (const name of ["raw", "bed"]) writeFileSync(join(name, "a.png"), picture);
      writeFileSync("raw/a.txt", "a fox");
      writeFileSync("bed/metadata.csv", "file_name,text\na.png,a fox\n");
      writeFileSync("bed/prompts.txt", "a fox\n");
      writeFileSync("parti.tsv", "Prompt\tCategory\tChallenge\tNote\na fox\tAnimals\tBasic\t\n");
      writeFileSync("recipe.yaml", JSON.stringify(tinyEmojiJson(parts, join(root, "cache"))));
    });
    afterAll(() => process.chdir(before));

    it.each(Object.entries(lines))("miro %s", async (name, [args, prints]) => {
      const stop = new AbortController();
      const printed = { stdout: "", stderr: "" };
      const code = await runCommand([...name.split(" "), ...args], {
        stdout: (text) => {
          printed.stdout += text;
          // It serves until it is stopped.
          if (name === "studio") stop.abort();
        },
        stderr: (text) => {
          printed.stderr += text;
        },
        interactive: false,
        signal: stop.signal,
      });
      expect(code, printed.stderr).toBe(0);
      expect(printed.stdout + printed.stderr).toMatch(prints);
    });

    it("whose figures name the checkpoint, and are not mixed with those of a later one", async () => {
      const { model } = JSON.parse(readFileSync("parti/parti.json", "utf8"));
      expect(model).toEqual({ model: checkpoint(4) });
      expect(existsSync("geneval/emoji-step-00000004-emoji/00000/samples/0000.png")).toBe(true);
      const earlier = ["parti.tsv", `--model=${checkpoint(3)}`, "--n-samples=1", "--steps=1", "--scorers=sharpness"];
      const { code, stderr } = await runCaptured("evaluate", "parti", ...earlier);
      expect(code).toBe(2);
      expect(stderr).toMatch(/"emoji step 4" there and "emoji step 3" here; choose another name or --outdir, or /);
    });

    it("but not of a release", async () => {
      for (const words of [
        ["card", run],
        ["publish", run, "owner/name", "--dry-run"],
      ]) {
        const { code, stderr } = await runCaptured(...words);
        expect([code, stderr]).toEqual([
          2,
          expect.stringMatching(/: is a run of miro train; miro convert makes a release/),
        ]);
      }
      expect(existsSync(join(run, "README.md"))).toBe(false);
      const revision = await runCaptured("generate", "a fox", `--model=${run}`, "--revision=main", "--output=never");
      expect(revision).toMatchObject({ code: 2, stderr: expect.stringMatching(/^error: --revision: .* is a folder/) });
    });
  });

  it("gives another run its weights to start with", async () => {
    const output = join(root, "fine-tuned");
    const options = recipe(
      { max_steps: 2 },
      { initialization: { from: run }, optimizer: { name: "adamw", lr: 1e-30 } },
    );
    await runTraining({ recipe: options, output });
    scope(() => {
      const begun = readSafetensors(join(checkpoint(2, output), "network.safetensors")).get("network.latents")!;
      const from = readSafetensors(join(checkpoint(4), "ema.safetensors")).get("latents")!;
      expect(begun.sub(from).abs().max().item()).toBe(0);
    });
  });
});

describe("checkpoints that are not as they should be", { timeout: 120_000 }, () => {
  const copy = (name: string) => {
    cpSync(run, join(root, name), { recursive: true, verbatimSymlinks: true });
    return join(root, name);
  };

  it("are passed over for the newest that is whole, which is told; one that is named is refused", async () => {
    const folder = copy("damaged");
    const bytes = readFileSync(join(checkpoint(4, folder), "ema.safetensors"));
    bytes[bytes.length - 5]! ^= 1;
    writeFileSync(join(checkpoint(4, folder), "ema.safetensors"), bytes);
    truncateSync(join(checkpoint(3, folder), "network.safetensors"), 200);
    const messages: string[] = [];
    const { settings, data } = await drawn(folder, { onMessage: (message) => messages.push(message) });
    expect(settings.model).toBe("damaged step 2");
    expect(data.equals((await drawn(checkpoint(2))).data)).toBe(true);
    expect(messages.join()).toMatch(
      /step-00000004\/ema\.safetensors: is damaged.*newest checkpoint that is whole is taken: step 2/,
    );
    await expect(drawn(checkpoint(4, folder))).rejects.toThrow(/ema\.safetensors: is damaged/);
    const { code, stderr } = await runCaptured("convert", folder, "--output", join(root, "of-damaged"));
    expect(code).toBe(0);
    expect(stderr).toMatch(/is damaged.*step 2\n.*step-00000002: EMA weights, decay 0\.9, step 2/s);
    for (const { path } of listCheckpoints(join(folder, "checkpoints"))) rmSync(join(path, "ema.safetensors"));
    const live = memory.stats().liveTensors;
    await expect(drawn(folder)).rejects.toThrow(/step-00000004\/ema\.safetensors/);
    expect(memory.stats().liveTensors).toBe(live);
  });

  it("are none yet: one error says when there will be one", async () => {
    const folder = join(root, "young");
    mkdirSync(folder);
    writeFileSync(join(folder, "recipe.yaml"), "name: young\n");
    for (const command of [
      ["generate", "a fox", "--model", folder, "--output", join(root, "never")],
      ["convert", folder, "--output", join(root, "never")],
    ] as [string, ...string[]][]) {
      const { code, stderr } = await runCaptured(...command);
      expect(code).toBe(2);
      expect(stderr).toMatch(/^error: .*young: holds no checkpoint yet; the run stores one every .*\n$/);
    }
    expect(existsSync(join(root, "never"))).toBe(false);
  });

  it("are of parts, of made-up data or of a variant: each says what it is", async () => {
    const part = copy("part");
    for (const { path } of listCheckpoints(join(part, "checkpoints"))) {
      for (const name of ["model.json", "SHA256SUMS"]) rmSync(join(path, name));
      const state = JSON.parse(readFileSync(join(path, "state.json"), "utf8"));
      writeFileSync(join(path, "state.json"), JSON.stringify({ ...state, recipe: { kind: "clip" } }));
    }
    await expect(drawn(part)).rejects.toThrow(/is of a run that trains a part \(kind clip\), no model that draws/);
    const made = copy("made-up");
    rmSync(join(made, "constants.safetensors"));
    await expect(drawn(made)).rejects.toThrow(/stores no constants\.safetensors/);
    await expect(drawn(run, { variant: "small" })).rejects.toThrow(
      /^variant: .* is a run of miro train, which has no variants/,
    );
  });

  it("were trained with parts that have moved: says which, and takes others", async () => {
    const moved = join(root, "moved-vae");
    renameSync(parts.autoencoder, moved);
    try {
      await expect(drawn(run)).rejects.toThrow(
        /^vae: .*step-00000004 was trained with .*vae, which is not there; name the folder/,
      );
      expect((await drawn(run, { vae: moved })).data.length).toBe(32 * 32 * 3);
    } finally {
      renameSync(moved, parts.autoencoder);
    }
  });
});

describe("a run that goes on", { timeout: 120_000 }, () => {
  it("is read as a whole, however fast it replaces its checkpoints", async () => {
    const output = join(root, "going");
    const stop = new AbortController();
    const training = runTraining({
      recipe: recipe({ max_steps: 100_000, checkpoint_every_n_steps: 1, keep_last: 1 }, { ema: { decay: 0.5 } }),
      output,
      signal: stop.signal,
    });
    const seen = new Set<string>();
    while (listCheckpoints(join(output, "checkpoints")).length === 0) await new Promise(setImmediate);
    try {
      for (let i = 0; i < 6 || seen.size < 3; i++) {
        const { settings } = await drawn(output, { lowMemory: i % 2 === 0 });
        seen.add(settings.model);
      }
    } finally {
      stop.abort();
      await training;
    }
  });

  it("does not take back what a pipeline has opened, whose parts take turns", async () => {
    const folder = join(root, "gone");
    cpSync(run, folder, { recursive: true, verbatimSymlinks: true });
    await using pipe = await MiroPipeline.fromPretrained(folder, { dtype: "float32", lowMemory: true });
    rmSync(folder, { recursive: true });
    const { images } = await pipe.generate("a fox", { steps: 2, seed: 3 });
    expect(Buffer.from(images[0]!.data).equals((await drawn(run)).data)).toBe(true);
  });
});

describe("a run within a time", { timeout: 120_000 }, () => {
  it("stops as at its end, with a checkpoint and a release, and goes on to the end of an undisturbed one", async () => {
    const [whole, parted] = [join(root, "whole"), join(root, "parted")];
    await runTraining({ recipe: recipe(), output: whole });
    const messages: string[] = [];
    const first = await runTraining({
      recipe: recipe({ max_minutes: 1e-9 }),
      output: parted,
      onMessage: (message) => messages.push(message),
    });
    expect(first).toMatchObject({ finished: false, outOfTime: true, step: 1, exported: join(parted, "export") });
    expect(messages.join("\n")).toMatch(/3 steps of 8 samples, within 0\.000000001 minutes/);
    expect((await drawn(first.exported!)).data.length).toBe(32 * 32 * 3);
    expect(await runTraining({ recipe: recipe(), output: parted, resume: true })).toMatchObject({ finished: true });
    const final = (folder: string) => readFileSync(join(checkpoint(3, folder), "network.safetensors"));
    expect(final(parted).equals(final(whole))).toBe(true);
  });

  it("of the command ends with 0 and says how to go on", async () => {
    const file = join(root, "recipe.yaml");
    writeFileSync(file, JSON.stringify(tinyEmojiJson(parts, join(root, "cache"))));
    const args = ["trainer.max_minutes=1e-9", "--output", join(root, "command")];
    const { code, stderr } = await runCaptured("train", file, ...args);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(
      /stopped after 0\.000000001 minutes, at step 1 of 3; continue with --resume\ndone: .*export\n$/,
    );
  });
});

describe("the first Ctrl-C", { timeout: 120_000 }, () => {
  it("stops at a sheet that is due, with the checkpoint; the resumed run draws it, once", async () => {
    const output = join(root, "interrupted");
    const stop = new AbortController();
    const samples = { every_n_steps: 2, prompts: ["a fox"], steps: 500 };
    const result = await runTraining({
      recipe: recipe({ max_steps: 4 }, { samples }),
      output,
      signal: stop.signal,
      onProgress: ({ step }) => step === 2 && stop.abort(),
    });
    expect(result).toMatchObject({ finished: false, step: 2, checkpoint: checkpoint(2, output) });
    expect(existsSync(join(output, "samples"))).toBe(false);
    const resumed = async () => {
      const quick = recipe({ max_steps: 4 }, { samples: { ...samples, steps: 1 } });
      await runTraining({ recipe: quick, output, resume: true });
      const folder = join(output, "samples");
      return readdirSync(folder).map((name) => [name, statSync(join(folder, name)).ino]);
    };
    const drawn = await resumed();
    expect(drawn.map(([name]) => name)).toEqual(["step-00000002.png", "step-00000004.png"]);
    expect(await resumed()).toEqual(drawn);
  });
});
