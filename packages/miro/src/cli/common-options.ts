/** Options that many commands have. */
import { z } from "zod";
import { field, flag } from "../options.js";

/** Results for programs, instead of lines for people. */
export const json = flag("print one JSON object on stdout", "--json");

/** What every command of `miro` has. */
export const quietOptions = z.strictObject({
  quiet: flag("no progress and no notes on stderr, only warnings and errors", "--quiet"),
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
