#!/usr/bin/env node
/**
 * Builds the API reference of both packages with typedoc into build/api. The entry points are the `exports` of each
 * package.json.
 *
 * typedoc uses TypeScript's JavaScript compiler interface, which TypeScript 7 does not have; typedoc and the TypeScript
 * that it needs are therefore not dependencies of the workspace but are kept in .cache/typedoc. Types are checked by
 * `npm run typecheck`, not here. Broken links and wrong parameter names in comments are errors.
 *
 *   npm run docs
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";

argumentsOf(import.meta.url);
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const home = path.join(root, ".cache", "typedoc");
const TOOLS = ["typedoc@0.28.20", "typescript@6.0.3"];
const PACKAGES = ["packages/torch", "packages/miro"];

/** What a package lets others import, as [specifier, source file]. */
function entryPoints(folder) {
  const { name, exports } = JSON.parse(readFileSync(path.join(root, folder, "package.json"), "utf8"));
  return Object.entries(exports)
    .filter(([, target]) => typeof target === "object")
    .map(([entry, { default: built }]) => [
      path.posix.join(name, entry),
      path.join(root, folder, built.replace("./dist/", "src/").replace(/\.js$/, ".ts")),
    ]);
}

const installed = path.join(home, "tools.json");
if (!existsSync(installed) || readFileSync(installed, "utf8") !== JSON.stringify(TOOLS)) {
  mkdirSync(home, { recursive: true });
  const options = ["--prefix", home, "--no-audit", "--no-fund", "--no-save"];
  const { status } = spawnSync("npm", ["install", ...options, ...TOOLS], { stdio: ["ignore", 2, 2] });
  if (status !== 0) {
    console.error(`docs: ${TOOLS.join(" and ")} could not be installed`);
    process.exit(1);
  }
  writeFileSync(installed, JSON.stringify(TOOLS));
}

const entries = PACKAGES.flatMap(entryPoints);
const tsconfig = path.join(home, "tsconfig.json");
writeFileSync(
  tsconfig,
  JSON.stringify({
    extends: path.join(root, "tsconfig.base.json"),
    compilerOptions: {
      noEmit: true,
      composite: false,
      incremental: false,
      typeRoots: [path.join(root, "node_modules", "@types")],
      paths: Object.fromEntries(entries.map(([specifier, file]) => [specifier, [file]])),
    },
    include: PACKAGES.map((folder) => path.join(root, folder, "src")),
    exclude: ["**/*.test.ts"],
  }),
);
const options = path.join(home, "options.json");
writeFileSync(
  options,
  JSON.stringify({
    name: "miro-t2i",
    entryPoints: entries.map(([, file]) => file),
    tsconfig,
    basePath: root,
    out: path.join(root, "build", "api"),
    readme: path.join(root, "README.md"),
    skipErrorChecking: true,
    excludeInternal: true,
    excludePrivate: true,
    disableSources: true,
    validation: { invalidLink: true, notExported: false, notDocumented: false },
    treatWarningsAsErrors: true,
  }),
);
const typedoc = path.join(home, "node_modules", "typedoc", "bin", "typedoc");
const { status } = spawnSync(process.execPath, [typedoc, "--options", options], { cwd: root, stdio: "inherit" });
process.exitCode = status === 0 ? 0 : 1;
