/**
 * The addon as it is published: built against the private copy of libtorch, without a path of this machine inside, and
 * with symbols of an old glibc alone. Kept in .cache/release by a hash of what it is made from.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { buildTools, configuration, cudaHeaders } from "../setup/native.mjs";
import { capture, fingerprint, listFiles, readJson, run, SetupError } from "../setup/report.mjs";

/** The oldest glibc and libstdc++ (GCC 8) that the addon may need: those of RHEL 8 and Debian 10. */
export const OLDEST = { GLIBC: "2.28", GLIBCXX: "3.4.25", CXXABI: "1.3.11" };

/** Where the addon looks for libtorch: beside its own package, as npm, pnpm and yarn lay packages out, or inside it. */
const LIBRARY_FOLDERS = (libtorch) =>
  [`$ORIGIN/../${path.basename(libtorch)}/lib`, `$ORIGIN/node_modules/${libtorch}/lib`].join(":");

/**
 * Builds the addon, unless it is there already.
 *
 * @param {{ root: string, env: NodeJS.ProcessEnv, torch: string, libtorch: string | null, cuda?: boolean,
 *   log: (text: string) => void }} context
 *   torch: libtorch's folder; libtorch: name of the package that will hold it, null where none does: then a variable
 *   names it to the user's program, which loads it first; cuda: with CUDA graphs and NCCL
 * @returns {Promise<string>} the file
 */
export async function releaseAddon({ root, env, torch, libtorch, cuda = false, log }) {
  const source = path.join(root, "packages", "torch", "native");
  const here = path.join(root, "scripts", "release");
  const headers = path.join(root, "node_modules", "node-api-headers");
  const tools = await buildTools(env);
  const compiler = (await capture(tools.compiler, ["--version"], { env })).stdout.split("\n")[0];
  const folders = libtorch === null ? null : LIBRARY_FOLDERS(libtorch);
  const shims = ["old-glibc.h", "old-glibc.c", "addon.mjs"].map((name) => readFileSync(path.join(here, name), "utf8"));
  const version = readJson(path.join(headers, "package.json"))?.version;
  const all = listFiles(source, () => true);
  const hash = fingerprint(source, all, JSON.stringify([torch, version, compiler, folders, ...shims]));
  const cache = path.join(root, ".cache", "release");
  const file = path.join(cache, `miro_torch-${hash.slice(0, 16)}.node`);
  if (existsSync(file)) return file;

  const more = cuda ? cudaHeaders(torch) : [];
  log(`pack: the addon for ${cuda ? "CUDA" : "CPUs"} (CMake; some minutes) ...\n`);
  const tree = path.join(cache, cuda ? "cmake-cuda" : "cmake");
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree, { recursive: true });
  const shim = path.join(tree, "old-glibc.o");
  const position = ["-O2", "-fPIC", "-fvisibility=hidden", "-fno-builtin"];
  await run(
    "Compiling old-glibc.c",
    tools.compiler,
    ["-x", "c", ...position, "-c", path.join(here, "old-glibc.c"), "-o", shim],
    {
      env,
    },
  );
  const output = path.join(tree, "out");
  // The linker reads this file itself: no shell and no build file sees the dollar sign.
  const linking = path.join(tree, "link-options");
  writeFileSync(linking, `--enable-new-dtags${folders === null ? "" : ` -rpath ${folders}`}\n`);
  const prefixes = [
    [source, "native"],
    [root, "."],
    // Headers of CUDA lie beside torch.
    ...(cuda ? [[path.dirname(torch), "site-packages"]] : []),
    [torch, "libtorch"],
  ].map(([from, to]) => `-ffile-prefix-map=${from}=${to}`);
  await run(
    "Configuring the addon for release",
    tools.cmake,
    [
      ...configuration(tools, { source, tree, torch, headers, output }),
      `-DCMAKE_CXX_FLAGS=-include "${path.join(here, "old-glibc.h")}" ${prefixes.join(" ")}`,
      `-DCMAKE_MODULE_LINKER_FLAGS=${shim} -Wl,@${linking}`,
      "-DCMAKE_SKIP_RPATH=ON",
      `-DCUDA_MORE_HEADERS=${more.join(";")}`,
    ],
    { env },
  );
  if (cuda && !/^NCCL_COMPILES:\w+=(TRUE|1|ON)$/m.test(readFileSync(path.join(tree, "CMakeCache.txt"), "utf8"))) {
    throw new SetupError(`NCCL's headers were not found beside ${torch}: install torch with its dependencies, by pip`);
  }
  await run("Building the addon for release", tools.cmake, ["--build", tree, "--parallel", env.MIRO_JOBS ?? "2"], {
    env,
  });
  const built = path.join(output, "miro_torch.node");
  await run("Stripping the addon", "strip", ["--strip-unneeded", built], { env });
  renameSync(built, file);
  return file;
}

/**
 * What a shared library needs of a newer system than {@link OLDEST}, as `objdump -T` lists it.
 *
 * @returns {string[]} such as `fstat (GLIBC_2.33)`; empty where all is old enough
 */
export function tooNew(file, oldest = OLDEST) {
  const table = execFileSync("objdump", ["-T", file], { encoding: "utf8", maxBuffer: 2 ** 28 });
  return newerSymbols(table, oldest);
}

/** The undefined symbols of a table of `objdump -T` whose versions are newer than `oldest` says. */
export function newerSymbols(table, oldest) {
  const found = new Set();
  for (const line of table.split("\n")) {
    const [, library, version, name] = line.match(/\*UND\*.*\(?\b(GLIBC|GLIBCXX|CXXABI)_([\d.]+)\)?\s+(\S+)$/) ?? [];
    if (library && isNewer(version, oldest[library])) found.add(`${name} (${library}_${version})`);
  }
  return [...found].sort();
}

/** Whether a version such as 2.34 is newer than another; compared number by number. */
function isNewer(version, than) {
  const [a, b] = [version, than].map((text) => text.split(".").map(Number));
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) > (b[i] ?? 0);
  }
  return false;
}
