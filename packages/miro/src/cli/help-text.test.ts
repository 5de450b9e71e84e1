import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { isFlag } from "../options.js";
import { DeclaredOption } from "./add-options.js";
import { wrapHelp } from "./help-text.js";
import { wholeProgram } from "./main.js";

const program = await wholeProgram();
const commands = (function below(command: Command): Command[] {
  return [command, ...command.commands.flatMap(below)];
})(program);

/** What `--help` prints at a width. */
function helpAt(width: number, command: Command): string {
  let text = "";
  command
    .configureHelp({ ...command.configureHelp(), helpWidth: width })
    .configureOutput({ writeOut: (more) => (text += more), writeErr: () => {} })
    .outputHelp();
  return text;
}

describe.each([40, 60, 80, 110])("help at %i columns", (width) => {
  it.each(commands.map((command) => [command.name(), command] as const))("of %s is not wider", (_, command) => {
    const wide = helpAt(width, command)
      .split("\n")
      .filter((line) => [...line].length > width)
      // A command is copied whole; a word, and the name of an option, cannot be broken.
      .filter((line) => !/^(?:Usage:| +(?:MIRO_\S+ )?miro) /.test(line))
      .filter((line) => /^\s*\S+ \S/.test(line) && !/^ {2}-\S+ \S+$/.test(line));
    expect(
      wide.filter((line) =>
        line
          .trim()
          .split(" ")
          .every((word) => word.length < width / 2),
      ),
    ).toEqual([]);
  });
});

it("shows the default of every option that has a value", () => {
  for (const command of commands)
    for (const option of command.options) {
      if (!(option instanceof DeclaredOption) || isFlag(option.schema) || option.isNeeded) continue;
      expect(option.description, `${command.name()} ${option.flags}`).toMatch(
        /\(.*default: \S.*\)$|; default: \S.*\)$/,
      );
    }
});

it("fills paragraphs, keeps commands whole, and puts what is said about them beside or below", () => {
  const text = [
    "Examples:",
    "  miro a    short words that go on for longer than the line is wide",
    '  miro generate "a fox" --x    said',
    "",
    "One two three four five",
    "six seven.",
  ].join("\n");
  expect(wrapHelp(text, 30).split("\n")).toEqual([
    "Examples:",
    "  miro a    short words that",
    "            go on for longer",
    "            than the line is",
    "            wide",
    '  miro generate "a fox" --x',
    "      said",
    "",
    "One two three four five six",
    "seven.",
  ]);
});
