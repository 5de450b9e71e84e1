/** `miro index`: indexes and bin edges of shards. Parses, calls {@link indexShards}, prints. */

import { z } from "zod";
import { type IndexResult, indexOptionsSchema, indexShards } from "../data/dataset/index-shards.js";
import type { OpenHooks } from "../data/dataset/open-shards.js";
import { problemText } from "../data/shards/index.js";
import { MiroError } from "../errors.js";
import { declare } from "./add-options.js";
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
  miro index data/cc12m --check                         does the index still fit the shards?

Bin edges are kept in the first folder under the published name and are found there by training with the same options.
`;

const schema = z.strictObject({ ...indexOptionsSchema.shape, json });

export const register: Register = (command, context) => {
  declare(command, schema, (options) => index(options, context)).addHelpText("after", helpText(EXAMPLES));
};

async function index({ json, ...options }: z.output<typeof schema>, context: CliContext): Promise<void> {
  const progress = await Progress.for(context);
  let result: IndexResult;
  let at = "";
  const hooks: OpenHooks = {
    signal: context.signal,
    onProgress: (what, done, all) => {
      at = `${what}: ${done} of ${all} shards; `;
      progress.update(what, done, all, { count: `${done}/${all} shards` });
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
      const count = `${shards} ${shards === 1 ? "shard" : "shards"}, ${samples} samples`;
      context.stdout(`${index}: ${count}${passing === undefined ? "" : `, ${passing} pass`}\n`);
    }
    if (result.bins !== null) printBins(result.bins, context);
  }
  if (options.check && problems.length > 0)
    throw new MiroError(`${problems.length} of the indexed shards no longer fit; run miro index without --check`);
  const damaged = new Set(problems.filter((problem) => !("extension" in problem)).map(({ path }) => path)).size;
  if (damaged > 0 && !options.skipBrokenShards)
    throw new MiroError(
      `${damaged} ${damaged === 1 ? "shard is" : "shards are"} damaged or unfinished; only what could be read of them was indexed; --skip-broken-shards leaves out those that were cut`,
    );
}

function printBins({ file, edges, scores }: NonNullable<IndexResult["bins"]>, { stdout }: CliContext): void {
  const width = Math.max(...Object.keys(edges).map((name) => name.length));
  const number = (value: number | null | undefined) => (value == null ? "-" : value.toFixed(4)).padStart(8);
  for (const [name, list] of Object.entries(edges)) {
    const summary = scores?.[name];
    const about = summary && `  mean ${number(summary.mean)}  std ${number(summary.std)}  missing ${summary.missing}`;
    const bins = `${list.length - 1} bins`.padStart(8);
    stdout(`${name.padEnd(width)} ${bins}  inner edges ${number(list[1])} … ${number(list.at(-2))}${about ?? ""}\n`);
  }
  if (file !== null) stdout(`${file}\n`);
}
