/** `miro models`: models and scorers that can be loaded, what is cached, and the disk that it takes. Works offline. */
import { counted } from "../numbers.js";
import "./extensions.js";
import { z } from "zod";
import { formatSize } from "../files/sizes.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import { listModels, type ModelList } from "../pipeline/loading/model-list.js";
import { type ListedScorer, listScorers } from "../rewards/scorer-list.js";
import { declare } from "./add-options.js";
import { json } from "./common-options.js";
import type { Register } from "./context.js";
import { helpText } from "./help-text.js";
import { textTable } from "./text-table.js";

const EXAMPLES = `
Examples:
  miro models
  miro models --json
  miro generate "a fox" --model nicolas-dufour/miro-ablations --variant miro-only-clip

Models and scorers marked with * are in the cache, whole, or need no download. The cache is shared with Python's huggingface_hub; \`hf cache\` cleans it up.
`;

const schema = z.strictObject({ cacheDir: loadSchema.shape.cacheDir, json });

export const register: Register = (command, context) => {
  declare(command, schema, ({ json }, { cacheDir }) => {
    const where = cacheDir === undefined ? {} : { cacheDir };
    const list = listModels(where);
    const scorers = listScorers(where);
    context.stdout(json ? `${JSON.stringify({ ...list, scorers })}\n` : describe(list, scorers));
  }).addHelpText("after", helpText(EXAMPLES));
};

function describe({ bundled, published, cache }: ModelList, scorers: readonly ListedScorer[]): string {
  const lines: string[] = [];
  if (bundled) lines.push(`${bundled.name} (bundled): ${bundled.rewards.join(", ")}`, "");
  const all = published[0]!.rewards;
  lines.push(`Rewards of the published models: ${all.join(", ")}`, "");
  const rows = published.map(({ repository, variant, rewards, title, cached }) => [
    cached ? "*" : " ",
    repository,
    variant ? `--variant ${variant}` : "",
    counted(rewards.length, "reward"),
    title,
  ]);
  lines.push(...textTable(rows), "");
  lines.push("Scorers (miro score --by KEY), their download, memory in float32 or bfloat16, and licence:");
  lines.push(...textTable(scorers.flatMap(scorerRows)), "");
  const { repositories } = cache;
  const free = cache.freeBytes === null ? "" : `, ${formatSize(cache.freeBytes)} free`;
  lines.push(`Cache ${cache.folder}: ${formatSize(cache.sizeBytes)}${free}`);
  lines.push(
    ...textTable(
      repositories.flatMap(({ repository, revisions, sizeBytes, incompleteBytes, lastUsed }) => [
        [
          " ",
          repository,
          formatSize(sizeBytes),
          revisions.map(({ commit, refs }) => [...refs, commit.slice(0, 8)].join(" ")).join(", ") || "no revision",
          lastUsed ? `used ${lastUsed.slice(0, 10)}` : "",
          incompleteBytes > 0 ? `${formatSize(incompleteBytes)} of an unfinished download` : "",
        ],
      ]),
    ),
  );
  return `${lines.join("\n")}\n`;
}

/** One row, and one more for each further place that weights come from. */
function scorerRows({ key, repositories, memoryBytes, license, ready }: ListedScorer): string[][] {
  const memory = memoryBytes
    ? `${formatSize(memoryBytes.float32)} or ${formatSize(memoryBytes.bfloat16)} of memory`
    : "";
  const terms = license ? `${license.name}${license.nonCommercial ? " (not for commercial use)" : ""}` : "";
  const [first, ...others] = repositories.map(({ name, sizeBytes }) => [placeOf(name), formatSize(sizeBytes)] as const);
  return [
    [ready ? "*" : " ", key, ...(first ?? ["no download", ""]), memory, terms],
    ...others.map(([name, size]) => [" ", "", `and ${name}`, size, "", ""]),
  ];
}

/** Of a file elsewhere the server and the project. */
function placeOf(name: string): string {
  if (!URL.canParse(name)) return name;
  const { host, pathname } = new URL(name);
  return [host, ...pathname.split("/").slice(1, 3)].join("/");
}
