import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { z } from "zod";
import { MiroError } from "../errors.js";
import { field } from "../options.js";
import { runProgram } from "./program.js";

const argv = process.argv;
afterEach(() => {
  process.argv = argv;
  vi.restoreAllMocks();
});

async function call(...args: string[]) {
  const written = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const)
    vi.spyOn(process[stream], "write").mockImplementation((text) => {
      written[stream] += String(text);
      return true;
    });
  process.argv = [...argv.slice(0, 2), ...args];
  const code = await runProgram({
    name: "npm run count --",
    summary: "Counts.",
    schema: z.strictObject({
      rounds: field(z.int().min(1).default(3), {
        expected: "an integer of at least 1",
        help: "rounds",
        flag: "--rounds <n>",
      }),
    }),
    notes: "Exit code 7: as many rounds as asked for.",
    run: ({ rounds }) => {
      if (rounds === 6) readFileSync("/nowhere/rounds.txt");
      if (rounds === 8) throw new MiroError("the network is gone");
      return rounds === 5 ? 7 : undefined;
    },
  });
  vi.restoreAllMocks();
  return { code, ...written };
}

describe("runProgram", () => {
  it("prints help with types, defaults and notes, and hands over the checked options", async () => {
    const { code, stdout, stderr } = await call("--help");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/--rounds <n> +rounds \(an integer of at least 1; default: 3\)/);
    expect(stdout).toContain("Exit code 7");
    expect(await call()).toMatchObject({ code: 0 });
    expect(await call("--rounds", "5")).toMatchObject({ code: 7 });
  });

  it.each([
    [["--wrong"], "error: unknown option '--wrong'\n"],
    [["--rounds", "0"], "error: --rounds: expected an integer of at least 1, received 0\n"],
    [["--rounds", "6"], "error: /nowhere/rounds.txt: no such file or directory\n"],
    [["--rounds", "some"], 'error: --rounds: expected a number, received "some"\n'],
  ])("refuses %j in one line, with exit code 2", async (args, line) => {
    expect(await call(...args)).toEqual({ code: 2, stdout: "", stderr: line });
  });

  it("ends with 1 where something fails that nobody has written wrongly", async () => {
    expect(await call("--rounds", "8")).toEqual({ code: 1, stdout: "", stderr: "error: the network is gone\n" });
  });
});
