/**
 * The examples of a page of documentation: its fenced `sh` and `ts` blocks, in order.
 *
 * A block is run unless the line above it says `<!-- not run: REASON -->`; the reason is what a reader would need that
 * a test has not: published weights, a GPU, a cluster.
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

/** What a diff says of a file that exists: lines that stand in it one after another, before anything is added. */
export interface DiffPart {
  file: string;
  /** Lines of the file, as the diff has them after its first column. */
  lines: string[];
  /** Line of the page, from 1. */
  line: number;
}

/** The unchanged and removed lines of a page's fenced `diff` blocks, file by file. New files have none. */
export function diffParts(page: string): DiffPart[] {
  const lines = page.split("\n");
  const parts: DiffPart[] = [];
  let inDiff = false;
  let part: DiffPart | null = null;
  lines.forEach((text, i) => {
    if (text.startsWith("```")) {
      inDiff = text === "```diff";
      part = null;
    } else if (inDiff && text.startsWith("--- ")) {
      part = text === "--- /dev/null" ? null : { file: text.replace(/^--- a\//, ""), lines: [], line: i + 1 };
      if (part) parts.push(part);
    } else if (inDiff && /^[ -]/.test(text)) part?.lines.push(text.slice(1));
  });
  return parts;
}

/** The `ts` blocks under `@example` in the documentation comments of a source file. */
export function examplesOfSource(source: string): Example[] {
  const comments = source.split("\n").map((line) => (/^\s*\*(?!\/)/.test(line) ? line.replace(/^\s*\* ?/, "") : ""));
  const tags = comments.flatMap((line, i) => (line.trim() === "@example" ? [i + 2] : []));
  return examplesOf(comments.join("\n")).filter(({ line }) => tags.includes(line - 1));
}
