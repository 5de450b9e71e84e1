/** Folders that are there as a whole or not at all. */
import { existsSync, renameSync, rmSync } from "node:fs";
import { beginFile } from "@miro-t2i/torch/atomic-write";
import { makeFolder } from "../../files/make-folder.js";

/** Fills a new folder beside `path` and puts it in its place once it is complete. */
export async function replaceFolder(path: string, fill: (folder: string) => void | Promise<void>): Promise<void> {
  const temporary = beginFile(path);
  makeFolder(temporary);
  try {
    await fill(temporary);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw error;
  }
  if (existsSync(path)) rmSync(path, { recursive: true, force: true });
  renameSync(temporary, path);
}
