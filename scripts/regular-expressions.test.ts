/**
 * Files, names and texts come from strangers, so no regular expression of the sources may take more than linear time.
 * The analyser knows patterns that backtrack polynomially and those that are tried again at each character of a run
 * (`x+$`); what it cannot see, texts of several characters that repeat, stands in
 * packages/miro/src/linear-time.test.ts.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { analyse } from "scslre";
import { expect, it } from "vitest";
import { parseAst } from "vitest/node";

/** Expressions that only see what this package holds itself. */
const TRUSTED = new Set([
  "([0-9a-z]+)([A-Z])([0-9a-z]+)", // text/graphemes.ts: its generated table
  "<[^>]+>", // rewards/vqa-text.ts: only sees what stands before a last >
]);

interface Node {
  type?: string;
  regex?: { pattern: string; flags: string };
}

/** The regular expressions of a source text. */
function expressionsOf(source: string): { pattern: string; flags: string }[] {
  const found: { pattern: string; flags: string }[] = [];
  const visit = (node: unknown): void => {
    if (typeof node !== "object" || node === null) return;
    const { type, regex } = node as Node;
    if (type === "Literal" && regex) found.push(regex);
    for (const child of Object.values(node)) visit(child);
  };
  visit(parseAst(source, { lang: "ts" }));
  return found;
}

function slow({ pattern, flags }: { pattern: string; flags: string }): boolean {
  const { reports } = analyse({ source: pattern, flags }, { reportTypes: { Move: true, Self: true, Trade: true } });
  return reports.length > 0;
}

it.each(["torch", "miro"])("no expression in packages/%s takes more than linear time", (name) => {
  const root = fileURLToPath(new URL(`../packages/${name}/src`, import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
    (file) => file.endsWith(".ts") && !/\.test\.ts$|\.generated\.ts$|(^|\/)testing\//.test(file),
  );
  const expressions = files.flatMap((file) =>
    expressionsOf(readFileSync(join(root, file), "utf8")).map((expression) => ({ file, ...expression })),
  );
  expect(expressions.length).toBeGreaterThan(10);
  expect(expressions.filter((one) => !TRUSTED.has(one.pattern) && slow(one))).toEqual([]);
});

it("the analyser finds what it is here for", () => {
  for (const [pattern, flags] of [
    ["\\0+$", ""],
    ["\\s*\\n\\s*", "g"],
    ["^\\d+\\.?\\d*$", ""],
    ["^(a+)+$", ""],
  ] as const)
    expect(slow({ pattern, flags }), pattern).toBe(true);
  expect(slow({ pattern: "^\\d+(?:\\.\\d*)?$", flags: "" })).toBe(false);
});
