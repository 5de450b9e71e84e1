/** Opens the shards of a data set: all of its roots, the samples of one behind those of another. */
import { isFolder } from "../../files/make-folder.js";
import { problemText } from "../shards/shard-error.js";
import { ShardSet } from "../shards/shard-set.js";
import { warnUnfinished } from "../shards/unfinished.js";
import type { TrainingSetOptions } from "./training-set-options.js";

/** What opening tells of itself. */
export interface OpenHooks {
  signal?: AbortSignal | undefined;
  onMessage?: ((message: string) => void) | undefined;
  /** What is done of what: `indexing`, `reading scores`. */
  onProgress?: ((what: string, done: number, all: number) => void) | undefined;
}

/** The folders, tar files or index files that hold the samples. */
export function rootsOf({ root }: Pick<TrainingSetOptions, "root">): string[] {
  return typeof root === "string" ? [root] : root;
}

export async function openShards(
  sources: string[],
  options: Pick<TrainingSetOptions, "onBadSample" | "maxBadRate" | "skipBrokenShards">,
  { signal, onProgress, onMessage }: OpenHooks,
): Promise<ShardSet> {
  const { onBadSample, maxBadRate, skipBrokenShards } = options;
  for (const source of sources) if (isFolder(source)) warnUnfinished(source, onMessage);
  const set = await ShardSet.open({
    sources,
    onBadSample,
    maxBadRate,
    brokenShards: skipBrokenShards ? "skip" : "error",
    signal,
    onShard: (done, all) => onProgress?.("indexing", done, all),
  });
  for (const problem of set.leftOut) onMessage?.(`left out: ${problemText(problem)}`);
  return set;
}
