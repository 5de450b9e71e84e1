/** Settings files: what is found, what counts, what is refused. */
import { chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { wholeProgram } from "./main.js";
import { OPTION_NAMES } from "./option-names.generated.js";
import { optionNames, settingsPaths } from "./settings.js";
import { runCaptured as miro } from "./testing/run-captured.js";

const before = process.cwd();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-settings-"));
  mkdirSync(join(folder, "project", "inside"), { recursive: true });
  process.chdir(join(folder, "project", "inside"));
  vi.stubEnv("MIRO_CONFIG", undefined);
  vi.stubEnv("XDG_CONFIG_HOME", join(folder, "config"));
});
afterEach(() => {
  process.chdir(before);
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** Writes the file of the project, which is one folder above, or of the user. */
function settings(text: string, whose: "project" | "user" = "project"): string {
  const file =
    whose === "project" ? join(folder, "project", "miro.config.yaml") : join(folder, "config/miro/config.yaml");
  if (whose === "user") mkdirSync(join(folder, "config", "miro"), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** An option of a command as `miro config` tells it. */
async function optionOf(command: string, option: string): Promise<{ value: unknown; from: string }> {
  const { code, stdout, stderr } = await miro("config", ...command.split(" "), "--json");
  expect([code, stderr]).toEqual([0, ""]);
  const { value, from } = JSON.parse(stdout).options.find((one: { option: string }) => one.option === option);
  return { value, from };
}

describe("the value that counts", () => {
  it("is not that of a relative XDG_CONFIG_HOME, which counts for nothing", async () => {
    const file = settings("threads: 3\n", "user");
    vi.stubEnv("HOME", join(folder, "home"));
    vi.stubEnv("XDG_CONFIG_HOME", relative(process.cwd(), join(folder, "config")));
    expect((await optionOf("generate", "threads")).from).not.toContain(file);
    mkdirSync(join(folder, "home", ".config", "miro"), { recursive: true });
    writeFileSync(join(folder, "home", ".config", "miro", "config.yaml"), "threads: 5\n");
    expect((await optionOf("generate", "threads")).value).toBe(5);
  });

  it("is that of the project before that of the user, of the command before that of all, else the default", async () => {
    const user = settings("device: cuda\nthreads: 3\ngenerate: { steps: 10, guidance: 2 }\n", "user");
    const project = settings("steps: 20\nevaluate:\n  seed: 1\n  geneval: { n-samples: 2, text_encoder: t5 }\n");
    expect(await optionOf("generate", "threads")).toEqual({ value: 3, from: `${user}:2` });
    expect(await optionOf("generate", "guidance")).toEqual({ value: 2, from: `${user}:3` });
    expect(await optionOf("generate", "steps")).toEqual({ value: 20, from: `${project}:1` });
    expect(await optionOf("evaluate geneval", "seed")).toEqual({ value: 1, from: `${project}:3` });
    expect(await optionOf("evaluate geneval", "n-samples")).toEqual({ value: 2, from: `${project}:4` });
    expect(await optionOf("evaluate geneval", "text-encoder")).toEqual({ value: "t5", from: `${project}:4` });
    expect(await optionOf("sweep", "seed")).toEqual({ value: "0", from: "default" });
  });

  it("is drawn with and stored; flags go before it, and a picture that is drawn again keeps its own", async () => {
    settings("generate:\n  steps: 2\n  reward: { sharpness: 0.25 }\n  output: drawn\n  name: fox\n  quiet: true\n");
    const stored = async (name: string) => JSON.parse((await miro("info", name, "--json")).stdout).settings;
    expect(await miro("generate", "a fox")).toMatchObject({ code: 0, stderr: "" });
    expect(await stored("drawn/fox.png")).toMatchObject({ steps: 2, rewardTargets: { sharpness: 0.25 } });
    await miro("generate", "a fox", "--steps", "1", "--reward", "colorfulness=0.5", "--name", "flags");
    const { steps, rewardTargets } = await stored("drawn/flags.png");
    expect([steps, rewardTargets.colorfulness, rewardTargets.sharpness]).toEqual([1, 0.5, 1]);
    settings("generate: { steps: 3, seed: 9, guidance: 1, reward: { sharpness: 0 }, output: drawn }\n");
    expect((await miro("generate", "--from", "drawn/fox.png", "--name", "again")).code).toBe(0);
    expect(await stored("drawn/again.png")).toEqual(await stored("drawn/fox.png"));
  });

  it("is that of a flag, which overrides what a file gives", async () => {
    settings("low-memory: true\nquiet: true\ngenerate: { steps: 1, output: drawn }\n");
    expect(await miro("generate", "a fox")).toMatchObject({ code: 0, stderr: "" });
    const told = await miro("generate", "a cat", "--no-quiet", "--no-low-memory");
    expect(told).toMatchObject({ code: 0, stderr: expect.stringContaining("1 picture in") });
  });

  it.each(["", "# nothing yet\n", "generate:\n#  steps: 3\nevaluate:\n  geneval:\n"])(
    "is the default where a file or a section holds comments alone: %j",
    async (text) => {
      settings(text);
      expect(await miro("models", "--quiet")).toMatchObject({ code: 0, stderr: "" });
      expect(await optionOf("generate", "steps")).toMatchObject({ from: "default" });
      expect(await optionOf("evaluate geneval", "seed")).toMatchObject({ from: "default" });
    },
  );

  it("comes from the one file that MIRO_CONFIG names, or from none", async () => {
    settings("generate: { steps: 2 }\n");
    writeFileSync("other.yaml", "generate: { steps: 7 }\n");
    vi.stubEnv("MIRO_CONFIG", "other.yaml");
    expect(await optionOf("generate", "steps")).toEqual({ value: 7, from: "other.yaml:1" });
    vi.stubEnv("MIRO_CONFIG", "");
    expect(await optionOf("generate", "steps")).toMatchObject({ from: "default" });
    vi.stubEnv("MIRO_CONFIG", "nowhere.yaml");
    expect(await miro("models")).toMatchObject({ code: 2, stderr: expect.stringContaining("nowhere.yaml") });
  });

  it("does not come from a file above that is another user's", () => {
    const file = settings("device: cuda\n");
    if (process.getuid!() === 0) chownSync(file, 12345, 12345);
    else vi.spyOn(process, "getuid").mockReturnValue(12345);
    const { paths, warnings } = settingsPaths();
    expect(paths).toEqual([]);
    expect(warnings[0]).toContain(`${file} is left out, as it belongs to another user`);
    process.chdir("..");
    expect(settingsPaths()).toEqual({ paths: [file], warnings: [] });
  });
});

describe("what is wrong is one line that names file and line", () => {
  it.each([
    ["generate:\n  steps: 0\n", ":2: --steps: expected an integer of at least 1, received 0"],
    ["generate:\n  steps: many\n", ':2: --steps: expected a number, received "many"'],
    ["steps:\n", ":1: --steps: expected an integer of at least 1, received null"],
    ["generate: { reward: { sharpness: much } }\n", ":1: --reward"],
    ["generate: { overwrite: maybe }\n", ':1: --overwrite: expected true or false, received "maybe"'],
    ["generate:\n  stepz: 3\n", ":2: generate.stepz is no option of miro generate; did you mean steps?"],
    ["devise: cuda\n", ":1: devise is no option of any command; did you mean device or devices?"],
    ["generat:\n  steps: 3\n", ":1: generat is no option of any command; did you mean generate?"],
    ["evaluate: {}\ngenerate: 3\n", ":2: generate: expected the settings of miro generate"],
    ["- a\n", ": expected a mapping of options and commands"],
    ["a: [\n", ": not valid YAML"],
    ["__proto__: { a: 1 }\n", "__proto__"],
  ])("%j", async (text, message) => {
    const file = settings(text);
    const { code, stdout, stderr } = await miro("generate", "a fox");
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^error: [^\n]*\n$/);
    expect(stderr).toContain(file);
    expect(stderr).toContain(message);
  });

  it("or a warning of each command, where it stands in the section of another one", async () => {
    const file = settings(
      "threads: 2\ngenerate:\n  stepz: 3\nevaluate:\n  geneval: { n_sample: 1, seed: 1 }\n  partj: {}\ntrain: 3\n",
    );
    const told = [
      `warning: ${file}:3: generate.stepz is no option of miro generate; did you mean steps?\n`,
      `warning: ${file}:5: evaluate.geneval.n-sample is no option of miro evaluate geneval; did you mean n-samples?\n`,
      `warning: ${file}:6: evaluate.partj is no option of miro evaluate; did you mean parti?\n`,
      `warning: ${file}:7: train: expected the settings of miro train\n`,
    ];
    expect(await miro("models", "--quiet")).toMatchObject({ code: 0, stderr: told.join("") });
    const own = await miro("evaluate", "rewards", "nowhere", "--scorers", "sharpness");
    expect(own.stderr).toMatch(/^error: .*:6: evaluate\.partj is no option of miro evaluate; did you mean parti\?\n$/);
  });

  it("in the sections of all commands where miro config looks at them", async () => {
    const file = settings("evaluate:\n  geneval:\n    n-samples: 0\n");
    expect((await miro("generate", "--help")).code).toBe(0);
    const { code, stderr } = await miro("config");
    expect(code).toBe(2);
    expect(stderr).toContain(`${file}:3: `);
  });
});

it("option-names.generated.ts has the options that commands declare; npm run generate:option-names writes it", async () => {
  expect(OPTION_NAMES).toEqual(optionNames(await wholeProgram()));
});

it("an option of other commands at the top is none of this one's business", async () => {
  settings("n-samples: 2\nplot: { output: mine.svg }\n");
  expect(await miro("models")).toMatchObject({ code: 0, stderr: "" });
});

it("miro config lists files, values and the commands that they are for", async () => {
  const file = settings("threads: 2\nplot:\n  smooth: 0\n");
  const { stdout } = await miro("config");
  expect(stdout.split("\n")[0]).toBe(file);
  expect(stdout).toMatch(/^threads +2 +\S+:1 +generate, studio, .*score/m);
  expect(stdout).toMatch(/^plot\.smooth +0 +\S+:3 +plot$/m);
  expect(await miro("config", "sweeep")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("evaluate geneval"),
  });
});
