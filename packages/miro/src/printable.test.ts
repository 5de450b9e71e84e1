import { expect, it } from "vitest";
import { run } from "./cli/main.js";
import { listed, oneLine, printable, shortened } from "./printable.js";

const HOSTILE = "a\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200f\r\x7f";
const SHOWN = "a\\x1b]0;title\\x07\\x9b2J\\u202egnp.exe\\u2066\\u200f\\x0d\\x7f";

it("controls are shown by their numbers, and all other text is left as it is", () => {
  expect(printable(HOSTILE)).toBe(SHOWN);
  const plain = "Füchse 🦊 שלום مرحبا\ttab\nline\u200d\u2028";
  expect(printable(plain)).toBe(plain);
});

it("of a long text its beginning is told, in whole characters", () => {
  for (const character of ["a", "🦊"]) {
    expect(shortened(character.repeat(60))).toBe(character.repeat(60));
    expect(shortened(character.repeat(61))).toBe(`${character.repeat(59)}…`);
    expect(shortened(character.repeat(1000))).toBe(`${character.repeat(59)}…`);
  }
  expect(shortened("a🦊🦊🦊🦊", 4)).toBe("a🦊🦊…");
});

it("of many names the first are told", () => {
  expect(listed([], 2)).toBe("");
  expect(listed(["a", "b"], 2)).toBe("a, b");
  expect(listed(["a", "b", "c"], 2)).toBe("a, b, …");
});

it("a message of several lines goes on one", () => {
  expect(oneLine("  a \n\n\t b\r\nc\n")).toBe("a; b; c");
  expect(oneLine("made by another recipe:\n  a: 1, 2 now\n  b")).toBe("made by another recipe: a: 1, 2 now; b");
});

it.each([
  ["a file that is not there", ["info", HOSTILE]],
  ["a folder of pictures", ["preprocess", "--stage", "rewards", "--src", HOSTILE]],
  ["a list of prompts", ["generate", "--prompts", HOSTILE]],
  ["a variant", ["generate", "a fox", "--variant", HOSTILE]],
  ["a recipe", ["train", HOSTILE]],
  ["a command", [HOSTILE]],
  ["an option", ["generate", `--${HOSTILE}`]],
])("no command of the terminal comes out of a message about %s", async (_, args) => {
  let written = "";
  const write = (text: string) => {
    written += text;
  };
  const code = await run(args, {
    stdout: write,
    stderr: write,
    interactive: false,
    signal: new AbortController().signal,
  });
  expect(code).not.toBe(0);
  expect(written).toMatch(/\\(?:x|u00)1b\]0;title/);
  expect(printable(written)).toBe(written);
});
