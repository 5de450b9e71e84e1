/**
 * A libtorch that MIRO_LIBTORCH or LIBTORCH names, in place of the one that npm has installed beside the packaged
 * addon; for CUDA there is no other. Its libraries are loaded before the addon: the system's loader then takes them for
 * those that the addon asks for, as their names are the same. An addon that a clone has built has its libtorch from the
 * set-up.
 */
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join, resolve } from "node:path";
import { TorchError } from "./errors.js";

/** What an addon loads of libtorch, each after what it needs itself. */
const LIBRARIES = {
  cpu: ["libc10.so", "libtorch_cpu.so", "libtorch.so"],
  cuda: ["libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so", "libtorch.so"],
};
/** RTLD_NODELETE of Linux, which Node does not name: a library stays although it is no addon of Node's. */
const NO_DELETE = 0x1000;

/** Variables of the process. */
type Variables = Readonly<Record<string, string | undefined>>;

/** The variable that names a libtorch, its folder, and whether that is one for CUDA; null where none is named. */
export function namedLibtorch(env: Variables): { variable: string; folder: string; isCuda: boolean } | null {
  const variable = ["MIRO_LIBTORCH", "LIBTORCH"].find((name) => env[name]);
  if (variable === undefined) return null;
  const folder = resolve(env[variable]!);
  return { variable, folder, isCuda: existsSync(join(folder, "lib", "libtorch_cuda.so")) };
}

/** What is asked of the process; replaced by tests. */
export interface LoaderSurroundings {
  /** Where a libtorch may be named. */
  env: Variables;
  /** Loads a library that stays. It throws where it cannot be loaded. */
  load: (file: string) => void;
}

/**
 * Loads the libtorch that the environment names for a packaged addon; nothing where none is named.
 *
 * @throws TorchError naming the variable, when its folder is no libtorch, is of another version or CUDA than the addon
 *   was compiled for, or cannot be loaded
 */
export function loadNamedLibtorch(addon: string, { env, load }: LoaderSurroundings = theseSurroundings()): void {
  const compiledFor = libtorchOf(addon);
  const named = namedLibtorch(env);
  if (compiledFor === null || named === null) return;
  const { variable, folder } = named;
  const { libtorch, cuda } = compiledFor;
  const series = `${seriesOf(libtorch)}${cuda === null ? "" : ` for CUDA ${majorOf(cuda)}`}`;
  const instead =
    cuda === null
      ? `name the folder of another libtorch ${series}, or unset ${variable} to take the one that npm has installed`
      : `name the folder of a libtorch ${series}, or unset ${variable} to compute on the CPU`;
  const refuse = (reason: string): never => {
    throw new TorchError(`${variable} names ${folder}, ${reason}; ${instead}`);
  };
  const libraries = LIBRARIES[cuda === null ? "cpu" : "cuda"];
  const missing = libraries.find((name) => !existsSync(join(folder, "lib", name)));
  if (missing) refuse(`which is no folder of libtorch: lib/${missing} is missing`);
  const found = versionOf(folder);
  if (found === null) refuse("a libtorch of unknown version: include/torch/headeronly/version.h is missing");
  else if (seriesOf(found) !== seriesOf(libtorch))
    refuse(`libtorch ${found}; the installed addon was compiled for ${libtorch}`);
  if (cuda !== null) {
    const its = cudaOf(folder);
    if (its === null || majorOf(its) !== majorOf(cuda))
      refuse(`a libtorch for ${its === null ? "an unknown CUDA" : `CUDA ${its}`}; the addon was compiled for ${cuda}`);
  }
  for (const name of libraries) {
    try {
      load(join(folder, "lib", name));
    } catch (error) {
      refuse(`whose lib/${name} cannot be loaded: ${(error as Error).message}`);
    }
  }
}

/** The libtorch, and its CUDA, that a packaged addon was compiled for; null where a clone has built it. */
function libtorchOf(addon: string): { libtorch: string; cuda: string | null } | null {
  const file = join(dirname(addon), "package.json");
  if (!existsSync(file)) return null;
  const { libtorch, cuda } = JSON.parse(readFileSync(file, "utf8")) as { libtorch?: unknown; cuda?: unknown };
  return typeof libtorch === "string" ? { libtorch, cuda: typeof cuda === "string" ? cuda : null } : null;
}

/**
 * The version of CUDA that a libtorch was built with, as Python's torch (`2.13.0+cu130` or `cuda = '13.0'`) and the
 * archives have it beside them; null where they do not say.
 *
 * @param folder the one with `lib/` and `include/`
 */
export function cudaOf(folder: string): string | null {
  for (const name of ["version.py", "build-version"]) {
    const text = read(join(folder, name)) ?? "";
    const [, major, minor] =
      /\+cu(\d{1,3})(\d)\b/.exec(text) ?? /^cuda\b[^\n']{0,40}'(\d{1,3})\.(\d)/m.exec(text) ?? [];
    if (major !== undefined) return `${major}.${minor}`;
  }
  return null;
}

/** Of a folder of libtorch by its headers, or by what Python's torch and the archives have beside them; else null. */
function versionOf(folder: string): string | null {
  for (const header of ["headeronly/version.h", "csrc/api/include/torch/version.h"]) {
    const text = read(join(folder, "include", "torch", header));
    const parts = ["MAJOR", "MINOR", "PATCH"].map(
      (part) => text?.match(new RegExp(`#define TORCH_VERSION_${part} (\\d+)`))?.[1],
    );
    if (parts.every((part) => part !== undefined)) return parts.join(".");
  }
  for (const name of ["version.py", "build-version"]) {
    const found = read(join(folder, name))?.match(/\b\d{1,3}\.\d{1,3}\.\d{1,3}/)?.[0];
    if (found) return found;
  }
  return null;
}

function read(file: string): string | null {
  return existsSync(file) ? readFileSync(file, "utf8") : null;
}

/** `13` of `13.0`: an addon works with every CUDA of its major version. */
function majorOf(cuda: string): string {
  return cuda.split(".")[0]!;
}

/** `2.13` of `2.13.0`: the releases that one compiled addon can be used with. */
function seriesOf(version: string): string {
  return version.split(".").slice(0, 2).join(".");
}

function theseSurroundings(): LoaderSurroundings {
  return {
    env: process.env,
    load: (file) => {
      try {
        process.dlopen({ exports: {} }, file, constants.dlopen.RTLD_LAZY | NO_DELETE);
      } catch (error) {
        // Node has loaded it, and says that it is no addon.
        if (!(error as Error).message.includes("did not self-register")) throw error;
      }
    },
  };
}
