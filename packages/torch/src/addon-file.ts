/**
 * Where the native addon lies: built by the set-up of a clone, else in the package of this platform, which npm installs
 * as an optional dependency; for a libtorch with CUDA, which a variable names, in a package that the user installs.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { TorchError } from "./errors.js";
import { namedLibtorch } from "./named-libtorch.js";

/** The platforms that have packages with the addon, and what these are called behind `@miro-t2i/torch-`. */
const PREBUILT: Record<string, { cpu: string; cuda: string }> = {
  "linux x64": { cpu: "linux-x64-gnu", cuda: "linux-x64-cuda" },
};

/** What the search depends on; replaced by tests. */
export interface AddonSurroundings {
  /** The folder of this package, which holds `dist`. */
  home: string;
  /** As `process.platform`. */
  platform: string;
  /** As `process.arch`. */
  arch: string;
  /** Version of the running glibc, null where the C library is another one. */
  glibc: () => string | null;
  /** The process's variables. */
  env: Readonly<Record<string, string | undefined>>;
  /** The file that a module's name means for this package. It throws where there is none. */
  resolve: (name: string) => string;
}

const FROM_SOURCE = "build it from a clone of the repository (`npm run setup` there)";

/** The addon's file. @throws TorchError that says why there is none and what to do */
export function addonFile(surroundings: AddonSurroundings): string {
  const { home, platform, arch, env, resolve } = surroundings;
  const built = join(home, "build", "miro_torch.node");
  if (existsSync(built)) return built;
  const names = PREBUILT[`${platform} ${arch}`];
  const name = names?.[namedLibtorch(env)?.isCuda ? "cuda" : "cpu"];
  if (name !== undefined) {
    try {
      return resolve(`@miro-t2i/torch-${name}/miro_torch.node`);
    } catch {
      // Told apart below.
    }
  }
  throw new TorchError(whyMissing(surroundings, built, name));
}

function whyMissing({ home, platform, arch, glibc, env }: AddonSurroundings, built: string, name?: string): string {
  if (existsSync(join(home, "..", "..", "scripts", "setup.mjs"))) {
    return `the native addon is not built: ${built} is missing; run "node scripts/setup.mjs" in the clone`;
  }
  // A bundler has moved this file into another package.
  if (manifestOf(home)?.name !== "@miro-t2i/torch") {
    return (
      "@miro-t2i/torch was bundled into another file, where it finds neither its addon nor libtorch; " +
      "mark miro-t2i and @miro-t2i/torch as external (esbuild: --external:miro-t2i; Vite: build.rolldownOptions.external)"
    );
  }
  if (name === undefined || (platform === "linux" && glibc() === null)) {
    const here = `${platform} ${arch}${platform === "linux" && glibc() === null ? " without glibc (musl)" : ""}`;
    return `there is no prebuilt native addon for ${here}, only for Linux x64 with glibc 2.28 or newer; ${FROM_SOURCE}`;
  }
  const named = namedLibtorch(env);
  if (named?.isCuda) {
    return (
      `${named.variable} names ${named.folder}, a libtorch for CUDA, and the addon for it is not installed; ` +
      `run \`npm install @miro-t2i/torch-${name}@${manifestOf(home)?.version}\`, or unset ${named.variable} to compute on ` +
      "the CPU"
    );
  }
  return (
    `the package @miro-t2i/torch-${name} is not installed; it is an optional dependency, which --omit=optional and lock ` +
    "files made on another platform leave out: install again with `npm install --include=optional`, or delete " +
    "node_modules and the lock file first"
  );
}

/** What to do where the addon was found and cannot be loaded, by what the loader says. */
export function loadAdvice(home: string, reason: string): string {
  if (existsSync(join(home, "build"))) {
    return 'run "node scripts/setup.mjs" to build it for the libtorch that is installed';
  }
  if (/libtorch|libc10/.test(reason) && reason.includes("cannot open shared object file")) {
    return (
      "libtorch is a package beside it, @miro-t2i/libtorch-…: delete node_modules and install again, or set LIBTORCH to " +
      "the folder of a libtorch for CPUs of the same version"
    );
  }
  if (/GLIBC|CXXABI/.test(reason)) return `it needs glibc 2.28 and GCC 8's libstdc++ or newer; ${FROM_SOURCE}`;
  if (reason.includes("undefined symbol")) {
    return "another libtorch was found before the one beside it: leave its folder out of LD_LIBRARY_PATH";
  }
  return `delete node_modules and install again, or ${FROM_SOURCE}`;
}

/** package.json of a folder; null where there is none. */
function manifestOf(home: string): { name?: string; version?: string } | null {
  try {
    return JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  } catch {
    return null;
  }
}

/** The surroundings of this process, for the package in `home`. */
export function theseSurroundings(home: string): AddonSurroundings {
  return {
    home,
    platform: process.platform,
    arch: process.arch,
    env: process.env,
    glibc: () => {
      const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
      return header.glibcVersionRuntime ?? null;
    },
    resolve: createRequire(join(home, "package.json")).resolve,
  };
}
