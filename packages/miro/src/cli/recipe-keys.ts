/** The reference of recipe keys: what `miro train --keys` prints, and `docs/recipes.md` (`npm run docs:recipes`). */
import "./extensions.js";
import type { z } from "zod";
import { patchAutoencoderConfigSchema } from "../autoencoder/patch-autoencoder.js";
import { rawShardsRecipeSchema } from "../emoji/scenes/raw-shards.js";
import { precondConfigSchema, rinConfigSchema } from "../networks/config.js";
import { taskSpecs } from "../training/loop/tasks.js";
import { type OpenSections, type RecipeKey, recipeKeys } from "../training/recipes/reference.js";
import { recipeSchema } from "../training/recipes/schema.js";
import { alignedMarkdownTable } from "./text-table.js";

/** A kind of recipe with its keys. */
export interface RecipeKind {
  /** Value of its key `kind`; null for recipes of the diffusion network, which have none. */
  kind: string | null;
  /** What makes something of it. */
  command: string;
  keys: RecipeKey[];
}

/** What is in sections that the schemas of recipes leave open. */
const OPEN: Readonly<Record<string, OpenSections>> = {
  diffusion: { network: rinConfigSchema, preconditioning: precondConfigSchema },
  autoencoder: { network: patchAutoencoderConfigSchema },
};

/** All kinds of recipes. */
export function recipeKinds(): RecipeKind[] {
  const tasks = [...taskSpecs()].map(([kind, { schema }]) => ({
    kind,
    command: "miro train",
    keys: recipeKeys(schema as unknown as z.ZodObject, OPEN[kind]),
  }));
  return [
    { kind: null, command: "miro train", keys: recipeKeys(recipeSchema(), OPEN.diffusion) },
    ...tasks,
    { kind: "emoji-data", command: "miro render", keys: recipeKeys(rawShardsRecipeSchema) },
  ];
}

/** Keys that stand together: those at the top, or those of a section. */
interface Section {
  /** Its place; "" for the top. */
  place: string;
  /** The `data.kind` that has it. */
  kind?: string | undefined;
  about: string;
  keys: RecipeKey[];
}

/** The sections that have values of their own, each in one piece. */
function sectionsOf(keys: readonly RecipeKey[]): Section[] {
  const sections = new Map<string, Section>();
  for (const key of keys) {
    if (key.type === null) continue;
    const place = key.key.slice(0, Math.max(0, key.key.lastIndexOf(".")));
    const name = JSON.stringify([place, key.kind]);
    const about = keys.find((one) => one.type === null && one.key === place)?.description ?? "";
    const section = sections.get(name) ?? { place, kind: key.kind, about, keys: [] };
    sections.set(name, section);
    section.keys.push(key);
  }
  return [...sections.values()];
}

/** The keys of a kind of recipe, for people. */
export function keysText({ keys }: RecipeKind): string {
  const sections = sectionsOf(keys).map(({ place, kind, about, keys }) => {
    const width = Math.max(...keys.map(({ key }) => key.length));
    const lines = keys.map((key) => {
      const upstream = key.upstream === undefined ? [] : [`published code: ${key.upstream}`];
      return `  ${key.key.padEnd(width)}  ${key.description} (${[key.type, ...defaultWords(key), ...upstream].join("; ")})\n`;
    });
    const head = `${place}${kind === undefined ? "" : ` with data.kind ${kind}`}: ${about}\n`;
    return `${place === "" ? "" : head}${lines.join("")}`;
  });
  return sections.join("\n");
}

function defaultWords(key: RecipeKey): string[] {
  if (key.required) return ["required"];
  return key.default === undefined ? [] : [`default ${shown(key.default)}`];
}

/** A value as a recipe writes it. */
function shown(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  return `{ ${Object.entries(value)
    .map(([name, one]) => `${name}: ${shown(one)}`)
    .join(", ")} }`;
}

const HEAD = `# Recipe keys

Every key of every kind of recipe, with its type, its default and what it means. \`npm run docs:recipes\` writes this page
from the schemas that check recipes; \`miro train --keys\` prints the same, \`miro train RECIPE --keys\` for the kind of a
recipe. [Training](training.md) says how recipes are put together. The last column is the key in the configuration of the
published code, where it is there under another name.

\`\`\`sh
npx miro train --keys | grep ema
npx miro train emoji-text --keys --json > keys.json
\`\`\`
`;

const TITLES: Readonly<Record<string, string>> = {
  autoencoder: "Recipes of an autoencoder (`kind: autoencoder`)",
  "text-encoder": "Recipes of a text encoder (`kind: text-encoder`)",
  clip: "Recipes of a CLIP (`kind: clip`)",
  classifier: "Recipes of a classifier (`kind: classifier`)",
  "emoji-data": "Recipes of emoji scenes as raw shards (`kind: emoji-data`, `miro render`)",
};

/** The page. */
export function recipesPage(kinds: readonly RecipeKind[] = recipeKinds()): string {
  const parts = kinds.map(
    ({ kind, keys }) =>
      `## ${kind === null ? "Recipes of the diffusion network" : (TITLES[kind] ?? `Recipes of kind ${kind}`)}\n\n${tables(keys)}`,
  );
  return `${HEAD}\n${parts.join("\n")}`;
}

/** A table for the keys at the top, and one for each section. */
function tables(keys: readonly RecipeKey[]): string {
  return sectionsOf(keys)
    .map(({ place, kind, about, keys }) => {
      if (place === "") return table(keys);
      const title = `\`${place}\`${kind === undefined ? "" : ` with \`data.kind: ${kind}\``}`;
      return `### ${title}\n\n${about[0]!.toUpperCase()}${about.slice(1)}.\n\n${table(keys)}`;
    })
    .join("\n");
}

function table(rows: readonly RecipeKey[]): string {
  const withUpstream = rows.some(({ upstream }) => upstream !== undefined);
  const head = ["Key", "Type", "Default", "Meaning", ...(withUpstream ? ["Published code"] : [])];
  const lines = rows.map((row) => [
    `\`${row.key.slice(row.key.lastIndexOf(".") + 1)}\``,
    row.type!,
    row.required ? "**required**" : row.default === undefined ? "" : `\`${shown(row.default)}\``,
    row.description,
    ...(withUpstream ? [row.upstream === undefined ? "" : `\`${row.upstream}\``] : []),
  ]);
  return alignedMarkdownTable([head, ...lines]);
}
