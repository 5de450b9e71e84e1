/**
 * Scorers that a user brings: ES modules that register them with `registerScorer`, or whose default export is a scorer
 * or a list of such. A module is trusted as the command that names it; nothing but the command line names one.
 *
 * The digest of the file is the version of its scorers, so that scores of an earlier text of it are made again.
 */
import { spawnSync } from "node:child_process";
import { realpathSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { InvalidInputError, MiroError, systemReason } from "../errors.js";
import { sha256 } from "../files/sha256.js";
import { readBytes } from "../files/whole-files.js";
import { about, type Message, message } from "../message.js";
import { field } from "../options.js";
import { registerScorer, scorerSpecs, setScorerVersion } from "./registry.js";
import type { ScorerSpec } from "./scorer.js";

/** The option of commands that load modules before they look at anything else. */
export const scorerModules = field(z.array(z.string().min(1)).default([]), {
  expected: "files of ES modules",
  help: "ES module that registers scorers of your own (docs/rewards.md); may be given several times",
  flag: "--scorer-module <file.mjs>",
});

/** The option that names modules, for errors. */
const OPTION = "scorerModules";
/** What a module must do, for errors. */
const DUTY = "call registerScorer(key, { … }) of miro-t2i, or export default { key, … }";

/** Modules that were loaded, by their real paths. */
const loaded = new Set<string>();

/**
 * Loads modules, one after another; one that is loaded already stays as it is.
 *
 * @returns the real paths of the files
 * @throws InvalidInputError naming the file and what is wrong with it
 */
export async function loadScorerModules(files: readonly string[]): Promise<string[]> {
  const paths = files.map(pathOf);
  for (const [i, path] of paths.entries()) {
    if (loaded.has(path)) continue;
    const file = files[i]!;
    const before = new Set(scorerSpecs().map(({ key }) => key));
    const { default: exported } = await imported(file, path);
    try {
      for (const spec of exported === undefined ? [] : [exported].flat())
        if (!scorerSpecs().includes(spec as ScorerSpec)) registerScorer(spec as ScorerSpec);
    } catch (error) {
      throw wrong(file, message`its default export: ${error}`, error);
    }
    const added = scorerSpecs().filter(({ key }) => !before.has(key));
    if (added.length === 0) throw wrong(file, `registers no scorer; expected it to ${DUTY}`);
    const version = sha256(readBytes(path));
    for (const { key } of added) setScorerVersion(key, version);
    loaded.add(path);
  }
  return paths;
}

/** The real path of a file. */
function pathOf(file: string): string {
  try {
    const path = realpathSync(file);
    if (statSync(path).isFile()) return path;
  } catch (error) {
    throw wrong(file, systemReason(error), error);
  }
  throw wrong(file, "expected the file of an ES module (.mjs), found something else");
}

/** What a module exports. */
async function imported(file: string, path: string): Promise<{ default?: unknown }> {
  let ends = () => {};
  // A module that waits for what never comes leaves nothing to do: the process would end without a word.
  const stuck = new Promise<never>((_, reject) => {
    ends = () => reject(new Error("never finishes loading: it awaits, at its top level, what does not come"));
    process.once("beforeExit", ends);
  });
  try {
    return await Promise.race([import(pathToFileURL(path).href), stuck]);
  } catch (error) {
    throw wrong(file, reasonOf(error, path), error);
  } finally {
    process.off("beforeExit", ends);
  }
}

/** Why a module cannot be imported. */
function reasonOf(error: unknown, path: string): Message | string {
  if (error instanceof MiroError) return message`${error}`;
  if (!(error instanceof Error)) return `throws ${String(error)} while it is loaded`;
  const text = error.message.split("\n")[0]!;
  switch ((error as NodeJS.ErrnoException).code) {
    case "ERR_MODULE_NOT_FOUND":
    case "ERR_PACKAGE_PATH_NOT_EXPORTED":
      return /'miro-t2i'/.test(text)
        ? "imports miro-t2i, which is not installed where the file is; install it there, or import nothing and export the scorer: export default { key, … }"
        : text;
    case "ERR_UNKNOWN_FILE_EXTENSION":
      return "expected an ES module (.mjs) that Node can load as it is";
  }
  if (error instanceof SyntaxError) {
    const line = faultyLine(path);
    return `${line === null ? "" : `line ${line}: `}${text}; expected an ES module`;
  }
  return `fails while it is loaded: ${text}`;
}

/**
 * The line where a file stops being JavaScript: Node keeps it from who catches the error and tells it who asks for a
 * check. Null for a file that is in order by itself.
 */
function faultyLine(path: string): string | null {
  const { stderr } = spawnSync(process.execPath, ["--check", path], { encoding: "utf8" });
  const place = stderr.split("\n").find((line) => line.startsWith(`${path}:`));
  return place?.slice(path.length + 1) ?? null;
}

function wrong(file: string, reason: Message | string, cause?: unknown): InvalidInputError {
  return new InvalidInputError(message`${about(OPTION)}: ${file}: ${reason}`, { cause });
}
