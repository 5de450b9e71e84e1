// The manual page: it has all that the help has, and troff prints it as it was meant.
import { spawnSync } from "node:child_process";
import { beforeAll, expect, test } from "vitest";
import { version } from "../version.js";
import { commandsOf } from "./completion.js";
import { PROGRAM_VARIABLES } from "./environment-variables.js";
import { wholeProgram } from "./main.js";
import { manPage } from "./man-page.js";

let page: string;
let commands: ReturnType<typeof commandsOf>;
beforeAll(async () => {
  const program = await wholeProgram();
  commands = commandsOf(program);
  page = manPage(program, version());
});

test("has every command, option and example, and every variable", () => {
  for (const { path, options } of commands) {
    if (path !== "") expect(page).toContain(`.SS "miro ${path.replaceAll("-", "\\-")} [`);
    for (const { long } of path === "" ? [] : options) expect(page).toContain(long.replaceAll("-", "\\-"));
  }
  expect(page).toContain('miro generate "a fox" \\-\\-images 4');
  expect(page).toContain("miro convert runs/emoji \\-\\-output release");
  for (const { rows } of PROGRAM_VARIABLES) for (const [names] of rows) expect(page).toContain(`.B "${names}"`);
});

test("is the same whatever terminal it is made in", async () => {
  const { columns } = process.stdout;
  try {
    process.stdout.columns = 40;
    expect(manPage(await wholeProgram(), version())).toBe(page);
  } finally {
    process.stdout.columns = columns;
  }
});

test("has nothing that troff would obey, and no long line of text", () => {
  // Other characters than those of ASCII are written by their code: every troff reads that.
  expect(page).toMatch(/^[\x20-\x7e\n]+$/);
  for (const line of page.split("\n")) {
    expect(line).toMatch(/^(\.(TH|SH|SS|TP|PP|B|I) ?|\\&|\[|[^.'])|^\.(TP|PP|nf|fi)$|^$/);
    if (!/^[. ]|^\\&/.test(line) && line.includes(" ")) expect(line.length, line).toBeLessThanOrEqual(80);
  }
});

test.each([
  ["groff", ["-man", "-Tutf8", "-ww", "-P-c", "-rHY=0"]],
  ["mandoc", ["-Tutf8", "-Wwarning"]],
])("%s prints it without a warning, where it is there", (formatter, args) => {
  const { error, stdout, stderr } = spawnSync(formatter, args, { input: page, encoding: "utf8" });
  if (error !== undefined) return;
  // The page has no date on purpose.
  const warnings = stderr.split("\n").filter((line) => /^mandoc: \S+:\d/.test(line) || formatter === "groff");
  expect(warnings.filter((line) => line !== "" && !line.includes("missing date"))).toEqual([]);
  // Bold letters are printed twice; words are filled into lines.
  const text = stdout.replaceAll(/.[\b]/g, "").replaceAll(/\s+/g, " ");
  expect(text).toContain("miro generate [options] [prompt...]");
  expect(text).toContain("precision of the computation; auto: bfloat16 where it is faster");
  expect(text).toContain('miro generate "a fox" --images 4 --seed 7 --reward sharpness=0.3');
  expect(text).toMatch(/cpu, cuda, cuda:1, …/);
});
