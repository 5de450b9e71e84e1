/** What commands say while they work and when they are stopped: progress, notes, how to go on; nothing with --quiet. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { run } from "./main.js";
import { paint } from "./paint.js";
import { runCaptured as miro, runStoppable } from "./testing/run-captured.js";

const before = process.cwd();
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "miro-stopping-"));
  process.chdir(folder);
  await miro("generate", "a fox", "--steps", "1", "--output", "fox.png");
  mkdirSync("set/00000/samples", { recursive: true });
  writeFileSync("set/00000/metadata.jsonl", '{"prompt": "a fox"}');
  writeFileSync("set/00000/samples/0000.png", readFileSync("fox.png"));
  mkdirSync("raw");
  writeFileSync("raw/a.png", readFileSync("fox.png"));
  writeFileSync("raw/a.txt", "a fox");
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true, force: true });
});
afterEach(() => vi.unstubAllEnvs());

const stopped = AbortSignal.abort();
const RENDER = ["render", "emoji-data", "samples=4", "samples_per_shard=2"];

describe("a command that is stopped", () => {
  it.each([
    [["sweep", "a fox", "--x", "steps=1,2"], /the same command goes on$/],
    [[...RENDER, "--output", "rendered"], /the same command goes on$/],
    [["score", "fox.png", "--by", "sharpness"], /--output FILE keeps scores/],
    [["score", "fox.png", "--by", "sharpness", "--output", "scores.csv"], /the same command goes on$/],
    [["evaluate", "rewards", "set", "--scorers", "sharpness"], /what is scored is kept; the same command goes on$/],
    [["evaluate", "geneval", "--prompts", "emoji", "--outdir", "geneval"], /the same command goes on$/],
    [["preprocess", "--stage", "rewards", "--src", "raw"], /the same command goes on$/],
  ])("miro %j says how it goes on", async (args, how) => {
    const { code, stdout, stderr } = await runStoppable(args, stopped);
    expect([code, stdout]).toEqual([130, ""]);
    expect(stderr.trimEnd().split("\n").at(-1)).toMatch(/^Interrupted: /);
    expect(stderr.trimEnd()).toMatch(how);
  });

  it("says what is done, and goes on with what is left", async () => {
    const stop = new AbortController();
    const draw = ["generate", "a fox", "--images", "3", "--steps", "1", "--output", "drawn", "--seed", "5"];
    const running = runStoppable(draw, stop.signal);
    while (!exists("drawn/a-fox-seed5.png")) await sleep(5);
    stop.abort();
    const { code, stderr } = await running;
    expect(code).toBe(130);
    expect(stderr).toMatch(/^Interrupted: [12] of 3 pictures drawn; the same command with --resume draws the rest\n$/);
    expect((await miro(...draw, "--resume")).code).toBe(0);
  });
});

function exists(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

describe("--quiet", () => {
  it.each([
    [["generate", "a fox", "--steps", "1", "--seed", "random", "--output", "quiet"]],
    [["sweep", "a fox", "--x", "steps=1,2", "--by", "sharpness", "--output", "quiet-sweep"]],
    [[...RENDER, "--output", "quiet-shards"]],
  ])("miro %j leaves stderr to warnings and errors", async (args) => {
    const { code, stdout, stderr } = await miro(...args, "--quiet");
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).not.toBe("");
    const again = await miro(...args, "--quiet", "--steps", "0");
    expect(again.stderr).toMatch(/^error: [^\n]+\n$/);
  });

  it("is known to every command", async () => {
    for (const args of [["models"], ["doctor"], ["evaluate", "parti"], ["train"], ["publish"]])
      expect((await miro(...args, "--help")).stdout).toMatch(/^ {2}--quiet /m);
  });
});

describe("colours", () => {
  it("are those of errors and warnings, where the terminal has them", async () => {
    let text = "";
    const stderr = (more: string) => (text += more);
    const colours = { stdout: true, stderr: true };
    await run(["generate", "a fox", "--steps", "0"], { stderr, stdout: () => {}, colours });
    expect(text).toMatch(`${paint("red", "error:")} --steps`);
  });
});

describe("--open and --show", () => {
  /** A desktop whose opener notes what it is asked for, and fails for names with "bad". */
  const desktop = () => {
    mkdirSync("bin", { recursive: true });
    writeFileSync("bin/xdg-open", `#!/bin/sh\necho "$1" >> "${folder}/opened"\ncase "$1" in *bad*) exit 3;; esac\n`);
    chmodSync("bin/xdg-open", 0o755);
    vi.stubEnv("PATH", `${join(folder, "bin")}${delimiter}${process.env.PATH}`);
  };

  it("open the picture, or the folder of several, and tell when nothing opens", async () => {
    desktop();
    const draw = ["generate", "a fox", "--steps", "1", "--open", "--quiet"];
    expect((await miro(...draw, "--output", "open/one.png")).stderr).toBe("");
    expect((await miro(...draw, "--images", "2", "--output", "open/two")).stderr).toBe("");
    expect((await miro(...draw, "--output", "bad.png")).stderr).toBe(
      "warning: bad.png could not be opened: xdg-open knows no program for it here; --show shows pictures in some terminals\n",
    );
    expect(readFileSync("opened", "utf8")).toBe("open/one.png\nopen/two\nbad.png\n");
    vi.stubEnv("PATH", join(folder, "empty"));
    expect((await miro("info", "fox.png", "--open")).stderr).toMatch(/^warning: .*xdg-open is missing/);
  });

  it("show the picture after the text, by the protocol that is named", async () => {
    const { code, stdout } = await miro("info", "fox.png", "--show", "kitty");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^file: fox\.png\n/);
    expect(stdout.slice(stdout.indexOf("\x1b"))).toMatch(/^._Ga=T,f=100,q=2,m=[01];[\s\S]*.\\\n$/);
    const drawn = await miro("generate", "--show=sixel", "a fox", "--steps", "1", "--output", "shown.png");
    expect(drawn.stdout).toMatch(/^shown\.png\n.P0;1q/);
  });

  it("are refused where they have no meaning, before anything is drawn", async () => {
    const { code, stderr } = await miro("generate", "a fox", "--show", "kitty", "--json", "--output", "never");
    expect([code, exists("never/a-fox-seed0.png")]).toEqual([2, false]);
    expect(stderr).toContain("--show: expected no --json with it");
    expect(await miro("generate", "a fox", "--show=fax")).toMatchObject({ code: 2 });
    expect(await miro("info", "set/00000/metadata.jsonl", "--show", "kitty")).toMatchObject({ code: 2 });
    const piped = await miro("info", "fox.png", "--show");
    expect(piped).toMatchObject({ code: 0, stderr: expect.stringContaining("standard output is no terminal") });
  });
});
