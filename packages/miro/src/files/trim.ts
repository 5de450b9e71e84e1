/**
 * The end of a text without some characters. A loop: `/x+$/` takes quadratic time on long runs that stand inside a
 * text.
 */
export function trimEnd(text: string, isTrimmed: (character: string) => boolean): string {
  let end = text.length;
  while (end > 0 && isTrimmed(text[end - 1]!)) end--;
  return text.slice(0, end);
}
