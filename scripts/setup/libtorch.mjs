/**
 * Step 2: find libtorch, or fetch a private copy of it.
 *
 * Order: MIRO_LIBTORCH, LIBTORCH, an installed Python torch, the private copy. The choice is remembered in
 * packages/torch/build/libtorch.json and kept while that folder stands and no variable names another.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { withLock } from "./lock.mjs";
import { capture, missingTool, readJson, SetupError, signature, which, writeJson } from "./report.mjs";

export const version = "2.13.0";
/** Releases that the tests have run on, ascending. */
export const releases = ["2.11", "2.12", "2.13", "2.14", "2.15"];

/** Where the record of the chosen libtorch is kept. */
export const recordFile = (root) => path.join(root, "packages", "torch", "build", "libtorch.json");

/** The core library of a libtorch folder, or null when it is not a libtorch folder. */
export function coreLibrary(folder) {
  const file = ["libtorch_cpu.so", "libtorch_cpu.dylib"]
    .map((name) => path.join(folder, "lib", name))
    .find((name) => existsSync(name));
  return file && existsSync(path.join(folder, "include", "ATen", "ATen.h")) ? file : null;
}

/** [major, minor, patch] from libtorch's own header, or null. */
export function headerVersion(folder) {
  for (const name of ["headeronly/version.h", "csrc/api/include/torch/version.h"]) {
    const file = path.join(folder, "include", "torch", name);
    if (!existsSync(file)) continue;
    const text = readFileSync(file, "utf8");
    const parts = ["MAJOR", "MINOR", "PATCH"].map(
      (part) => text.match(new RegExp(`#define TORCH_VERSION_${part} (\\d+)`))?.[1],
    );
    if (parts.every((part) => part !== undefined)) return parts.map(Number);
  }
  return null;
}

const supported = ([major, minor]) => releases.includes(`${major}.${minor}`);

/** The variable that names a libtorch and its value, or null. */
function requested(env) {
  const name = ["MIRO_LIBTORCH", "LIBTORCH"].find((variable) => env[variable]);
  return name ? { name, folder: path.resolve(env[name]) } : null;
}

/** The folder a variable names; an error says which variable is wrong and why. */
function fromEnvironment({ name, folder }) {
  if (!coreLibrary(folder)) {
    throw new SetupError(
      `${name} names ${folder}, which is not a libtorch folder: expected lib/libtorch_cpu.so and include/ATen/ATen.h in it.`,
    );
  }
  const found = headerVersion(folder);
  if (!found || !supported(found)) {
    const release = found?.join(".") ?? "of unknown version";
    const works = `versions ${releases[0]} to ${releases.at(-1)} work`;
    throw new SetupError(`${name} names libtorch ${release} in ${folder}; ${works}.`);
  }
  return folder;
}

/** The torch that Python would import, when it has headers and a version that works. Python does not load it. */
async function fromPython(python, env) {
  const code =
    "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')";
  const { code: exit, stdout } = await capture(python, ["-c", code], { env });
  const folder = exit === 0 ? stdout.trim() : "";
  if (!folder || !coreLibrary(folder)) return null;
  const found = headerVersion(folder);
  return found && supported(found) ? folder : null;
}

/** The folder for what setup fetches, shared by all clones of a user. */
export function cacheFolder(env) {
  if (env.MIRO_CACHE) return path.resolve(env.MIRO_CACHE);
  return path.join(env.XDG_CACHE_HOME || path.join(env.HOME || homedir(), ".cache"), "miro-t2i");
}

/** Where the private copy is, or would be. */
const privateFolder = (env) => path.join(cacheFolder(env), `libtorch-${version}`, "torch");

/**
 * Unpacks the parts of a wheel that compiling and running against libtorch needs; a CUDA build is refused (its
 * libraries are other wheels).
 */
const unpack = `
import os, sys, zipfile
wheel, target = sys.argv[1:3]
with zipfile.ZipFile(wheel) as z:
    names = z.namelist()
    if any(n.startswith("torch/lib/libtorch_cuda") for n in names):
        sys.exit(3)
    skip = ("libtorch_python", "libtorchbind_test", "libjitbackend_test", "libbackend_with_compiler", "libaoti_custom_ops", "libshm")
    for n in names:
        base = os.path.basename(n)
        if n.startswith("torch/lib/") and (base.startswith(skip) or base.endswith(".a") or "/libshm/" in n):
            continue
        if n.startswith(("torch/lib/", "torch/include/", "torch/share/cmake/", "torch.libs/", "torch/.dylibs/")) or n.endswith(("dist-info/LICENSE", "dist-info/NOTICE", "dist-info/licenses/LICENSE", "dist-info/licenses/NOTICE")):
            z.extract(n, target)
`;

/**
 * A private copy of libtorch: the official wheel, downloaded by pip and unpacked beside its final place, then renamed,
 * so that it is whole or not there. A finished download outlives an interruption.
 */
