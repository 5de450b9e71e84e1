/** Tables of texts, in a terminal and in Markdown. */

/**
 * Rows of cells as lines whose columns stand below each other.
 * @param numbers whether cells stand at the right of their columns
 */
export function textTable(rows: readonly (readonly string[])[], { numbers = false } = {}): string[] {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]!.length))) ?? [];
  const cellOf = (text: string, i: number) => (numbers ? text.padStart(widths[i]!) : text.padEnd(widths[i]!));
  return rows.map((row) => row.map(cellOf).join("  ").trimEnd());
}

/** A table in Markdown, laid out as the formatter of this repository does. The first row is its head. */
export function alignedMarkdownTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) => `| ${row.map((text, i) => text.padEnd(widths[i]!)).join(" | ")} |\n`;
  const [head, ...others] = rows.map(line);
  return [head, line(widths.map((width) => "-".repeat(width))), ...others].join("");
}
