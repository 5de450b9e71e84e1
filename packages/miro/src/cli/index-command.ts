/** `miro index`: indexes and bin edges of shards. Parses, calls {@link indexShards}, prints. */
import { counted } from "../numbers.js";
import "./extensions.js";
import { z } from "zod";
import { type IndexOptions, type IndexResult, indexOptionsSchema, indexShards } from "../data/dataset/index-shards.js";
import type { OpenHooks } from "../data/dataset/open-shards.js";
import { problemText } from "../data/shards/shard-error.js";
import { invalid, MiroError } from "../errors.js";
import { message, option } from "../message.js";
import { declarationOf, field } from "../options.js";
import { recipeBins } from "../training/planning/recipe-bins.js";
import { loadRecipe } from "../training/recipes/recipe.js";
import { declare, type Given, refuseWithout } from "./add-options.js";
import { json } from "./common-options.js";
import type { CliContext, Register } from "./context.js";
import { helpText } from "./help-text.js";
import { SAME_COMMAND, untilStopped } from "./interruption.js";
import { Progress, tellerOf } from "./progress.js";

const EXAMPLES = `
Examples:
  miro index data/cc12m data/laion                      wids-index.json in each folder, tables beside the shards
  miro index data/cc12m data/laion --bins --synthetic-prob 0.5
  miro index data/cc12m --bins --scores clip_score,aesthetic_score --num-bins 32 --json
  miro index --bins --recipe mine.yaml                  folders, scores and bins as the recipe's training uses them
  miro index data/cc12m --check                         does the index still fit the shards?

Bin edges are kept in the first folder under the published name and are found there by training with the same options.
`;

const schema = z.strictObject({
  ...indexOptionsSchema.shape,
  folders: field(z.array(z.string().min(1)).default([]), {
    ...declarationOf(indexOptionsSchema.shape.folders),
    flag: "[dir...]",
    otherwise: "those of --recipe",
  }),
  recipe: field(z.string().min(1).optional(), {
    expected: "the name or file of a recipe",
    help: "take folders, scores, bins and captions from a recipe, so that its training finds these bin edges; flags override it",
    flag: "--recipe <recipe>",
  }),
  json,
});

/** Options that nothing but bin edges follow from. */
const OF_BINS: (keyof z.output<typeof schema>)[] = [
  "scores",
  "scoreMode",
  "numBins",
  "strategy",
  "refineLastNBins",
  "refineFactor",
  "distinct",
  "maxSamples",
];

export const register: Register = (command, context) => {
  declare(command, schema, (options, given, typed) => {
    if (!options.bins) refuseWithout(option("bins", true), typed, OF_BINS);
    return index(options, given, context);
  }).addHelpText("after", helpText(EXAMPLES));
};

/** The options that were given, over those of a recipe where one is named. */
function optionsOf({ recipe, folders = [], json: _, ...given }: Given<typeof schema>): IndexOptions {
  const base = recipe === undefined ? null : recipeBins(loadRecipe(recipe));
  if (base === null && folders.length === 0)
    throw invalid("folders", message`folders with *.tar, or ${option("recipe", "RECIPE")}`, folders);
  return { ...base, ...given, folders: folders.length > 0 ? folders : base!.folders };
}

async function index(
  { json, check, skipBrokenShards }: z.output<typeof schema>,
  given: Given<typeof schema>,
  context: CliContext,
): Promise<void> {
  const options = optionsOf(given);
  const progress = await Progress.for(context);
  let result: IndexResult;
  let at = "";
  const hooks: OpenHooks = {
    signal: context.signal,
    onProgress: (what, done, all) => {
      at = `${what}: ${done} of ${counted(all, "shard")}; `;
      progress.update(what, done, all, { count: `${done}/${counted(all, "shard")}` });
    },
    onMessage: tellerOf(context, progress),
  };
  const left = () => `${at}shards that were read have their table beside them; ${SAME_COMMAND}`;
  try {
    result = await untilStopped(context, left, () => indexShards(options, hooks));
  } finally {
    progress.stop();
  }
  const problems = result.folders.flatMap((folder) => folder.problems);
  for (const problem of problems.slice(0, 20)) context.stderr(`warning: ${problemText(problem)}\n`);
  if (problems.length > 20) context.stderr(`warning: ${problems.length - 20} more\n`);
  if (json) context.stdout(`${JSON.stringify(result)}\n`);
  else {
    for (const { index, shards, samples, passing } of result.folders) {
      const count = `${counted(shards, "shard")}, ${counted(samples, "sample")}`;
      context.stdout(`${index}: ${count}${passing === undefined ? "" : `, ${passing} pass`}\n`);
    }
    if (result.bins !== null) printBins(result.bins, context);
  }
  if (check && problems.length > 0)
    throw new MiroError(`${problems.length} of the indexed shards no longer fit; run miro index without --check`);
  const damaged = new Set(problems.filter((problem) => !("extension" in problem)).map(({ path }) => path)).size;
  if (damaged > 0 && !(options.skipBrokenShards ?? skipBrokenShards))
    throw new MiroError(
      `${counted(damaged, "shard is", "shards are")} damaged or unfinished; only what could be read of them was indexed; --skip-broken-shards leaves out those that were cut`,
    );
}

function printBins({ file, edges, scores }: NonNullable<IndexResult["bins"]>, { stdout }: CliContext): void {
  const width = Math.max(...Object.keys(edges).map((name) => name.length));
  const number = (value: number | null | undefined) => (value == null ? "-" : value.toFixed(4)).padStart(8);
  for (const [name, list] of Object.entries(edges)) {
    const summary = scores?.[name];
    const about = summary && `  mean ${number(summary.mean)}  std ${number(summary.std)}  missing ${summary.missing}`;
    const bins = counted(list.length - 1, "bin").padStart(8);
    stdout(`${name.padEnd(width)} ${bins}  inner edges ${number(list[1])} … ${number(list.at(-2))}${about ?? ""}\n`);
  }
  if (file !== null) stdout(`${file}\n`);
}
