/** How much room a disk has left. */
import { existsSync, statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";

/**
 * Free bytes of the disk that holds, or would hold, a folder; null where the system does not say, as of file systems
 * without a size of their own, which state that they have no blocks at all.
 */
export function freeBytes(folder: string): number | null {
  let at = resolve(folder);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  try {
    const { bavail, blocks, bsize } = statfsSync(at);
    return blocks === 0 ? null : bavail * bsize;
  } catch {
    return null;
  }
}
