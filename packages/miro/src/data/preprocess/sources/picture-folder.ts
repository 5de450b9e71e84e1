/**
 * The pictures below a folder. Links are followed, as data sets that share files are made of them; each folder is read
 * once, so that links that lead in a circle end. What starts with a dot, and folders that systems and programs make for
 * themselves, hold copies and thumbnails that were not meant for training: they are left out and named.
 */
import { isUtf8 } from "node:buffer";
import { readdirSync, realpathSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { InvalidInputError, systemReason } from "../../../errors.js";

/** Folders that are no data, without those that start with a dot, in lower case. */
const SYSTEM_FOLDERS = new Set([
  "__macosx",
  "@eadir",
  "#recycle",
  "#snapshot",
  "$recycle.bin",
  "system volume information",
  "lost+found",
  "found.000",
]);

/** What is left out of a folder. */
export interface LeftOut {
  /** Relative to the folder. */
  path: string;
  reason: "hidden" | "bad-name" | "unreadable";
  message: string;
}

/** What a folder holds, by paths relative to it. */
export interface PictureFolder {
  pictures: string[];
  leftOut: LeftOut[];
}

/**
 * Finds the pictures of a folder and of those below it, in no particular order.
 * @param isPicture whether a file's name is a picture's
 * @throws InvalidInputError when the folder itself cannot be read
 */
export function findPictures(root: string, isPicture: (name: string) => boolean): PictureFolder {
  const found: PictureFolder = { pictures: [], leftOut: [] };
  const entered = new Set([realpathSync(root)]);
  // Links to folders come last: what lies below the root keeps its own name, whatever links to it.
  const links: Folder[] = [];
  visit({ path: "", hidden: null });
  for (let link = links.shift(); link !== undefined; link = links.shift()) {
    const real = realpathSync(join(root, link.path));
    if (entered.has(real)) continue;
    entered.add(real);
    visit(link);
  }
  return found;

  function visit({ path: folder, hidden }: Folder): void {
    let names: Buffer[];
    try {
      names = readdirSync(join(root, folder), { encoding: "buffer" });
    } catch (error) {
      if (folder === "")
        throw new InvalidInputError(`${root}: cannot be read: ${systemReason(error)}`, { cause: error });
      found.leftOut.push({ path: folder, reason: "unreadable", message: `${folder}: ${systemReason(error)}` });
      return;
    }
    for (const bytes of names.sort(Buffer.compare)) {
      const name = bytes.toString();
      const path = join(folder, name);
      if (!isUtf8(bytes)) {
        found.leftOut.push({ path, reason: "bad-name", message: `${path}: the name is not UTF-8; rename it` });
        continue;
      }
      const stats = statsOf(join(root, path));
      const covered = hidden ?? (name.startsWith(".") || SYSTEM_FOLDERS.has(name.toLowerCase()) ? path : null);
      if (stats?.isDirectory()) {
        const real = realpathSync(join(root, path));
        if (real !== join(realpathSync(join(root, folder)), name)) links.push({ path, hidden: covered });
        else if (!entered.has(real)) {
          entered.add(real);
          visit({ path, hidden: covered });
        }
        continue;
      }
      if (!isPicture(name)) continue;
      if (covered !== null)
        found.leftOut.push({
          path,
          reason: "hidden",
          message: `${path}: in a hidden or system folder, or hidden itself`,
        });
      else if (stats === undefined)
        found.leftOut.push({ path, reason: "unreadable", message: `${path}: a link to a file that is not there` });
      else if (stats.isFile()) found.pictures.push(path);
    }
  }
}

/** What a path leads to; undefined where it leads nowhere: to nothing, in a circle, or to what may not be seen. */
export function statsOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

interface Folder {
  path: string;
  /** The hidden or system folder that it lies in. */
  hidden: string | null;
}
