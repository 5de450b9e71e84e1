/** What cannot be written is told before anything is done, by every option of every command that names an output. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { afterAll, beforeAll, expect, it } from "vitest";
import { declarationOf } from "../options.js";
import { DeclaredOption } from "./add-options.js";
import { wholeProgram } from "./main.js";
import { commandPath } from "./settings.js";
import { runCaptured as miro } from "./testing/run-captured.js";

const before = process.cwd();
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-outputs-"));
  process.chdir(folder);
  writeFileSync("file", "");
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true, force: true });
});

/** Command lines that would do something if their output could be written. */
const lines = (await wholeProgram()).commands.flatMap(function below(
  command: Command,
): (readonly [readonly string[], string, string])[] {
  const words = command.registeredArguments.filter(({ required }) => required).map(() => "owner/nowhere");
  const declared = command.options.filter((option) => option instanceof DeclaredOption);
  const needed = declared
    .filter(({ isNeeded }) => isNeeded)
    .map((one) => `--${one.key}=${one.values?.[0] ?? "steps=1"}`);
  const outputs = declared.filter(({ schema }) => declarationOf(schema).writes !== undefined);
  const own = outputs.map(({ key, schema }) => {
    const ending = ["", ".npy", ".png"].find((ending) => schema.safeParse(`a${ending}`).success)!;
    return [[...commandPath(command), ...words, ...needed], `--${key}`, ending] as const;
  });
  return [...own, ...command.commands.flatMap(below)];
});
const all = [...lines, [["generate", "a fox"], "--output", ""]] as const;

it("are known of all commands that write", () => {
  const commands = new Set(all.map(([[name]]) => name));
  for (const name of ["generate", "sweep", "score", "info", "plot", "train", "convert", "render", "evaluate", "studio"])
    expect(commands).toContain(name);
});

it.each(all.map(([words, flag, ending]) => [`${words.join(" ")} ${flag}`, words, flag, ending] as const))(
  "%s",
  async (_, words, flag, ending) => {
    writeFileSync("a.png", "");
    const failed = await miro(...words, `${flag}=/proc/none/a${ending}`);
    expect(failed.stderr).toMatch(/^error: .*\/proc\/none.* cannot be (?:created|written): [^\n]+\n$/);
    expect([failed.code, failed.stdout]).toEqual([1, ""]);
    const wrong = await miro(...words, `${flag}=file/a${ending}`);
    expect(wrong.stderr).toMatch(/^error: .*file.* is a file, not a folder\n$/);
    expect([wrong.code, wrong.stdout]).toEqual([2, ""]);
    const empty = await miro(...words, `${flag}=`);
    expect(empty.stderr).toMatch(new RegExp(`^error: ${flag}: expected an? [^\n]+, received ""\n$`));
    expect([empty.code, empty.stdout]).toEqual([2, ""]);
    expect(readdirSync(".").sort()).toEqual(["a.png", "file"]);
  },
);
