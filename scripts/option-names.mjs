#!/usr/bin/env node
/**
 * Writes `packages/miro/src/cli/option-names.generated.ts`, the names of all options, from what the commands declare.
 * A test compares the file with them.
 *
 *   npm run generate:option-names
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { wholeProgram } from "../packages/miro/dist/cli/main.js";
import { optionNames } from "../packages/miro/dist/cli/settings.js";
import { argumentsOf } from "./setup/command-line.mjs";

argumentsOf(import.meta.url);
const file = fileURLToPath(new URL("../packages/miro/src/cli/option-names.generated.ts", import.meta.url));
const lines = Object.entries(optionNames(await wholeProgram())).map(
  ([path, names]) => `  ${JSON.stringify(path)}: ${JSON.stringify(names)},\n`,
);
writeFileSync(
  file,
  `// Written by npm run generate:option-names from the options that the commands declare.
/**
 * The options of every command by their names in settings files: a file is checked by them without loading the commands
 * that its sections are for.
 */
export const OPTION_NAMES: Readonly<Record<string, readonly string[]>> = {
${lines.join("")}};
`,
);
console.error(file);
