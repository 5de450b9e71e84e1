/** Order of code points, as Python sorts texts; JavaScript's own is that of UTF-16's units. */
export function byCodePoint(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
