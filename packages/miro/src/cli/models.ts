/** `miro models`: what can be loaded, what is in the cache, and the disk that it takes. Works offline. */
import { z } from "zod";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { listModels, type ModelList } from "../pipeline/loading/model-list.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { Register } from "./context.js";

const EXAMPLES = `
Examples:
  miro models
  miro models --json
  miro generate "a fox" --model nicolas-dufour/miro-ablations --variant miro-only-clip

Models marked with * are in the cache, whole. The cache is shared with Python's huggingface_hub; \`hf cache\` cleans it up.
`;

const schema = z.strictObject({ cacheDir: loadSchema.shape.cacheDir, json });

export const register: Register = (command, context) => {
  declare(command, schema, ({ json }, { cacheDir }) => {
    const list = listModels({ ...(cacheDir !== undefined && { cacheDir }) });
    context.stdout(json ? `${JSON.stringify(list)}\n` : describe(list));
  }).addHelpText("after", EXAMPLES);
};

function describe({ bundled, published, cache }: ModelList): string {
  const lines: string[] = [];
  if (bundled) lines.push(`${bundled.name} (bundled): ${bundled.rewards.join(", ")}`, "");
  const all = published[0]!.rewards;
  lines.push(`Rewards of the published models: ${all.join(", ")}`, "");
  const rows = published.map(({ repository, variant, rewards, title, cached }) => [
    cached ? "*" : " ",
    repository,
    variant ? `--variant ${variant}` : "",
    `${rewards.length} reward${rewards.length === 1 ? "" : "s"}`,
    title,
  ]);
  lines.push(...table(rows), "");
  const { repositories } = cache;
  const free = cache.freeBytes === null ? "" : `, ${gigabytes(cache.freeBytes)} free`;
  lines.push(`Cache ${cache.folder}: ${gigabytes(cache.sizeBytes)}${free}`);
  lines.push(
    ...table(
      repositories.flatMap(({ repository, revisions, sizeBytes, incompleteBytes, lastUsed }) => [
        [
          " ",
          repository,
          gigabytes(sizeBytes),
          revisions.map(({ commit, refs }) => [...refs, commit.slice(0, 8)].join(" ")).join(", ") || "no revision",
          lastUsed ? `used ${lastUsed.slice(0, 10)}` : "",
          incompleteBytes > 0 ? `${gigabytes(incompleteBytes)} of an unfinished download` : "",
        ],
      ]),
    ),
  );
  return `${lines.join("\n")}\n`;
}

function table(rows: readonly string[][]): string[] {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]!.length))) ?? [];
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join("  ")
      .trimEnd(),
  );
}

function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
