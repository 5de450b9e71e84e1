#!/usr/bin/env node
/**
 * Writes the table of environment variables into `docs/install.md`. A test compares the two.
 *
 *   npm run docs:environment
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { variableTable } from "../packages/miro/dist/cli/environment-variables.js";
import { argumentsOf } from "./setup/command-line.mjs";

argumentsOf(import.meta.url);
const page = fileURLToPath(new URL("../docs/install.md", import.meta.url));
const text = readFileSync(page, "utf8");
const table = /(<!-- npm run docs:environment writes this table -->\n\n)[\s\S]*(\n<!-- its end -->)/;
if (!table.test(text)) throw new Error(`${page} has no place for the table`);
writeFileSync(
  page,
  text.replace(table, (_, begin, end) => begin + variableTable() + end),
);
console.error(page);
