/**
 * A root folder like that of the image `node:*-bookworm-slim`: Debian's smallest system from the package sources of
 * this machine, and a release of Node with npm. The system is kept in .cache; each test works on a copy.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const SUITE = "bookworm";
const MIRROR = "http://deb.debian.org/debian";

/** Debian's smallest system. @throws where there is no apt, or no connection to its sources */
export function debianRoot(cache) {
  const root = path.join(cache, `${SUITE}-minbase`);
  if (existsSync(root)) return root;
  mkdirSync(cache, { recursive: true });
  const unfinished = `${root}.part`;
  rmSync(unfinished, { recursive: true, force: true });
  const { program, env } = debootstrap(cache);
  const { status, stdout } = spawnSync(program, ["--variant=minbase", SUITE, unfinished, MIRROR], {
    encoding: "utf8",
    env: { ...process.env, ...env },
    maxBuffer: 2 ** 26,
  });
  if (status !== 0) throw new Error(`debootstrap failed:\n${stdout.split("\n").slice(-8).join("\n")}`);
  rmSync(path.join(unfinished, "var", "cache", "apt"), { recursive: true, force: true });
  renameSync(unfinished, root);
  return root;
}

/** debootstrap of this machine, else of its package, which is not installed. */
function debootstrap(cache) {
  if (spawnSync("debootstrap", ["--version"]).status === 0) return { program: "debootstrap", env: {} };
  const home = path.join(cache, "debootstrap");
  const program = path.join(home, "usr", "sbin", "debootstrap");
  if (!existsSync(program)) {
    mkdirSync(home, { recursive: true });
    const folder = mkdtempSync(path.join(tmpdir(), "debootstrap-"));
    try {
      execFileSync("apt-get", ["download", "debootstrap"], { cwd: folder, stdio: "pipe" });
      execFileSync("sh", ["-c", 'dpkg-deb -x debootstrap_*.deb "$0"', home], { cwd: folder, stdio: "pipe" });
    } catch (error) {
      throw new Error(`debootstrap is missing (apt install debootstrap), and apt cannot fetch it: ${error.stderr}`);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return { program, env: { DEBOOTSTRAP_DIR: path.join(home, "usr", "share", "debootstrap") } };
}

/** A copy of the system with Node, npm and the user `node`, as the image has them. */
export function nodeRoot(debian, folder, { binary, npm }) {
  execFileSync("cp", ["-a", "--reflink=auto", debian, folder]);
  const local = path.join(folder, "usr", "local");
  copyFileSync(binary, path.join(local, "bin", "node"));
  chmodSync(path.join(local, "bin", "node"), 0o755);
  cpSync(npm, path.join(local, "lib", "node_modules", "npm"), { recursive: true });
  for (const [name, file] of Object.entries({ npm: "npm-cli.js", npx: "npx-cli.js" }))
    symlinkSync(`../lib/node_modules/npm/bin/${file}`, path.join(local, "bin", name));
  execFileSync("chroot", [folder, "groupadd", "--gid", "1000", "node"]);
  execFileSync("chroot", [
    folder,
    "useradd",
    "--uid",
    "1000",
    "--gid",
    "node",
    "--shell",
    "/bin/bash",
    "--create-home",
    "node",
  ]);
}
