/** Words of bash: for commands that are shown to be copied, and for scripts. */

/** One word of bash that means the text; control characters are written out, so that the word stays on its line. */
export function shellWord(text: string): string {
  if (isPlain(text)) return text;
  if (!hasControls(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  const escaped = [...text].map((letter) => {
    if (letter === "'" || letter === "\\") return `\\${letter}`;
    return hasControls(letter) ? `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}` : letter;
  });
  return `$'${escaped.join("")}'`;
}

/** Whether a text is a word of bash as it stands. */
export function isPlain(text: string): boolean {
  return /^[\w.,:/+@%=-]+$/.test(text);
}

/** Whether a text has characters that are no text: line breaks, tabs, escapes. */
export function hasControls(text: string): boolean {
  return [...text].some((letter) => letter < " " || letter === "\x7f");
}
