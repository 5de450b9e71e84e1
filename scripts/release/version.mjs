#!/usr/bin/env node
/**
 * Makes a version out of the entries in .changeset: the packages get one new number, the entries become its section of
 * CHANGELOG.md, beside what stands there under "Unreleased".
 *
 *   npm run change:version
 *
 * The number follows the largest change among the entries; before 1.0.0 the packages' interface may change with a minor
 * one. Without entries nothing happens.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { argumentsOf } from "../setup/command-line.mjs";

/** Where entries of a kind stand that name no heading of their own. */
const HEADING_OF = { minor: "Added", major: "Changed", patch: "Fixed" };

/**
 * The text of CHANGELOG.md with a section for a version. An entry may say under which heading it stands
 * (`Changed: the default is …`); otherwise its kind says so.
 *
 * @param {string} text what the file holds
 * @param {{ kind: "major" | "minor" | "patch", summary: string }[]} entries
 */
export function withVersion(text, version, date, entries) {
  const title = /^## Unreleased$/m;
  const [before, after] = title.test(text) ? splitAt(text, title) : splitAt(text, /^(?=## )/m);
  const next = after.search(/^## /m);
  const [unreleased, rest] = next < 0 ? [after, ""] : [after.slice(0, next), after.slice(next)];
  const sections = new Map();
  let heading = "";
  for (const line of unreleased.trim().split("\n")) {
    const found = /^### (.+)$/.exec(line);
    if (found) heading = found[1];
    else sections.set(heading, [...(sections.get(heading) ?? []), line]);
  }
  const order = [...new Set([...sections.keys(), ...Object.values(HEADING_OF)])];
  for (const { kind, summary } of entries) {
    const [, named, own] = /^(Added|Changed|Fixed): ([\s\S]*)$/.exec(summary.trim()) ?? [];
    const under = named ?? HEADING_OF[kind];
    const bullet = `- ${(own ?? summary.trim()).replaceAll("\n", "\n  ")}`;
    const lines = (sections.get(under) ?? []).join("\n").trim();
    sections.set(under, [...(lines === "" ? [] : lines.split("\n")), bullet]);
  }
  const body = order
    .filter((name) => (sections.get(name) ?? []).join("").trim() !== "")
    .map((name) => `${name === "" ? "" : `### ${name}\n\n`}${sections.get(name).join("\n").trim()}\n`);
  return `${before.trimEnd()}\n\n## ${version} (${date})\n\n${body.join("\n")}${rest === "" ? "" : `\n${rest}`}`;
}

/** The text before a match, and behind it. Without one the second is empty. */
function splitAt(text, pattern) {
  const found = pattern.exec(text);
  return found === null ? [text, ""] : [text.slice(0, found.index), text.slice(found.index + found[0].length)];
}

const KINDS = ["patch", "minor", "major"];

/** @returns the new version, or null where there are no entries */
export async function makeVersion(root, date) {
  const changesets = await createRequire(import.meta.url)("@changesets/read").default(root);
  const entries = changesets.map(({ summary, releases }) => {
    const kinds = releases.map(({ type }) => KINDS.indexOf(type));
    return { kind: KINDS[Math.max(...kinds)], summary };
  });
  if (entries.length === 0) return null;
  const run = (command, ...args) => {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
    if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${stdout}${stderr}`);
  };
  const here = path.dirname(fileURLToPath(import.meta.url));
  run(path.join(here, "..", "..", "node_modules", ".bin", "changeset"), "version");
  const { version } = JSON.parse(readFileSync(path.join(root, "packages/miro/package.json"), "utf8"));
  const file = path.join(root, "CHANGELOG.md");
  writeFileSync(file, withVersion(readFileSync(file, "utf8"), version, date, entries));
  for (const name of ["deploy/Dockerfile", "deploy/space/Dockerfile"].map((one) => path.join(root, one)))
    if (existsSync(name))
      writeFileSync(name, readFileSync(name, "utf8").replace(/^ARG MIRO_VERSION=.*$/m, `ARG MIRO_VERSION=${version}`));
  if (existsSync(path.join(root, "package-lock.json")))
    run("npm", "install", "--package-lock-only", "--ignore-scripts");
  return version;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  argumentsOf(import.meta.url);
  const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "..");
  const version = await makeVersion(root, new Date().toISOString().slice(0, 10));
  console.log(version === null ? "no entries in .changeset: nothing to do" : `version ${version}`);
}
