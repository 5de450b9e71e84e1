#!/usr/bin/env node
/**
 * Compiles an application against the packages as they are published, with every supported release of TypeScript and
 * the ways of finding modules that applications use: strict, and without skipLibCheck. With the language service of one
 * of them, every option that the packages export is asked for its documentation, as an editor does, and whether it may
 * be undefined where it may be left out.
 *
 *   npm run test:types                             all releases
 *   npm run test:types -- --typescript 5.4,7.0     some of them
 *
 * The releases come from npm and are kept in .cache/typescript.
 */
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { miroPackage, torchPackage } from "./release/packages.mjs";
import { argumentsOf } from "./setup/command-line.mjs";
import { readJson } from "./setup/report.mjs";
import { faultyMembers } from "./types-test/documentation.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const RELEASES = ["5.4", "5.5", "5.6", "5.7", "5.8", "5.9", "6.0", "7.0"];
/** The newest release whose language service programs can call. */
const WITH_SERVICE = "5.9";

const STRICT = {
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noImplicitOverride: true,
  noEmit: true,
  skipLibCheck: false,
  target: "ES2022",
};
const NODE = { lib: ["ES2022"] };
const BROWSER = { lib: ["ES2022", "DOM"] };
/** Ways to find modules, with and without the types of Node among those of the application. */
const SETTINGS = {
  node16: { module: "node16", moduleResolution: "node16", ...NODE, types: ["node"] },
  nodenext: { module: "nodenext", moduleResolution: "nodenext", ...NODE },
  "nodenext, no types": { module: "nodenext", moduleResolution: "nodenext", ...NODE, types: [] },
  bundler: { module: "esnext", moduleResolution: "bundler", ...BROWSER, types: ["node"] },
  "bundler, no types": { module: "esnext", moduleResolution: "bundler", ...BROWSER, types: [] },
};

/** Those that are tried with the releases between the oldest and the newest one. */
const IN_BETWEEN = ["nodenext, no types", "bundler"];

/** A release of TypeScript; installed when it is not there yet. */
function compiler(release) {
  const home = path.join(root, ".cache", "typescript", release);
  const folder = path.join(home, "node_modules", "typescript");
  if (!existsSync(path.join(folder, "bin", "tsc"))) {
    mkdirSync(home, { recursive: true });
    const options = ["--prefix", home, "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"];
    const { status } = spawnSync("npm", ["install", ...options, `typescript@${release}`], { stdio: ["ignore", 2, 2] });
    if (status !== 0) throw new Error(`test:types: typescript@${release} could not be installed`);
  }
  return folder;
}

/** The declarations of what a package needs, and of what that needs, beside each other as npm puts them. */
function installDependencies(from, dependencies, target) {
  for (const name of Object.keys(dependencies)) {
    const inside = path.join(target, "node_modules", name);
    if (existsSync(inside)) continue;
    const source = packageFolder(from, name);
    if (source === null) continue; // of another platform
    const isDeclaration = (file) =>
      !/\/node_modules(\/|$)/.test(file.slice(source.length)) && (statSync(file).isDirectory() || isOfTypes(file));
    cpSync(source, inside, { recursive: true, filter: isDeclaration });
    installDependencies(source, readJson(path.join(source, "package.json")).dependencies ?? {}, target);
  }
}

const isOfTypes = (file) => /\.d\.[cm]?ts$|(?:^|\/)package\.json$/.test(file);

/** Where a package lies that another one would import. */
function packageFolder(from, name) {
  const folders = createRequire(path.join(from, "package.json")).resolve.paths(name) ?? [];
  return (
    folders.map((folder) => path.join(folder, name)).find((folder) => existsSync(`${folder}/package.json`)) ?? null
  );
}

/** An application into whose node_modules the packages were installed, as far as types go. */
async function makeApplication(folder) {
  for (const { name, entries } of [torchPackage({ root }), await miroPackage({ root })]) {
    for (const [inside, { file, content }] of entries) {
      if (!isOfTypes(inside)) continue;
      const target = path.join(folder, "node_modules", name, inside);
      mkdirSync(path.dirname(target), { recursive: true });
      if (content === undefined) copyFileSync(file, target);
      else writeFileSync(target, content);
    }
  }
  for (const name of ["torch", "miro"]) {
    const home = path.join(root, "packages", name);
    installDependencies(home, readJson(path.join(home, "package.json")).dependencies ?? {}, folder);
  }
  writeFileSync(path.join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  copyFileSync(path.join(root, "scripts/types-test/consumer.ts"), path.join(folder, "consumer.ts"));
}

/** Compiles with one release and one way. @returns what it says, empty when all is well */
function compile(folder, release, name, settings) {
  const project = path.join(folder, `tsconfig-${release}-${name.replaceAll(/\W+/g, "-")}.json`);
  writeFileSync(project, JSON.stringify({ compilerOptions: { ...STRICT, ...settings }, files: ["consumer.ts"] }));
  const child = spawn(process.execPath, [path.join(compiler(release), "bin", "tsc"), "--project", project], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => (said += bytes));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code === 0 ? "" : said || `tsc ended with ${code}`));
  });
}

async function main() {
  const { values } = argumentsOf(import.meta.url, { typescript: { type: "string" } });
  const releases = values.typescript?.split(",") ?? RELEASES;
  for (const release of releases) compiler(release);
  const folder = mkdtempSync(path.join(tmpdir(), "miro-types-"));
  let failed = 0;
  let passed = 0;
  const report = (what, said) => {
    if (said === "") passed++;
    else failed++;
    console.log(
      `${said === "" ? "ok     " : "FAILED "} ${what}${said && `\n${said.split("\n").slice(0, 20).join("\n")}`}`,
    );
  };
  try {
    await makeApplication(folder);
    const ends = [RELEASES[0], RELEASES.at(-1)];
    const jobs = releases.flatMap((release) =>
      Object.entries(SETTINGS)
        .filter(([name]) => ends.includes(release) || IN_BETWEEN.includes(name))
        .map((setting) => [release, ...setting]),
    );
    const next = async () => {
      for (let job = jobs.shift(); job; job = jobs.shift()) {
        const [release, name, settings] = job;
        report(`TypeScript ${release}, ${name}`, await compile(folder, release, name, settings));
      }
    };
    await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, next));
    if (releases.includes(WITH_SERVICE)) {
      const typescript = createRequire(import.meta.url)(compiler(WITH_SERVICE));
      const packages = ["@miro-t2i/torch", "miro-t2i"].map((name) => path.join(folder, "node_modules", name));
      const faults = packages.map((home) => faultyMembers(typescript, home));
      const of = (kind) => faults.flatMap((found) => found[kind]).join("\n");
      report("every option has its documentation in an editor", of("undocumented"));
      report("every option that may be left out may be undefined", of("refusing"));
    }
    console.log(`${passed} passed, ${failed} failed`);
    return failed === 0 && passed > 0 ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = await main();
