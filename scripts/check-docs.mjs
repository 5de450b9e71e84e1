#!/usr/bin/env node
/**
 * Everything that a file exports has a documentation comment: functions, classes, interfaces, types and constants, and
 * the members of classes and interfaces, unless `@internal`. Of overloads the first one counts. Tests and their helpers
 * are left out, and generated files, whose documentation comes from their tables.
 *
 *   node scripts/check-docs.mjs FOLDER...
 *   node scripts/check-docs.mjs --entries FOLDER       what the `exports` of its package.json let others import: the
 *                                                      names, and of those on the root the members too; and all
 *                                                      options that are declared outside of commands
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";
import { listFiles } from "./setup/report.mjs";

const EXPORT = /^export (?:abstract |async )*(?:function\*?|class|interface|type|const) (\w+)/;
/** A method, a field or a parameter that is a field; names with # or a symbol are nobody else's. */
const MEMBER = /^ {2}(?:(?:static|readonly|abstract|async|get|protected) )*\*?(\w+)[?!]?(?:<.*>)?(?:\(|:|;| =)/;
const FIELD = /^ {4}readonly (\w+)/;
const ELSEWHERE = /^ {2}(?:override|private|set|constructor|return|if|for)\b/;

/** What is exported without documentation, as [line number, name]. */
export function undocumented(text) {
  const lines = text.split("\n");
  const isDocumented = (i) => /\*\/$/.test(lines[i - 1] ?? "");
  const isInternal = (i) => {
    for (let at = i - 1; at >= 0 && /^\s*(\/\*\*|\*)/.test(lines[at]); at--)
      if (lines[at].includes("@internal")) return true;
    return false;
  };
  const found = [];
  const seen = new Set();
  let owner = "";
  const check = (i, name) => {
    if (!seen.has(name) && !isDocumented(i) && !isInternal(i)) found.push([i + 1, name]);
    seen.add(name);
  };
  for (const [i, line] of lines.entries()) {
    const exported = EXPORT.exec(line);
    if (exported) {
      check(i, exported[1]);
      owner = /\b(class|interface) \w+.*\{$/.test(line) && !isInternal(i) ? exported[1] : "";
    } else if (line.startsWith("}")) owner = "";
    else if (owner !== "" && !ELSEWHERE.test(line)) {
      const name = (MEMBER.exec(line) ?? FIELD.exec(line))?.[1];
      if (name !== undefined) check(i, `${owner}.${name}`);
    }
  }
  return found;
}

/** Options that are declared without a documentation comment, as [line number, name]; editors show it to callers. */
export function undocumentedOptions(text) {
  const lines = text.split("\n");
  return lines.flatMap((line, i) => {
    const name = /^ {2}(\w+): (?:field|flag|callback|abortSignal)(?:<|\()/.exec(line)?.[1];
    return name === undefined || /\*\/$/.test(lines[i - 1]) ? [] : [[i + 1, name]];
  });
}

/**
 * What an entry point exports, followed through re-exports to where it is declared.
 * @returns names by file
 */
export function exportedFrom(file, only = null, found = new Map()) {
  const text = readFileSync(file, "utf8");
  const beside = (specifier) => path.join(path.dirname(file), specifier.replace(/\.js$/, ".ts"));
  for (const [, name] of text.matchAll(new RegExp(EXPORT, "gm"))) {
    if (only === null || only === name) found.set(file, (found.get(file) ?? new Set()).add(name));
  }
  for (const [, names, from] of text.matchAll(/export (?:type )?\{([^}]*)\} from "(\.[^"]+)"/g)) {
    for (const name of names.split(",").map((one) => one.replace("type ", "").trim().split(" as ")[0])) {
      if (name !== "" && (only === null || only === name)) exportedFrom(beside(from), name, found);
    }
  }
  for (const [, from] of text.matchAll(/export \* from "(\.[^"]+)"/g)) exportedFrom(beside(from), only, found);
  return found;
}

/** What the entry points of a package export without documentation, as messages. */
function undocumentedEntries(folder) {
  const { exports } = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
  const messages = new Set();
  const withOptions = (file) => /\.ts$/.test(file) && !/\.test\.ts$|\/(?:cli|testing)\//.test(file);
  for (const file of listFiles(path.join(folder, "src"), withOptions)) {
    for (const [line, name] of undocumentedOptions(readFileSync(file, "utf8")))
      messages.add(`${path.relative(process.cwd(), file)}:${line}: the option ${name} has no documentation comment`);
  }
  for (const [entry, { types } = {}] of Object.entries(exports)) {
    if (types === undefined) continue;
    const source = path.join(folder, types.replace("./dist/", "src/").replace(/\.d\.ts$/, ".ts"));
    for (const [file, names] of exportedFrom(source)) {
      for (const [line, name] of undocumented(readFileSync(file, "utf8"))) {
        const [owner, member] = name.split(".");
        if (names.has(owner) && (member === undefined || entry === "."))
          messages.add(
            `${path.relative(process.cwd(), file)}:${line}: ${name} is exported without a documentation comment`,
          );
      }
    }
  }
  return messages;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
  const checked = (file) => /\.ts$/.test(file) && !/\.(test|generated)\.ts$|\/testing\//.test(file);
  const { values, positionals } = argumentsOf(import.meta.url, { entries: { type: "boolean" } }, true);
  for (const folder of positionals) {
    if (values.entries) {
      for (const message of undocumentedEntries(path.join(root, folder))) {
        console.error(message);
        process.exitCode = 1;
      }
      continue;
    }
    for (const file of listFiles(path.join(root, folder), checked)) {
      for (const [line, name] of undocumented(readFileSync(file, "utf8"))) {
        console.error(`${path.relative(root, file)}:${line}: ${name} is exported without a documentation comment`);
        process.exitCode = 1;
      }
    }
  }
}
