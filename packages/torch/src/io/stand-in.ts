/**
 * Small texts that lie where a file of weights was meant to be: what a clone without Git LFS leaves, or what a server
 * sent instead of the file. No file of weights begins as one of them does.
 */

/** The most that is looked at. */
export const STAND_IN_BYTES = 512;

/** What stands in place of a file, and what to do; null when its first bytes are nothing of the kind. */
export function describeStandIn(start: Uint8Array): string | null {
  const text = Buffer.from(start.subarray(0, STAND_IN_BYTES))
    .toString("utf8")
    .replace(/^\uFEFF/, "")
    .trimStart();
  if (text.startsWith("version https://git-lfs.github.com/spec/")) {
    const size = /^size (\d{1,20})$/m.exec(text)?.[1];
    const which = size === undefined ? "the file" : `the file of ${size} bytes`;
    return `a Git LFS pointer, not ${which} that it stands for; run \`git lfs pull\` in its folder, or download the file again`;
  }
  if (/^(<!doctype html|<html|<head|<\?xml|<!--)/i.test(text)) {
    return "a web page, not the file; download it again, on the Hub from an address with /resolve/ in place of /blob/";
  }
  if (/^(\{"error":|Entry not found|Repository not found|Invalid username or password|Access to model )/.test(text)) {
    return "an error message of a server, not the file; download it again";
  }
  return null;
}
