/** Bash lines of a site that a job runs before anything else: `module load`, `conda activate`, `ulimit`. */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { InvalidInputError, MiroError, systemReason } from "../../errors.js";
import { sha256 } from "../../files/sha256.js";
import { linesOf, readTextFile } from "../../files/text-file.js";
import { message, option } from "../../message.js";

/** A prologue as it is when the job is submitted. */
export interface Prologue {
  /** The file, absolute. */
  path: string;
  /** Digest of its bytes as text. */
  sha256: string;
  /** Its lines, each with an end. */
  text: string;
}

/**
 * Reads a prologue.
 * @throws MiroError when the file cannot be read; InvalidInputError for what no shell understands, and for directives,
 *   which SLURM reads at the top of a script alone
 */
export function readPrologue(file: string): Prologue {
  const text = readTextFile(file);
  const lines = linesOf(text);
  const directive = lines.findIndex((line) => line.startsWith("#SBATCH"));
  if (directive >= 0)
    throw new InvalidInputError(
      message`${file}:${directive + 1}: SLURM reads no directives here; give it as an option, or with ${option("sbatch")}`,
    );
  const joined = lines.map((line) => `${line}\n`).join("");
  checkSyntax(joined, file);
  return { path: resolve(file), sha256: sha256(text), text: joined };
}

/** A quote that is not closed would swallow the rest of the script. */
function checkSyntax(text: string, file: string): void {
  // Where its input is a socket, as here, bash reads ~/.bashrc. What it would say of a locale that is not installed, of
  // BASH_ENV, or of functions that another bash has exported, is no fault of the file.
  const env = { PATH: process.env.PATH, LC_ALL: "C" };
  const { error, status, stderr } = spawnSync("bash", ["--norc", "-n"], { input: text, encoding: "utf8", env });
  if (error !== undefined) throw new MiroError(`bash, which checks ${file}: ${systemReason(error)}`, { cause: error });
  // Of an open here-document bash only warns.
  if (status === 0 && stderr === "") return;
  const said = stderr
    .trim()
    .split("\n")[0]!
    .replace(/^bash: /, "");
  throw new InvalidInputError(`${file}: no valid bash: ${said}`);
}
