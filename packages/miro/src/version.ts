/** The version of this package, from its package.json (same depth from `src` and `dist`). */
import { readFileSync } from "node:fs";

let read: string | undefined;

/** The version of this package, such as `1.2.3`. */
export function version(): string {
  const file = new URL("../package.json", import.meta.url);
  read ??= (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
  return read;
}
