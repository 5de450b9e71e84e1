#!/usr/bin/env node
/**
 * Imports go one way. Fails on an import that goes upward between layers, on a cycle between files, or folders of any
 * depth, and on a path that reaches into another package.
 *
 *   torch <- files, pictures, random, threads <- networks, text, autoencoder <- flow <- pipeline <- rewards, data
 *     <- training, evaluation <- release <- studio, emoji <- cli, exports
 *
 * Layers are made of the folders of packages/miro/src. Files that lie beside them (errors.ts, version.ts) are below
 * all, index.ts is above. Type-only imports count; test files are not looked at.
 *
 *   npm run check:imports
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";
import { listFiles } from "./setup/report.mjs";

/** The lowest first. */
const layers = [
  ["files", "pictures", "random", "threads"],
  ["networks", "text", "autoencoder"],
  ["flow"],
  ["pipeline"],
  ["rewards", "data"],
  ["training", "evaluation"],
  ["release"],
  ["studio", "emoji"],
  ["cli", "exports"],
];

/** The module specifiers that a source text imports or re-exports. */
export function importedFrom(source) {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const pattern =
    /(?:^|[\s;}])(?:import|export)\s(?:[^"';]*?\sfrom\s*)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/g;
  return [...code.matchAll(pattern)].map((match) => match[1] ?? match[2]);
}

/** One cycle in a graph given as node -> neighbours, as the list of its nodes; null when there is none. */
export function findCycle(graph) {
  const state = new Map(); // 1: on the path, 2: done
  const trail = [];
  const visit = (node) => {
    state.set(node, 1);
    trail.push(node);
    for (const next of graph.get(node) ?? []) {
      if (state.get(next) === 1) return [...trail.slice(trail.indexOf(next)), next];
      if (!state.has(next)) {
        const cycle = visit(next);
        if (cycle) return cycle;
      }
    }
    trail.pop();
    state.set(node, 2);
    return null;
  };
  for (const node of graph.keys()) {
    const cycle = state.has(node) ? null : visit(node);
    if (cycle) return cycle;
  }
  return null;
}

/** What other packages may import of the engine: the `exports` of its package.json. */
function entryPoints(manifest) {
  const { name, exports } = JSON.parse(readFileSync(manifest, "utf8"));
  return new Set(Object.keys(exports).map((entry) => path.posix.join(name, entry)));
}

/** Everything wrong with the imports below `root`, one message each. */
export function checkImports(root) {
  const problems = [];
  const files = new Map();
  const tops = new Map();
  const folders = new Map();
  const miro = path.join(root, "packages", "miro", "src");
  const topOf = (file) => {
    const parts = path.relative(miro, file).split(path.sep);
    if (parts[0] === "..") return null;
    return parts.length > 1 ? parts[0] : parts[0] === "index.ts" ? "index" : "base";
  };
  const layerOf = (top) => {
    if (top === "base") return -1;
    if (top === "index") return layers.length;
    return layers.findIndex((layer) => layer.includes(top));
  };
  const open = entryPoints(path.join(root, "packages", "torch", "package.json"));
  const isTest = (file) => file.endsWith(".test.ts");
  for (const name of ["torch", "miro"]) {
    const home = path.join(root, "packages", name, "src");
    for (const file of listFiles(home, (f) => /\.tsx?$/.test(f) && !isTest(f))) {
      const here = path.relative(root, file);
      const top = topOf(file);
      if (top && layerOf(top) === -1 && top !== "base") problems.push(`${here}: "${top}" is in no layer`);
      const targets = [];
      for (const specifier of importedFrom(readFileSync(file, "utf8"))) {
        if (name === "torch" && /^miro-t2i($|\/)/.test(specifier))
          problems.push(`${here}: the engine imports "${specifier}"`);
        if (/^@miro-t2i\/torch\//.test(specifier) && !open.has(specifier))
          problems.push(`${here}: imports "${specifier}"; public are ${[...open].join(", ")}`);
        if (!specifier.startsWith(".")) continue;
        const named = path.resolve(path.dirname(file), specifier);
        if (!named.startsWith(home + path.sep)) {
          if (named.endsWith(".js")) problems.push(`${here}: "${specifier}" leaves the package`);
          continue;
        }
        if (!named.endsWith(".js")) continue; // data files
        const target = [".ts", ".tsx"].map((ending) => named.replace(/\.js$/, ending)).find(existsSync);
        if (target === undefined) continue; // the compiler reports missing ones
        targets.push(target);
        const [from, to] = [path.dirname(here), path.relative(root, path.dirname(target))];
        // The package's root holds what all folders import (errors.ts), and what imports them (index.ts).
        const inside = (folder) => folder !== path.relative(root, home);
        if (from !== to && inside(from) && inside(to) && !path.basename(from).startsWith("testing"))
          folders.set(from, (folders.get(from) ?? new Set()).add(to));
        const other = topOf(target);
        if (!top || other === top) continue;
        if (layerOf(other) > layerOf(top))
          problems.push(`${here}: "${top}" imports upward from "${other}" (${specifier})`);
        else tops.set(top, (tops.get(top) ?? new Set()).add(other));
      }
      files.set(file, targets);
    }
  }
  const cycle = findCycle(files);
  if (cycle) problems.push(`files import in a circle: ${cycle.map((file) => path.relative(root, file)).join(" -> ")}`);
  const topCycle = findCycle(tops);
  if (topCycle) problems.push(`folders import in a circle: ${topCycle.join(" -> ")}`);
  const folderCycle = findCycle(folders);
  if (folderCycle && !topCycle) problems.push(`folders import in a circle: ${folderCycle.join(" -> ")}`);
  return problems;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  argumentsOf(import.meta.url);
  const problems = checkImports(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
