#!/usr/bin/env node
/**
 * Lines are at most 120 columns wide, comments too: the formatter breaks TypeScript and JavaScript, but no comments,
 * and no C++. Generated files are left out. A line may be longer only where it cannot be broken: an address, or a
 * string that the formatter left whole.
 *
 *   node scripts/check-width.mjs FOLDER...
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { argumentsOf } from "./setup/command-line.mjs";
import { listFiles } from "./setup/report.mjs";

const LIMIT = 120;
const COMMENT = /^\s*(\/\/|\/?\*)|\s\/\/ /;

/** The lines of a text that are too wide, as [line number, width]; of `commentsOnly`, those that are comments. */
export function wideLines(text, commentsOnly) {
  return text.split("\n").flatMap((line, i) => {
    const width = [...line].length;
    return width > LIMIT && (!commentsOnly || COMMENT.test(line)) && !/https?:\/\/\S{60}/.test(line)
      ? [[i + 1, width]]
      : [];
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
  const checked = (file) => /\.(tsx?|mjs|cpp|hpp)$/.test(file) && !file.endsWith(".generated.ts");
  const skipped = /\/(node_modules|dist|build)\//;
  for (const folder of argumentsOf(import.meta.url, {}, true).positionals) {
    for (const file of listFiles(path.join(root, folder), (f) => checked(f) && !skipped.test(f))) {
      for (const [line, width] of wideLines(readFileSync(file, "utf8"), !/\.[ch]pp$/.test(file))) {
        console.error(`${path.relative(root, file)}:${line}: ${width} columns; a line has at most ${LIMIT}`);
        process.exitCode = 1;
      }
    }
  }
}
