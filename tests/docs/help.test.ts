/**
 * The examples of `--help` do what they say, as printed, in a folder far from the clone. Their pictures are drawn with
 * one step, so that the test is short; those that need what a test has not stand in one list.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DeclaredOption } from "../../packages/miro/src/cli/add-options.js";
import { commandsOf } from "../../packages/miro/src/cli/completion.js";
import { wholeProgram } from "../../packages/miro/src/cli/main.js";
import { runCaptured } from "../../packages/miro/src/cli/testing/run-captured.js";
import { declarationOf, defaultOf } from "../../packages/miro/src/options.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** What is not run, and what a reader needs for it. */
const NEEDS: readonly (readonly [RegExp, string])[] = [
  [
    /nicolas-dufour\/|google\/|openai\/|published|--weights|clip_openai|image_reward|hpsv2|--detector/,
    "published weights",
  ],
  [
    /PartiPrompts|epoch=14|model\.safetensors|geneval\/|score geneval|--judge|--outfile|evaluate rewards images/,
    "files of others",
  ],
  [/--src |data\/|^index /, "pictures with captions; docs/data.md runs them"],
  [/^launch (?!.*--print)/, "a cluster"],
  [/^train (?!.*--(print|dry-run))/, "hours of training; docs/training.md runs a short one"],
  [/^train multi_cad_synth .*--dry-run/, "the data of the paper"],
  [/^studio/, "a browser; it serves until it is stopped"],
  [/--by emoji_clip_score --distance|^evaluate geneval --prompts emoji(?! --dry-run)/, "minutes"],
  [/^render emoji-data --output|^plot .*try-1|^testbed --model/, "minutes"],
  [/^testbed$/, "published weights"],
  [/^(convert|card|info runs)[ /]/, "the checkpoint of a training; docs/publishing.md runs them"],
  [/^publish /, "a token of the Hub"],
];

/** Every command that the program has, and those within commands. */
const program = await wholeProgram();
const COMMANDS = commandsOf(program).map(({ path }) => path.split(" ").filter((word) => word !== ""));

/** The command lines under "Examples:", without what is said about them. */
async function examplesOf(command: readonly string[]): Promise<string[]> {
  const { stdout } = await runCaptured(...command, "--help");
  const section = stdout.split(/^Examples:$/m)[1] ?? "";
  return [...section.matchAll(/^ {2}miro (.+)$/gm)].map(([, line]) => line!.split(/ {2,}| \| | > /)[0]!.trim());
}

/** A command line as a shell splits it; `pictures/*.png` is filled in. */
function wordsOf(line: string): string[] {
  const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, word]) => quoted ?? word!);
  return words.flatMap((word) => (word === "pictures/*.png" ? ["pictures/a-fox-seed7.png"] : [word]));
}

const examples = COMMANDS.map(async (command) => [command, await examplesOf(command)] as const);
const all = await Promise.all(examples);

describe("the examples of --help", () => {
  const before = process.cwd();
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "miro-help-"));
    process.chdir(folder);
    // What the examples say a reader has already.
    await runCaptured("generate", "a fox", "--images", "4", "--seed", "7", "--steps", "1", "--output", "pictures");
    copyFileSync("pictures/a-fox-seed7.png", "pictures/a-fox-seed0.png");
    copyFileSync("pictures/a-fox-seed7.png", "photo.jpg");
    writeFileSync("prompts.jsonl", '{"prompt": "a fox", "seed": 7, "steps": 1, "reward": {"sharpness": 0.2}}\n');
    writeFileSync(
      "brightness.mjs",
      `export default { key: "brightness", name: "first byte", description: "first byte", stage: "rewards", usesText: false,
        load: () => ({ name: "first byte", batchSize: 8, score: (all) => all.map(({ data }) => data[0]), dispose() {} }) };`,
    );
    mkdirSync("runs/emoji", { recursive: true });
    writeFileSync("runs/emoji/log.jsonl", LOG);
  });
  afterAll(() => {
    process.chdir(before);
    rmSync(folder, { recursive: true, force: true });
  });

  it("are there for every command", () => {
    expect(all.filter(([, lines]) => lines.length === 0)).toEqual([]);
  });

  const run = all.flatMap(([, lines]) => lines).filter((line) => !NEEDS.some(([pattern]) => pattern.test(line)));
  it.each([...new Set(run)])(
    "miro %s",
    async (line) => {
      const words = wordsOf(line);
      const draws = /^(generate|sweep)/.test(line) && !/evaluations|--prompts|--from/.test(line);
      const { code, stderr } = await runCaptured(
        ...words,
        ...(draws && !words.includes("--steps") ? ["--steps", "1"] : []),
      );
      expect(stderr).not.toMatch(/^(error|warning):/m);
      expect(code).toBe(0);
    },
    120_000,
  );

  it("that need what a test has not are few, and every reason is needed", () => {
    const lines = all.flatMap(([, lines]) => lines);
    for (const [pattern, reason] of NEEDS)
      expect(
        lines.some((line) => pattern.test(line)),
        reason,
      ).toBe(true);
    expect(run.length).toBeGreaterThan(25);
  });
});

describe("what examples leave", () => {
  const ignored = readFileSync(join(root, ".gitignore"), "utf8").split("\n");
  const leaves = (command: Command): Command[] =>
    command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
  const defaults = leaves(program).flatMap(({ options }) =>
    options.flatMap((option) => {
      if (!(option instanceof DeclaredOption) || declarationOf(option.schema).writes === undefined) return [];
      const value = defaultOf(option.schema);
      return typeof value === "string" ? [value] : [];
    }),
  );
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const named = [...readme.matchAll(/--output (\S+)|save\("([^"]+)"\)/g)].map(([, output, file]) => output ?? file!);

  it.each([...new Set(["pictures", "runs/NAME", "data/NAME/raw", "geneval/NAME", ...defaults, ...named])])(
    "%s is ignored by git in the clone",
    (path) => {
      const [first, ...below] = path.split("/");
      const isFile = below.length === 0 && first!.includes(".");
      expect(ignored).toContain(isFile ? `/${first}` : `/${first}/`);
    },
  );
});

const LOG = Array.from({ length: 8 }, (_, step) =>
  JSON.stringify({
    step,
    seconds: step,
    "train/loss": 1 / (step + 1),
    "train/raw_loss": 1 / (step + 1),
    "lr-AdamW": 0.1,
    "speed/images_per_second": 9,
  }),
).join("\n");
