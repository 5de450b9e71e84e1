/** Errors of the set-up, running its programs, and the small file helpers that the steps share. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";

/** A failure with a message for the user: printed on its own, without a stack. */
export class SetupError extends Error {}

/** @param {string} version of Node, e.g. "20.11.0" */
export function requireNode(version) {
  const [major, minor] = version.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(
      `Node 20.19 or newer is needed, this is ${version}. Install it from https://nodejs.org or with a version manager.`,
    );
  }
}

/** Absolute path of an executable on PATH (or a path that is executable already), else null. */
export function which(name, env) {
  const executable = (file) => {
    try {
      accessSync(file, constants.X_OK);
      return statSync(file).isFile();
    } catch {
      return false;
    }
  };
  if (name.includes(path.sep)) return executable(name) ? path.resolve(name) : null;
  for (const folder of (env.PATH ?? "").split(path.delimiter)) {
    if (folder && executable(path.join(folder, name))) return path.join(folder, name);
  }
  return null;
}

const installers = [
  ["apt-get", "sudo apt-get install"],
  ["dnf", "sudo dnf install"],
  ["pacman", "sudo pacman -S"],
  ["zypper", "sudo zypper install"],
  ["apk", "sudo apk add"],
  ["brew", "brew install"],
];
const packages = {
  cmake: { default: "cmake" },
  compiler: {
    "apt-get": "g++",
    dnf: "gcc-c++",
    pacman: "gcc",
    zypper: "gcc-c++",
    apk: "g++",
    brew: "llvm",
    default: "g++",
  },
  make: { default: "make" },
  python3: { pacman: "python", brew: "python", default: "python3" },
  pip: { pacman: "python-pip", apk: "py3-pip", brew: "python", default: "python3-pip" },
};

/**
 * The error for a tool that is not there.
 * @param {string} what   the tool in words, e.g. "CMake"
 * @param {keyof typeof packages} tool
 * @param {string} why    what it is needed for
 */
export function missingTool(what, tool, why, env) {
  const found = installers.find(([manager]) => which(manager, env));
  const name = packages[tool][found?.[0]] ?? packages[tool].default;
  const how = found ? `${found[1]} ${name}` : `install the package "${name}"`;
  return new SetupError(`${what} is missing; it is needed ${why}. Install it with: ${how}`);
}

/** Programs that run now. Each leads a process group, so that stopping the set-up also stops what they started. */
const running = new Set();
process.on("exit", () => {
  for (const child of running) {
    try {
      process.kill(-child.pid, "SIGTERM");
    } catch {}
  }
});

/**
 * Runs a program with its output kept, shown only when it fails.
 * @param {{cwd?: string, env?: object, onLine?: (line: string) => void}} options onLine: told each line of stdout
 * @returns {Promise<{code: number, output: string, stdout: string}>} output: both streams, in order of arrival
 */
export function capture(command, args, { cwd, env, onLine } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    if (child.pid) running.add(child);
    let output = "";
    let stdout = "";
    let told = 0;
    child.stdout.on("data", (chunk) => {
      output += chunk;
      stdout += chunk;
      for (let end = stdout.indexOf("\n", told); onLine && end >= 0; end = stdout.indexOf("\n", told)) {
        onLine(stdout.slice(told, end));
        told = end + 1;
      }
    });
    child.stderr.on("data", (chunk) => {
      output += chunk;
    });
    child.on("exit", () => running.delete(child));
    child.on("error", (error) => resolve({ code: 127, output: String(error.message), stdout: "" }));
    child.on("close", (code) => resolve({ code: code ?? 1, output, stdout }));
  });
}

/** As `capture`, but a failure is a SetupError that ends with the program's last lines. */
export async function run(what, command, args, options) {
  const result = await capture(command, args, options);
  if (result.code !== 0) {
    const tail = result.output.trimEnd().split("\n").slice(-40).join("\n");
    throw new SetupError(
      `${what} failed (exit code ${result.code}): ${path.basename(command)} ${args.join(" ")}\n${tail}`,
    );
  }
  return result;
}

/** Files below `folder` for which `keep(path)` holds, sorted; node_modules, dist and build are not entered. */
export function listFiles(folder, keep) {
  const files = [];
  const visit = (current) => {
    let entries;
    try {
      entries = readdirSync(current, { withFileTypes: true });
    } catch {
      return;
    }
    for (const entry of entries) {
      const file = path.join(current, entry.name);
      if (entry.isDirectory()) {
        if (!["node_modules", "dist", "build", "fixtures"].includes(entry.name)) visit(file);
      } else if (keep(file)) files.push(file);
    }
  };
  visit(folder);
  return files.sort();
}

/** SHA-256 over names and contents of `files` (relative to `root`) and over `extra`. */
export function fingerprint(root, files, extra = "") {
  const hash = createHash("sha256").update(extra);
  for (const file of files) {
    const content = readFileSync(file);
    hash.update(`\0${path.relative(root, file)}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}

/** Parsed JSON, or null when the file is not there or not whole. */
export function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return null;
  }
}

/** Writes JSON whole or not at all. */
export function writeJson(file, value) {
  mkdirSync(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  renameSync(temporary, file);
}

/** Size and time of a file, as one string; null when it is not there. */
export function signature(file) {
  try {
    const s = statSync(file);
    return `${s.size}:${Math.round(s.mtimeMs)}`;
  } catch {
    return null;
  }
}
