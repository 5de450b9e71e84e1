/** Options that many commands have. */
import { z } from "zod";
import { field, flag } from "../options.js";

/** Results for programs, instead of lines for people. */
export const json = flag("print one JSON object on stdout", "--json");

/** What every command of `miro` has. */
export const quietOptions = z.strictObject({
  quiet: flag("no progress and no notes on stderr, only warnings and errors", "--quiet"),
});

/** Modules that register scorers: a command loads them before it looks at anything else. */
export const scorerModules = field(z.array(z.string().min(1)).default([]), {
  expected: "files of ES modules",
  help: "ES module that registers scorers of your own (docs/rewards.md); may be given several times",
  flag: "--scorer-module <file.mjs>",
});

/** The recipe of a command, and values that replace its own. */
export const recipeArguments = {
  recipe: field(z.string(), { expected: "a file", help: "YAML file of the recipe", flag: "<recipe>" }),
  overrides: field(z.array(z.string()).default([]), {
    expected: "key=value",
    help: "values that replace those of the recipe",
    flag: "[key=value...]",
  }),
};
