/**
 * A machine as bare as it can be imitated: nothing on PATH but Node, a shell and the package managers; no variables of
 * this process; a home folder that cannot be written; another user than root where we are root.
 */
import { spawn } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";

/** User and group "nobody". */
const NOBODY = 65534;

export class Sandbox {
  #folder;
  #registry;
  #root = process.getuid?.() === 0;
  #identity = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", "--"];

  /**
   * @param {string} folder an empty folder that others may enter
   * @param {string} tools the folder of `installTools`
   * @param {string} registry
   */
  constructor(folder, tools, registry) {
    this.#folder = folder;
    this.#registry = registry;
    chmodSync(folder, 0o755);
    for (const name of ["npm", "pnpm", "yarn"]) {
      cpSync(path.join(tools, "node_modules", name), path.join(folder, "tools", name), { recursive: true });
    }
    mkdirSync(path.join(folder, "home"), { mode: 0o555 });
    chmodSync(path.join(folder, "home"), 0o555);
    this.folder("cache");
    this.folder("temporary");
  }

  /** Whether programs run as another user than root. */
  get asNobody() {
    return this.#root && existsSync("/usr/bin/setpriv");
  }

  /** A new folder that the sandbox's user owns. */
  folder(...names) {
    let made = this.#folder;
    for (const name of names) {
      made = path.join(made, name);
      mkdirSync(made, { recursive: true });
      if (this.#root) chownSync(made, NOBODY, NOBODY);
    }
    return made;
  }

  /** A file that the sandbox's user owns. */
  write(file, text) {
    writeFileSync(file, text, { mode: 0o644 });
    if (this.#root) chownSync(file, NOBODY, NOBODY);
  }

  /** The folder for PATH with this release of Node and the package managers that it runs. */
  path(release, binary) {
    const folder = path.join(this.#folder, `node-${release}`);
    if (existsSync(folder)) return folder;
    mkdirSync(folder);
    copyFileSync(binary, path.join(folder, "node"));
    chmodSync(path.join(folder, "node"), 0o755);
    symlinkSync("/bin/sh", path.join(folder, "sh"));
    const programs = {
      npm: "npm/bin/npm-cli.js",
      npx: "npm/bin/npx-cli.js",
      pnpm: "pnpm/bin/pnpm.cjs",
      yarn: "yarn/bin/yarn.js",
    };
    for (const [name, file] of Object.entries(programs)) {
      const script = `#!/bin/sh\nexec "${folder}/node" "${path.join(this.#folder, "tools", file)}" "$@"\n`;
      writeFileSync(path.join(folder, name), script, { mode: 0o755 });
    }
    return folder;
  }

  /** The variables of a program in here. */
  environment(bin, cache = "cache") {
    const npm = {
      registry: this.#registry,
      cache: this.folder(cache),
      audit: "false",
      fund: "false",
      update_notifier: "false",
      ignore_scripts: "true", // newer releases of npm do not run them either
    };
    const home = path.join(this.#folder, "home");
    return {
      PATH: bin,
      HOME: home,
      TMPDIR: this.folder("temporary"),
      LANG: "C.UTF-8",
      NO_COLOR: "1",
      CI: "true",
      // pnpm and yarn keep their stores elsewhere than in the home folder.
      XDG_DATA_HOME: this.folder(cache, "data"),
      XDG_STATE_HOME: this.folder(cache, "state"),
      XDG_CONFIG_HOME: this.folder(cache, "config"),
      XDG_CACHE_HOME: this.folder(cache, "xdg"),
      YARN_CACHE_FOLDER: this.folder(cache, "yarn"),
      YARN_REGISTRY: this.#registry,
      OMP_NUM_THREADS: process.env.OMP_NUM_THREADS ?? "2",
      ...Object.fromEntries(Object.entries(npm).map(([name, value]) => [`npm_config_${name}`, value])),
    };
  }

  /**
   * Runs a program.
   *
   * @returns {Promise<{ code: number, output: string, seconds: number }>}
   */
  run(cwd, env, command, ...args) {
    const [program, ...rest] = [...(this.asNobody ? this.#identity : []), path.join(env.PATH, command), ...args];
    const start = performance.now();
    return new Promise((resolve, reject) => {
      const file = program === "setpriv" ? "/usr/bin/setpriv" : program;
      const child = spawn(file, rest, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
      let output = "";
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
      child.once("error", reject);
      child.once("close", (code) => resolve({ code: code ?? 1, output, seconds: (performance.now() - start) / 1000 }));
    });
  }
}
