/**
 * The examples of a page of documentation: its fenced `sh` and `ts` blocks, in order.
 *
 * A block is run unless the line above it says `<!-- not run: REASON -->`; the reason is what a reader would need that a
 * test has not: published weights, a GPU, a cluster.
 */

/** One fenced block. */
export interface Example {
  language: "sh" | "ts";
  code: string;
  /** Line of its first line of code in the page, from 1. */
  line: number;
  /** Why it is not run, or null. */
  notRun: string | null;
}

/** The `sh` and `ts` blocks of a page. */
export function examplesOf(page: string): Example[] {
  const lines = page.split("\n");
  const examples: Example[] = [];
  for (let i = 0; i < lines.length; i++) {
    const fence = /^```(\w*)/.exec(lines[i]!);
    if (!fence) continue;
    const end = lines.indexOf("```", i + 1);
    if (end < 0) throw new Error(`the block at line ${i + 1} has no end`);
    const language = fence[1];
    if (language === "sh" || language === "ts") {
      const above = lines.slice(0, i).findLast((line) => line.trim() !== "") ?? "";
      const notRun = /^<!-- not run: (.+) -->$/.exec(above)?.[1] ?? null;
      examples.push({ language, code: lines.slice(i + 1, end).join("\n"), line: i + 2, notRun });
    }
    i = end;
  }
  return examples;
}
