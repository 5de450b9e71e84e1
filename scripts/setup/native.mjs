/** Step 3: the addon, packages/torch/build/miro_torch.node, built by CMake against the chosen libtorch. */
import { existsSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import path from "node:path";
import { chosenLibtorch } from "./libtorch.mjs";
import {
  capture,
  fingerprint,
  listFiles,
  missingTool,
  readJson,
  run,
  SetupError,
  which,
  writeJson,
} from "./report.mjs";

const places = (root) => {
  const build = path.join(root, "packages", "torch", "build");
  return {
    source: path.join(root, "packages", "torch", "native"),
    addon: path.join(build, "miro_torch.node"),
    record: path.join(build, "native.json"),
    tree: path.join(build, "cmake"),
    headers: path.join(root, "node_modules", "node-api-headers"),
  };
};

/** What the addon is made from: its sources, the libtorch, the Node-API headers. */
function inputs({ root, env }) {
  const { source, headers } = places(root);
  const torch = chosenLibtorch({ root, env });
  if (!torch) return null;
  const extra = JSON.stringify([
    torch.folder,
    torch.library,
    readJson(path.join(headers, "package.json"))?.version,
    env.CXX ?? "",
  ]);
  return {
    torch,
    hash: fingerprint(
      source,
      listFiles(source, () => true),
      extra,
    ),
  };
}

function isDone(context) {
  const { addon, record } = places(context.root);
  const hash = inputs(context)?.hash;
  return hash !== undefined && existsSync(addon) && readJson(record)?.hash === hash;
}

/** CMake, a generator with its program, and a compiler that takes C++20; an error names all that are missing. */
export async function buildTools(env) {
  const cmake = which(env.CMAKE || "cmake", env);
  const compiler = env.CXX
    ? which(env.CXX.split(" ")[0], env)
    : (which("c++", env) ?? which("g++", env) ?? which("clang++", env));
  const ninja = which("ninja", env) ?? which("ninja-build", env);
  const make = which("make", env) ?? which("gmake", env);
  const needed = "to build the native addon";
  const missing = [
    ...(cmake ? [] : [missingTool("CMake", "cmake", needed, env)]),
    ...(compiler ? [] : [missingTool("A C++20 compiler", "compiler", needed, env)]),
    ...(ninja || make ? [] : [missingTool("make (or ninja)", "make", needed, env)]),
  ];
  if (missing.length > 0) throw new SetupError(missing.map(({ message }) => message).join("\n"));
  const probe = await capture(
    "/bin/sh",
    ["-c", 'echo "#include <concepts>" | "$0" -std=c++20 -fsyntax-only -x c++ -', compiler],
    { env },
  );
  if (probe.code !== 0) {
    throw new SetupError(
      `${compiler} does not compile C++20 (GCC 11 or Clang 14 is enough): ${probe.output.trim().split("\n")[0]}\nInstall a newer one and name it with CXX=...`,
    );
  }
  return { cmake, compiler, generator: ninja ? "Ninja" : "Unix Makefiles", program: ninja ?? make };
}

/**
 * Where toolkits of CUDA are looked for; the last one is that of the nvcc on the path, which may lie anywhere. Headers
 * in /usr need no naming, and named they would come in the wrong order.
 */
export function toolkitsOf(env) {
  const nvcc = which("nvcc", env);
  const found = nvcc === null ? null : path.dirname(path.dirname(realpathSync(nvcc)));
  const named = env.CUDA_HOME ? [env.CUDA_HOME] : [];
  return [...named, "/usr/local/cuda", ...(found === null || found === "/usr" ? [] : [found])];
}

/**
 * Folders of headers of CUDA 13 that pip's torch comes without, and CUDA graphs and NCCL need: of pip's other packages,
 * else of a toolkit, which keeps some of them a folder deeper.
 *
 * @param {string} torch libtorch's folder
 * @param {readonly string[]} toolkits  where toolkits may lie
 * @returns {string[]} besides the one that torch's own headers of CUDA lie in
 * @throws SetupError naming the packages that have them
 */
export function cudaHeaders(torch, toolkits = toolkitsOf(process.env)) {
  const beside = path.join(torch, "..", "nvidia", "cu13", "include");
  if (!existsSync(path.join(torch, "lib", "libtorch_cuda.so")) || !existsSync(path.join(beside, "cuda_runtime_api.h")))
    return [];
  const parts = ["include", path.join("targets", "x86_64-linux", "include")];
  const includes = [beside, ...toolkits.flatMap((toolkit) => parts.map((part) => path.join(toolkit, part)))];
  const folders = includes.flatMap((folder) => [folder, path.join(folder, "cccl")]);
  const found = Object.entries({ crt: "crt/host_defines.h", cccl: "nv/target" }).map(([name, file]) => ({
    name,
    folder: folders.find((folder) => existsSync(path.join(folder, file))),
  }));
  const missing = found.flatMap(({ name, folder }) => (folder === undefined ? [name] : []));
  if (missing.length > 0) {
    throw new SetupError(
      `Some headers of CUDA are missing beside ${torch}, and no toolkit has them; pip does. Install them into the same ` +
        `Python with: pip install "cuda-toolkit[${missing.join(",")}]"`,
    );
  }
  return [...new Set(found.map(({ folder }) => folder))].filter((folder) => folder !== beside);
}

/**
 * What CMake is told of CUDA's headers. Without them only CUDA graphs and NCCL are left out, which is said.
 *
 * @param {string} torch  libtorch's folder  @param {{ env: object, log: (text: string) => void }} context
 */
function cudaChoices(torch, { env, log }) {
  try {
    return [`-DCUDA_MORE_HEADERS=${cudaHeaders(torch, toolkitsOf(env)).join(";")}`];
  } catch (error) {
    log(`setup: warning: CUDA graphs and NCCL are left out. ${error.message}\n`);
    return ["-DWITHOUT_CUDA_HEADERS=ON"];
  }
}

/** Parallel compilations: one a core, and 2 GiB of memory for each (ATen's headers are large). */
const jobs = (env) => Number(env.MIRO_JOBS) || Math.max(1, Math.min(cpus().length, Math.floor(totalmem() / 2 ** 31)));

/**
 * Tells of each file that is compiled which one it is of how many: Ninja counts its steps in every line, make's are in
 * a file; the last step of both links.
 * @param {string} tree  the build folder  @param {(text: string) => void} tell
 * @returns {(line: string) => void} takes the lines of `cmake --build`
 */
export function buildProgress(tree, tell) {
  let count = 0;
  const marks = () => {
    try {
      return Number(readFileSync(path.join(tree, "CMakeFiles", "progress.marks"), "utf8"));
    } catch {
      return 0;
    }
  };
  return (line) => {
    const match = /^\[\s*\d+(?:%|\/(\d+))\] Building CXX object (?:.*\/)?([^/]+)\.o$/.exec(line.trim());
    if (!match) return;
    const files = Number(match[1] ?? marks()) - 1;
    count += 1;
    tell(`${match[2]}, file ${count}${files >= count ? ` of ${files}` : ""}`);
  };
}

/** What CMake configures an addon with, for set-up and for a release. */
export function configuration(tools, { source, tree, torch, headers, output }) {
  return [
    "-S",
    source,
    "-B",
    tree,
    "-G",
    tools.generator,
    "-DCMAKE_BUILD_TYPE=Release",
    `-DCMAKE_MAKE_PROGRAM=${tools.program}`,
    `-DCMAKE_CXX_COMPILER=${tools.compiler}`,
    `-DTORCH_DIR=${torch}`,
    `-DNAPI_INCLUDE=${path.join(headers, "include")}`,
    `-DMIRO_OUTPUT=${output}`,
  ];
}

async function build(context) {
  const { root, env, log } = context;
  const { source, addon, record, tree, headers } = places(root);
  const tools = await buildTools(env);
  const { torch, hash } = inputs(context);
  const cuda = cudaChoices(torch.folder, context);

  // A tree made with other choices cannot be reused; one made with the same resumes after an interruption.
  const choices = { torch: torch.folder, library: torch.library, source, cuda, ...tools };
  const choicesFile = path.join(tree, "choices.json");
  if (JSON.stringify(readJson(choicesFile)) !== JSON.stringify(choices)) rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree, { recursive: true });
  writeJson(choicesFile, choices);

  rmSync(record, { force: true });
  const output = path.join(tree, "out");
  rmSync(output, { recursive: true, force: true }); // a link that was killed may have left half a file
  await run(
    "Configuring the native addon",
    tools.cmake,
    [...configuration(tools, { source, tree, torch: torch.folder, headers, output }), ...cuda],
    { env, onLine: (line) => void (/left out/.test(line) && log(`setup: ${line.trim()}\n`)) },
  );
  await run("Building the native addon", tools.cmake, ["--build", tree, "--parallel", String(jobs(env))], {
    env,
    onLine: buildProgress(tree, (text) => log(`setup: native addon: ${text}\n`)),
  });

  const built = path.join(output, "miro_torch.node");
  await run(
    "Loading the native addon",
    process.execPath,
    ["-e", "process.dlopen({ exports: {} }, process.argv[1])", built],
    { env },
  );
  renameSync(built, addon);
  writeJson(record, { hash, torch: torch.folder, version: torch.version });
}

export const nativeStep = {
  name: "native addon",
  title: (context) => `native addon (CMake; the first time takes a minute or two on ${jobs(context.env)} cores)`,
  isDone,
  check: ({ env }) => buildTools(env),
  run: build,
};
