// Completion: bash runs the generated code and is asked what it would complete; the others are read.
import { execFileSync } from "node:child_process";
import { beforeAll, describe, expect, test } from "vitest";
import { commandsOf } from "./completion.js";
import { run, wholeProgram } from "./main.js";

const printed = async (...args: string[]) => {
  let text = "";
  const code = await run(args, { stdout: (more) => (text += more), stderr: (more) => (text += more) });
  return { code, text };
};

describe("bash", () => {
  let script: string;
  beforeAll(async () => {
    script = (await printed("completion", "bash")).text;
  });
  /** What bash offers for the last word. */
  const completes = (...words: string[]) => {
    const asking = `${script}\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n_miro\nprintf '%s\\n' "\${COMPREPLY[@]}"`;
    return execFileSync("bash", ["-c", asking, "bash", ...words], { encoding: "utf8" })
      .trim()
      .split("\n");
  };

  test("completes commands, also inside commands", () => {
    expect(completes("miro", "ge")).toEqual(["generate"]);
    expect(completes("miro", "evaluate", "gen")).toEqual(["geneval"]);
    expect(completes("miro", "completion", "")).toEqual(expect.arrayContaining(["bash", "zsh", "fish"]));
  });
  test("completes the options of the command that was typed, whatever stands between", () => {
    expect(completes("miro", "generate", "a fox", "--see")).toEqual(["--seed"]);
    expect(completes("miro", "doctor", "--see")).toEqual([""]);
  });
  test("completes the values of an option that has only a few", () => {
    expect(completes("miro", "generate", "--quantize", "")).toEqual(["none", "int8"]);
    expect(completes("miro", "generate", "--sampler", "eul")).toEqual(["euler", "euler_ancestral"]);
  });
});

test("every shell gets every command and every option", async () => {
  const commands = commandsOf(await wholeProgram());
  expect(commands.length).toBeGreaterThan(10);
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, text } = await printed("completion", shell);
    expect(code).toBe(0);
    for (const { commands: below, options } of commands) {
      for (const { name } of below) expect(text).toContain(name);
      for (const { long } of options) expect(text, shell).toContain(shell === "fish" ? `-l ${long.slice(2)}` : long);
    }
  }
});

test("an unknown shell is refused with those that are known", async () => {
  const { code, text } = await printed("completion", "powershell");
  expect(code).toBe(2);
  expect(text).toContain("bash, zsh or fish");
});

test("what is nearly a command or an option is asked for", async () => {
  expect((await printed("genrate", "a fox")).text).toContain("Did you mean generate?");
  expect((await printed("generate", "a fox", "--sed", "1")).text).toContain("Did you mean --seed?");
});
