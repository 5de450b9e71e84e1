/** Options that many commands have. */
import { z } from "zod";
import { field, flag } from "../options.js";

/** Threads of the computation. */
export const threads = field(z.int().min(1).optional(), {
  expected: "an integer of at least 1",
  help: "processor threads",
  flag: "--threads <n>",
  otherwise: "libtorch's choice",
});

/** Results for programs, instead of lines for people. */
export const json = flag("print one JSON object on stdout", "--json");

/** The recipe of a command, and values that replace its own. */
export const recipeArguments = {
  recipe: field(z.string(), { expected: "a file", help: "YAML file of the recipe", flag: "<recipe>" }),
  overrides: field(z.array(z.string()).default([]), {
    expected: "key=value",
    help: "values that replace those of the recipe",
    flag: "[key=value...]",
  }),
};
