/**
 * The same mistake has the same exit code in every command: 2 for wrong usage, with one line on stderr, nothing on
 * stdout, and nothing done. What cannot be written is in `outputs.test.ts`, arguments that are missing files in
 * `missing-files.test.ts`.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { copyPublished } from "../data/dataset/testing/published.js";
import { declarationOf, isFlag } from "../options.js";
import { encodePng } from "../pictures/png.js";
import { writeTinyRelease } from "../pipeline/loading/testing/tiny-release.js";
import { DeclaredOption } from "./add-options.js";
import { wholeProgram } from "./main.js";
import { commandPath } from "./settings.js";
import { runCaptured as miro } from "./testing/run-captured.js";

const before = process.cwd();
let folder: string;
beforeAll(() => {
  // Names on the Hub are not looked up.
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  vi.stubEnv("MIRO_CONFIG", "");
  folder = mkdtempSync(join(tmpdir(), "miro-exit-codes-"));
  process.chdir(folder);
  writeFileSync("a.png", encodePng(new Uint8Array(3 * 16 * 16), 16, 16));
  for (const name of ["raw", "bed", "set/00000/samples", "run"]) mkdirSync(name, { recursive: true });
  for (const name of ["raw/a.png", "bed/a.png", "set/00000/samples/0000.png"]) cpSync("a.png", name);
  writeFileSync("raw/a.txt", "a fox");
  writeFileSync("bed/metadata.csv", "file_name,text\na.png,a fox\n");
  writeFileSync("bed/prompts.txt", "a fox\n");
  writeFileSync("set/00000/metadata.jsonl", '{"prompt": "a fox"}');
  writeFileSync("run/log.jsonl", '{"step":1,"train/loss":1}\n{"step":2,"train/loss":2}\n');
  writeFileSync("table.csv", "picture,caption\nraw/a.png,a fox\n");
  writeFileSync("parti.tsv", "Prompt\tCategory\tChallenge\tNote\na fox\tAnimals\tBasic\t\n");
  writeTinyRelease("release", ["sharpness"]);
  const copy = copyPublished();
  cpSync(join(copy.path, "cc12m"), "shards", { recursive: true });
  copy.remove();
});
afterAll(() => {
  process.chdir(before);
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** For each command the arguments with which it would do its work. */
const LINES: Readonly<Record<string, readonly string[]>> = {
  generate: ["a fox"],
  studio: ["--port=0"],
  sweep: ["a fox", "--x=seed=0:1"],
  info: ["a.png"],
  score: ["a.png"],
  models: [],
  doctor: [],
  render: ["emoji-data"],
  preprocess: ["--stage=all", "--src=raw", "--dest=shards", "--model=miro-emoji"],
  index: ["shards"],
  "evaluate geneval": ["--prompts=emoji", "--prompt-range=0-0"],
  "evaluate rewards": ["set", "--scorers=sharpness"],
  "evaluate parti": ["parti.tsv", "--scorers=sharpness"],
  bench: [],
  train: ["emoji"],
  launch: ["emoji", "--print"],
  convert: ["release", "--output=made"],
  publish: ["release", "owner/name"],
  card: ["release"],
  testbed: ["bed", "--count=1", "--model=miro-emoji"],
  plot: ["run"],
  config: [],
  completion: ["bash"],
};

/** What is wrong for an option that takes any text, by its name; null where every text is right, or sbatch decides. */
const WRONG: Readonly<Record<string, string | readonly string[] | null>> = {
  "api-key-file": "nowhere",
  array: "nonsense",
  by: "nonsense",
  "cache-dir": null,
  "caption-column": ["--src=table.csv", "--image-column=picture", "--caption-column=nonsense"],
  checkpoint: "nowhere",
  clip: ["--prompts=geneval", "--detector=a.png", "--clip=./nowhere"],
  constraint: "a\nb",
  container: "nowhere.sif",
  dependency: null,
  description: null,
  detector: ["--prompts=geneval", "--detector=./nowhere"],
  device: "nonsense",
  devices: "nonsense",
  "embeddings-name": "nonsense/",
  "embeddings-npy-name": "NONSENSE",
  eta: "nonsense",
  from: "nowhere.png",
  gres: "nonsense!",
  host: "nonsense.invalid",
  image: "nowhere.png",
  "image-column": ["--src=table.csv", "--image-column=nonsense", "--caption-column=caption"],
  images: "nowhere",
  "init-noise": "nowhere.npy",
  judge: "nowhere",
  keys: "nonsense",
  license: "non sense",
  "long-prompts": "nowhere",
  mask: ["--image=a.png", "--mask=nowhere.png"],
  "metadata-file": "nowhere",
  model: "./nowhere",
  name: "{nonsense}",
  "negative-prompt": null,
  "network-interface": "a b",
  pairs: "nowhere.csv",
  partition: null,
  account: null,
  qos: null,
  prologue: "nowhere.sh",
  prompt: null,
  prompts: "nowhere.txt",
  recipe: "nowhere",
  resume: "nonsense",
  revision: "nonsense",
  "scorer-module": "nowhere.mjs",
  scorers: "nonsense",
  scores: ["--bins", "--scores=nonsense"],
  shard: "nonsense",
  src: "nowhere",
  sweep: "nonsense",
  "synthetic-captions": "nowhere.csv",
  tasks: "nonsense",
  "text-embedding-name": null,
  "text-encoder": "./nowhere",
  title: null,
  "uncond-embedding": "nowhere.npy",
  vae: "./nowhere",
  variant: "non/sense",
  x: "nonsense=1",
  y: "nonsense=1",
};

