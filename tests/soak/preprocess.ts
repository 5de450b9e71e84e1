/** Kills of data preparation (`miro preprocess --stage all` over emoji scenes, bundled models). */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { contents, type Kills, killAndCompare } from "./kill-and-restart.js";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/** @returns the exit code */
export function soakPreprocess(kills: Kills): Promise<number> {
  return killAndCompare(kills, {
    prepared: (folder) => [
      ...["render", root("recipes/emoji-data.yaml"), "samples=64", "samples_per_shard=8"],
      ...["--output", join(folder, "raw")],
    ],
    command: (folder, name) => [
      ...["preprocess", "--stage", "all", "--src", join(folder, "raw"), "--model", root("models/miro-emoji")],
      ...["--no-vae-512", "--json"],
      ...["--csv-dir", join(folder, name, "scores"), "--dest", join(folder, name, "shards")],
    ],
    files: (folder, name) => contents(join(folder, name, "scores"), join(folder, name, "shards")),
    told({ counts }) {
      const { skipped, done } = (counts ?? {}) as Record<string, number>;
      return `${skipped ?? "?"} shards kept, ${done ?? "?"} made`;
    },
  });
}
