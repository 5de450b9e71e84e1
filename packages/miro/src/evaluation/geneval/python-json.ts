/** JSON as Python's `json.dumps` writes it by default, for files that other programs compare or group by their text. */

/** One line: blanks behind commas and colons, everything beyond ASCII as escapes. */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return `{${members.map(([key, member]) => `${ascii(key)}: ${pythonJson(member)}`).join(", ")}}`;
  }
  if (typeof value === "string") return ascii(value);
  return JSON.stringify(value);
}

function ascii(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
