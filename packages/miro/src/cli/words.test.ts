import { expect, it } from "vitest";
import { meantWords } from "./words.js";

it("a text in the place of a command is a prompt, a word is a command, what a terminal obeys is neither", () => {
  expect(meantWords(["a fox", "--seed", "1"])).toEqual(["generate", "a fox", "--seed", "1"]);
  expect(meantWords(["🦊"])).toEqual(["generate", "🦊"]);
  expect(meantWords(["fox"])).toEqual(["fox"]);
  expect(meantWords(["a\x1b[31m fox"])).toEqual(["a\x1b[31m fox"]);
});

it("behind --show stands a protocol, or what belongs to the command", () => {
  const shown = (...words: string[]) => meantWords(["generate", ...words]).slice(1);
  expect(shown("--show", "sixel", "a fox")).toEqual(["--show=sixel", "a fox"]);
  expect(shown("--show", "a fox", "kitty")).toEqual(["--show=auto", "a fox", "kitty"]);
  expect(shown("a fox", "--show")).toEqual(["a fox", "--show=auto"]);
  expect(shown("--show=iterm", "kitty")).toEqual(["--show=iterm", "kitty"]);
  expect(shown("--", "--show", "kitty")).toEqual(["--", "--show", "kitty"]);
});