export async function privateCopy(context) {
  const { env, log } = context;
  const cache = cacheFolder(env);
  const home = path.dirname(privateFolder(env));
  const folder = privateFolder(env);
  if (coreLibrary(folder)) return folder;
  try {
    mkdirSync(cache, { recursive: true });
  } catch (error) {
    throw new SetupError(
      `cannot create the cache folder ${cache} (${error.code}). Set MIRO_CACHE to a folder that can be written.`,
    );
  }
  return withLock(path.join(cache, "lock"), log, async () => {
    if (coreLibrary(folder)) return folder;
    const python = await pipOf(env);
    log(`setup: fetching a private copy of libtorch ${version} (about 200 MB) into ${cache} ...\n`);
    const downloads = path.join(cache, "downloads");
    // With the lock held nobody else unpacks: these are of set-ups that were killed.
    for (const name of readdirSync(cache)) if (name.startsWith("unpack-")) remove(path.join(cache, name));
    const unpacked = mkdtempSync(path.join(cache, "unpack-"));
    const clean = () => remove(unpacked);
    process.once("exit", clean); // Ctrl-C
    try {
      await download(python, downloads, unpacked, context);
      rmSync(home, { recursive: true, force: true });
      renameSync(unpacked, home);
      rmSync(downloads, { recursive: true, force: true });
    } finally {
      process.off("exit", clean);
      clean();
    }
    return folder;
  });
}

/** Removes a folder, as far as that goes while a process that has lost its parent may still write into it. */
function remove(folder) {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // The next set-up does it.
  }
}

/** The Python whose pip fetches libtorch. @throws SetupError naming what is missing */
async function pipOf(env) {
  const why = "once, to fetch libtorch (or set LIBTORCH to a libtorch you have)";
  const python = pythonFor(env);
  if (!python) throw missingTool("Python 3", "python3", why, env);
  if ((await capture(python, ["-m", "pip", "--version"], { env })).code !== 0)
    throw missingTool("pip", "pip", why, env);
  return python;
}

/**
 * Tries the CPU wheel under the names that indexes give it. Without +cpu the name is the CPU build on macOS and
 * mirrors, but the CUDA build on Linux's public index: that one is refused unpacked, and the official CPU index is
 * asked last.
 */
async function download(python, downloads, unpacked, { env, log }) {
  const official = "https://download.pytorch.org/whl/cpu";
  const attempts = [
    [`torch==${version}+cpu`],
    // this Python may be newer or older than any wheel; only the libraries matter
    [`torch==${version}+cpu`, "--python-version", "3.12"],
    [`torch==${version}+cpu`, "--extra-index-url", official],
    [`torch==${version}`],
    [`torch==${version}`, "--python-version", "3.12"],
  ];
  const failures = [];
  for (const attempt of attempts) {
    const into = path.join(downloads, attempt.join(" ").replace(/[^\w.+=-]+/g, "_"));
    mkdirSync(into, { recursive: true });
    const result = await capture(
      python,
      ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", into, ...attempt],
      { env },
    );
    const wheel = result.code === 0 ? listWheels(into)[0] : null;
    if (!wheel) {
      failures.push(
        `pip download ${attempt.join(" ")}: ${
          result.output
            .trim()
            .split("\n")
            .filter((line) => /error/i.test(line))
            .pop() ?? `exit code ${result.code}`
        }`,
      );
      continue;
    }
    const unpacking = await capture(python, ["-c", unpack, wheel, unpacked], { env });
    if (unpacking.code === 0 && coreLibrary(path.join(unpacked, "torch"))) {
      log(`setup: unpacked ${path.basename(wheel)}\n`);
      return;
    }
    rmSync(wheel, { force: true }); // damaged, or the CUDA build: the next run must not find it
    failures.push(
      `${path.basename(wheel)}: ${unpacking.code === 3 ? "is the CUDA build, the CPU build was wanted" : unpacking.output.trim().split("\n").pop()}`,
    );
  }
  throw new SetupError(
    `could not fetch libtorch ${version}. ${failures.join("; ")}\nSet LIBTORCH to a libtorch folder, or install torch ${version} for python3, or point pip at an index that has it (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL=${official}).`,
  );
}

function listWheels(folder) {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".whl"))
    .map((name) => path.join(folder, name));
}

const pythonFor = (env) => which(env.MIRO_PYTHON || "python3", env) ?? which("python", env);

/** The remembered choice, when it still stands: { folder, version, library } */
export function chosenLibtorch({ root, env }) {
  const record = readJson(recordFile(root));
  if (!record) return null;
  const wanted = requested(env);
  if (wanted && wanted.folder !== record.folder) return null;
  return record.library && signature(coreLibrary(record.folder) ?? "") === record.library ? record : null;
}

/** A libtorch that is there without a download, and what it is; null where there is none. */
async function present(env) {
  const wanted = requested(env);
  if (wanted) return { folder: fromEnvironment(wanted), source: wanted.name };
  const python = pythonFor(env);
  const folder = python && (await fromPython(python, env));
  return folder ? { folder, source: "Python's torch" } : null;
}

/** What a download needs, where one is needed. */
async function check({ env }) {
  if ((await present(env)) === null && !coreLibrary(privateFolder(env))) await pipOf(env);
}

async function find(context) {
  const { root, env, log } = context;
  const { folder, source } = (await present(env)) ?? {
    folder: await privateCopy(context),
    source: "private copy",
  };
  const found = headerVersion(folder).join(".");
  writeJson(recordFile(root), { folder, version: found, source, library: signature(coreLibrary(folder)) });
  log(`setup: libtorch ${found} in ${folder} (${source})\n`);
}

export const libtorchStep = {
  name: "libtorch",
  title: () => "libtorch",
  isDone: (context) => chosenLibtorch(context) !== null,
  check,
  run: find,
};
