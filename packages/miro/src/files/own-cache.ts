/** The folder of what miro keeps to be quicker next time. All in it can be made again. */
import { homedir } from "node:os";
import { join } from "node:path";

/** `$MIRO_CACHE`, else `miro-t2i` in `$XDG_CACHE_HOME` or `~/.cache`. */
export function ownCache(): string {
  const { MIRO_CACHE, XDG_CACHE_HOME, HOME } = process.env;
  return MIRO_CACHE || join(XDG_CACHE_HOME || join(HOME || homedir(), ".cache"), "miro-t2i");
}
