#!/usr/bin/env node
/**
 * Writes `docs/recipes.md`, the reference of all recipe keys, from the schemas that check recipes. A test compares the
 * page with them.
 *
 *   npm run docs:recipes
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { recipesPage } from "../packages/miro/dist/cli/recipe-keys.js";
import { argumentsOf } from "./setup/command-line.mjs";

argumentsOf(import.meta.url);
const page = fileURLToPath(new URL("../docs/recipes.md", import.meta.url));
writeFileSync(page, recipesPage());
console.error(page);
