/** Where a recipe's shards are. */
import { isAbsolute, join } from "node:path";

/** The folders, files or indexes of a recipe's shards, those in `data.dir` with their whole path. */
export function rootsOf({ dir, root }: { dir?: string | undefined; root: string | readonly string[] }): string[] {
  return [root].flat().map((path) => (dir === undefined || isAbsolute(path) ? path : join(dir, path)));
}
