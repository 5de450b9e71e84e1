// The table of variables: it is what the sources read, and what the documentation shows.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { PROGRAM_VARIABLES, SETUP_VARIABLES, type VariableGroup, variableTable } from "./environment-variables.js";

const root = fileURLToPath(new URL("../../../../", import.meta.url));

/** What others set to tell where a program runs: nobody sets it for miro. */
const SET_BY_OTHERS = new RegExp(
  `^(${[
    "HOME|PATH|_|TERM|TERM_PROGRAM|LC_TERMINAL|KITTY_WINDOW_ID|KONSOLE_VERSION|WT_SESSION|REQUEST_METHOD",
    "LOCAL_WORLD_SIZE|TORCHELASTIC_\\w+|SLURM_(?!CONF$)\\w+",
  ].join("|")})$`,
);

/** Names that programs read which are no properties of `env`, in quotes. */
const QUOTED =
  /["'](LIBTORCH|RANK|WORLD_SIZE|LOCAL_RANK|(?:MIRO|HF|HUGGING|TRANSFORMERS|SBATCH|MASTER|NCCL|GLOO)_\w+)["']/g;
const PROPERTY = /\benv(?:ironment)?\??\.([A-Z_][A-Z0-9_]*)\b/g;
const TAKEN_APART = /\{([^{}]*)\} = (?:process\.)?env\b/g;

/** The variables that the sources below some folders read. */
function readBy(...folders: string[]): Set<string> {
  const found = new Set<string>();
  for (const folder of folders) {
    for (const name of readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })) {
      if (!/\.(ts|mjs|cpp|h)$/.test(name) || /\.test\.ts$|(^|\/)testing\/|environment-variables/.test(name)) continue;
      const text = readFileSync(join(root, folder, name), "utf8");
      for (const pattern of [QUOTED, PROPERTY]) for (const [, one] of text.matchAll(pattern)) found.add(one!);
      for (const [, names] of text.matchAll(TAKEN_APART))
        for (const [one] of names!.matchAll(/[A-Z][A-Z0-9_]+/g)) found.add(one);
    }
  }
  for (const name of found) if (SET_BY_OTHERS.test(name)) found.delete(name);
  return found;
}

/** The variables that a group tells of, in the first column and in its words. */
const told = (...groups: readonly VariableGroup[]) =>
  new Set(groups.flatMap(({ rows }) => rows.flatMap((row) => row.join(" ").match(/\b[A-Z]+(?:_[A-Z]+)*\b/g) ?? [])));

test("every variable that the program reads is told, and every one that is told is read", () => {
  const read = readBy("packages/miro/src", "packages/torch/src", "packages/torch/native/src");
  const known = told(...PROGRAM_VARIABLES);
  expect([...read].filter((name) => !known.has(name))).toEqual([]);
  // libtorch, sharp and Node read these by themselves.
  const others = new Set(["OMP_NUM_THREADS", "NCCL_SOCKET_IFNAME", "SLURM_CONF", "CPU", "CUDA", "GPU", "SOCKS"]);
  expect([...known].filter((name) => !read.has(name) && !others.has(name))).toEqual([]);
});

test("every variable that the set-up reads is told", () => {
  const read = readBy("scripts/setup");
  const known = told(SETUP_VARIABLES);
  expect(read.size).toBeGreaterThan(5);
  expect([...read].filter((name) => !known.has(name))).toEqual([]);
});

test("docs/install.md has the table; npm run docs:environment writes it", () => {
  const text = readFileSync(join(root, "docs/install.md"), "utf8");
  const [, table] = /<!-- npm run docs:environment writes this table -->\n\n([\s\S]*?)\n<!-- its end -->/.exec(text)!;
  expect(table).toBe(variableTable());
});
