/** Tarballs for npm with the same bytes for the same content: sorted, without times, owners or this machine's umask. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, rmSync, statSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { packTar } from "modern-tar/fs";
import { beginFile, publishFile } from "../../packages/torch/dist/io/atomic-write.js";

/** The time that npm gives every file of a package: nothing depends on it. */
const TIME = new Date("1985-10-26T08:15:00.000Z");

/**
 * Packs a package.
 *
 * @param {string} target the .tgz file, which is there as a whole or as it was
 * @param {Map<string, { file: string } | { content: string }>} entries by their path within the package
 * @returns {Promise<{ bytes: number, unpackedBytes: number, sha256: string, integrity: string }>} integrity: as lock
 *   files of npm have it
 */
export async function packPackage(target, entries) {
  let unpackedBytes = 0;
  const sources = [...entries]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, entry]) => {
      const mode = name.startsWith("bin/") || name.endsWith(".node") || /\.so(\.\d+)*$/.test(name) ? 0o755 : 0o644;
      const shared = { target: `package/${name}`, mode, mtime: TIME, uid: 0, gid: 0, uname: "", gname: "" };
      unpackedBytes += "file" in entry ? statSync(entry.file).size : Buffer.byteLength(entry.content);
      return "file" in entry
        ? { ...shared, type: "file", source: entry.file }
        : { ...shared, type: "content", content: entry.content };
    });
  await writeWhole(target, packTar(sources, { concurrency: 1 }), createGzip({ level: 9 }));
  return { ...(await digests(target)), unpackedBytes };
}

/** Writes what comes out of streams to a file that is there as a whole or as it was. */
export async function writeWhole(target, ...streams) {
  const temporary = beginFile(target);
  try {
    await pipeline(...streams, createWriteStream(temporary, { flush: true }));
    publishFile(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Size and hashes of a tarball. */
export async function digests(file) {
  const hashes = [createHash("sha256"), createHash("sha512")];
  let bytes = 0;
  for await (const chunk of createReadStream(file)) {
    bytes += chunk.length;
    for (const hash of hashes) hash.update(chunk);
  }
  const [sha256, sha512] = hashes;
  return { bytes, sha256: sha256.digest("hex"), integrity: `sha512-${sha512.digest("base64")}` };
}