/** What no number, no choice and no size is. */
const NONSENSE = ["nonsense", "-1", "1e999", ""];

/** The command lines that are wrong about one option. */
function wrongAbout(option: DeclaredOption): (readonly string[])[] {
  const { long, key, schema, read } = option;
  if (isFlag(schema)) return [[`${long}=5`]];
  const fits = (text: string) => {
    try {
      return schema.safeParse(read(text, undefined)).success;
    } catch {
      return false;
    }
  };
  const refused = NONSENSE.filter((text) => !fits(text)).map((text) => [`${long}=${text}`]);
  // Of the others what is read decides.
  if (!fits("nonsense") || declarationOf(schema).writes !== undefined) return refused.slice(0, 1);
  const wrong = WRONG[key];
  if (wrong === undefined && refused.length === 0) throw new Error(`say in WRONG what is wrong for ${long}`);
  const own = wrong === undefined || wrong === null ? [] : [typeof wrong === "string" ? [`${long}=${wrong}`] : wrong];
  return [...refused.slice(0, 1), ...own];
}

/** What is there, but for folders of work that goes on: they are made before a model is loaded. */
function done(): string[] {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return files.filter((path) => !/^(?:geneval|parti|shards|raw\/scores)(?:\/|$)/.test(path)).sort();
}

const leaves = (await wholeProgram()).commands.flatMap(function below(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(below);
});

it("what is missing, or of another kind, is told once", async () => {
  expect(await miro("preprocess", "--stage=all", "--src=raw")).toMatchObject({
    code: 2,
    stderr: "error: --dest: expected a folder for the enriched tars of --stage all, received none\n",
  });
  expect(await miro("render", "emoji")).toMatchObject({
    code: 2,
    stderr: "error: emoji: kind is missing: expected emoji-data\n",
  });
});

it("MIRO_DEBUG adds to an error where it arose", async () => {
  const args = ["generate", "a fox", "--steps", "0"];
  const { stderr } = await miro(...args);
  vi.stubEnv("MIRO_DEBUG", "1");
  const debugged = await miro(...args);
  vi.stubEnv("MIRO_DEBUG", "");
  expect(stderr.split("\n")).toHaveLength(2);
  expect(debugged.stderr.startsWith(stderr)).toBe(true);
  expect(debugged.stderr).toMatch(/^ +at .*options/m);
});

it("every command prints for programs too", () => {
  const without = leaves.filter(({ options }) => !options.some(({ long }) => long === "--json"));
  expect(without.map(commandPath)).toEqual([]);
});

describe("what is wrong ends with 2", () => {
  it("in every command", () => {
    expect(leaves.map((command) => commandPath(command).join(" ")).sort()).toEqual(Object.keys(LINES).sort());
  });

  it.each(leaves.map((command) => [commandPath(command).join(" "), command] as const))(
    "in miro %s",
    async (name, command) => {
      const line = LINES[name]!;
      const there = done();
      const options = command.options.filter((option) => option instanceof DeclaredOption);
      const mistakes = [["--nonsense"], ...options.flatMap(wrongAbout)];
      // The mistake stands instead of what the line says of the same option.
      const lines = mistakes.map((mistake) => {
        const named = mistake.map((word) => word.split("=")[0]);
        return [...line.filter((word) => !word.startsWith("-") || !named.includes(word.split("=")[0])), ...mistake];
      });
      const [argument] = command.registeredArguments;
      if (argument?.required) lines.push(line.filter((word) => word.startsWith("-")));
      const first = line.findIndex((word) => !word.startsWith("-"));
      if (first >= 0) lines.push(line.with(first, ""));
      if (!command.registeredArguments.some(({ variadic }) => variadic))
        lines.push([...line, ...command.registeredArguments.map(() => "more"), "more"]);
      const others: unknown[] = [];
      for (const words of lines) {
        const { code, stdout, stderr } = await miro(...name.split(" "), ...words);
        const isOneError = /^(?:(?!error: ).*\n)*error: [^\n]+\n$/.test(stderr);
        const isOfPrograms =
          /^error: (?::|(?!nowhere)[a-z]+(?:[A-Z][a-z]+)*(?:\.\d+)?: expected )|received (?:undefined|NaN)/m;
        if (code !== 2 || stdout !== "" || !isOneError || isOfPrograms.test(stderr))
          others.push({ words, code, stdout, stderr });
      }
      expect(others).toEqual([]);
      expect(done()).toEqual(there);
    },
    60_000,
  );
});
