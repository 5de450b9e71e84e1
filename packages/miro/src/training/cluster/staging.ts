/**
 * A copy of Node, libtorch and this program on the disks of the nodes: for clusters whose nodes do not see the folder
 * that `miro` is installed in, or see it slowly. What is copied is packed once, into the job's folder, which the nodes
 * see; each node unpacks it once, under a lock, and moves it to its place when it is whole. A later job on the node
 * uses it again as long as it is whole: what cleans `/tmp` may have taken parts of it.
 */
import { createHash } from "node:crypto";
import { createWriteStream, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { buildInfo } from "@miro-t2i/torch";
import { beginFile, publishFile } from "@miro-t2i/torch/atomic-write";
import { packTar } from "modern-tar/fs";
import { MiroError, systemReason } from "../../errors.js";
import { sha256 } from "../../files/sha256.js";
import { hasControls, shellWord } from "../../shell-word.js";
import { type RuntimeFile, type RuntimeFiles, runtimeFiles } from "./runtime-files.js";

/** What the nodes copy. */
export interface Staging {
  /** The folder of the nodes, as a word of bash. */
  folder: string;
  /** What is packed; a copy of the same files has the same. */
  digest: string;
  /** The archive that the nodes unpack, which they see. */
  archive: string;
  /** Script that makes the copy, or runs `miro` from it. */
  script: string;
  /** Digest of the sizes and names of all files, as `find` and `sort` list them. */
  listing: string;
  /** Places in the copy. */
  node: string;
  miro: string;
  libraries: string | null;
  files: readonly RuntimeFile[];
}

/**
 * A folder of the nodes as a word of bash: an absolute path, or a variable that the nodes set and a path below. Null
 * for anything else.
 */
export function nodePath(text: string): string | null {
  const [, name, braced, rest] = /^\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})(\/.*)?$/.exec(text) ?? [];
  const variable = name ?? braced;
  const path = variable === undefined ? text : (rest ?? "");
  if (hasControls(path) || (variable === undefined && !path.startsWith("/"))) return null;
  const below = path === "" ? "" : shellWord(path);
  return variable === undefined ? below : `"\${${variable}:?is not set on this node}"${below}`;
}

/**
 * Collects what is copied; writes nothing.
 * @param stageTo as the user writes it; see {@link nodePath}
 * @param folder of the job
 */
export function planStaging(stageTo: string, folder: string): Staging {
  const home = fileURLToPath(new URL("../../../", import.meta.url));
  return planStagingOf(runtimeFiles(home, process.execPath, buildInfo().libraryPath), nodePath(stageTo)!, folder);
}

/** The same for any files. @param disk folder of the nodes, as a word of bash */
export function planStagingOf({ files, ...places }: RuntimeFiles, disk: string, folder: string): Staging {
  const hash = createHash("sha256");
  for (const { target, sizeBytes, modifiedMs, link = "" } of files)
    hash.update(`${target}\0${sizeBytes}\0${modifiedMs}\0${link}\n`);
  const digest = hash.digest("hex").slice(0, 12);
  return {
    folder: disk,
    digest,
    archive: join(folder, `runtime-${digest}.tar`),
    script: join(folder, `staged-${sha256(`${disk}\0${digest}`).slice(0, 12)}.sh`),
    listing: listingDigest(files),
    files,
    ...places,
  };
}

/** As `find . -type f -printf '%s %p\n' | LC_ALL=C sort | sha256sum` in a whole copy. */
function listingDigest(files: readonly RuntimeFile[]): string {
  const lines = files
    .filter(({ link }) => link === undefined)
    .map(({ target, sizeBytes }) => Buffer.from(`${sizeBytes} ./${target}\n`));
  return sha256(Buffer.concat(lines.sort(Buffer.compare)));
}

/**
 * Packs what is copied, unless that is done already.
 * @throws MiroError naming the archive when it cannot be written; the signal's reason when it is aborted
 */
export async function packRuntime({ archive, files }: Staging, signal?: AbortSignal): Promise<void> {
  if (existsSync(archive)) return;
  const links = new Map(files.flatMap(({ target, link }) => (link === undefined ? [] : [[target, link] as const])));
  const tar = packTar(
    files.map(({ source, target }) => ({ type: "file" as const, source, target, uid: 0, gid: 0 })),
    // A link of an installation may be absolute; in the copy it leads to the copy.
    { map: (header) => (links.has(header.name) ? { ...header, linkname: links.get(header.name) } : header) },
  );
  const unfinished = beginFile(archive);
  try {
    await pipeline(tar, createWriteStream(unfinished, { flags: "wx", flush: true }), signal ? { signal } : {});
    publishFile(unfinished, archive);
  } catch (error) {
    rmSync(unfinished, { force: true });
    signal?.throwIfAborted();
    throw new MiroError(`${archive}: cannot be written: ${systemReason(error)}`, { cause: error });
  }
}

/**
 * The script of the nodes. Without arguments it makes the copy; with some it runs `miro` from it.
 *
 * A folder of `/tmp` may have been made by somebody else, with programs of theirs in it: the copy lies in a folder that
 * belongs to the user and that nobody else may write to.
 */
export function stagedScript({ folder, digest, archive, listing, node, miro, libraries }: Staging): string {
  const searched =
    libraries === null ? [] : [`  export LD_LIBRARY_PATH=$copy/${libraries}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}`];
  return `#!/bin/bash
# Node, libtorch and miro on this machine's own disk: unpacked once, used again while whole.
set -eu
archive=${shellWord(archive)}
own=${folder}/miro-$(id -u)
copy=$own/${digest}
if [ "$#" -gt 0 ]; then
${[...searched, `  exec "$copy/${node}" "$copy"/${shellWord(miro)} "$@"`].join("\n")}
fi
fail() { echo "$(hostname): $1" >&2; exit 1; }
umask 077
mkdir -p -- "$own"
if [ -L "$own" ] || [ ! -O "$own" ]; then fail "$own belongs to somebody else; choose another --stage-to"; fi
chmod 700 -- "$own"
exec 9> "$own/lock"
flock 9
whole() {
  [ -d "$copy" ] && [ "$(cd -- "$copy" && find . -type f -printf '%s %p\\n' | LC_ALL=C sort | sha256sum)" = "${listing}  -" ]
}
if whole; then exit 0; fi
rm -rf -- "$copy" "$copy".*
work=$(mktemp -d -- "$copy.XXXXXX")
tar -xf "$archive" --no-same-owner -C "$work"
"$work/${node}" --version > /dev/null || fail "the Node of the login machine does not run here; use one of nodejs.org"
mv -T -- "$work" "$copy"
whole || fail "$archive does not hold what was packed; remove it and launch again"
`;
}
