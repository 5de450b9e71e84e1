// The set-up against made-up clones: what it skips, what it asks for, what it says when something is missing.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { TESTED } from "../packages/miro/src/cli/doctor.js";
import { dependenciesStep, npmEnvironment } from "./setup/dependencies.mjs";
import { chosenLibtorch, libtorchStep, releases } from "./setup/libtorch.mjs";
import { ownerText, withLock } from "./setup/lock.mjs";
import { buildProgress, buildTools, cudaHeaders, nativeStep, toolkitsOf } from "./setup/native.mjs";
import { missingTool, requireNode, which } from "./setup/report.mjs";
import { typescriptStep } from "./setup/typescript.mjs";

let root: string;
beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), "set up "));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const write = (name: string, content = "") => {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
};
const program = (name: string, script = "exit 0") => {
  const file = write(name, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
  return file;
};
const failure = async (work: () => unknown): Promise<string> => {
  try {
    await work();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("expected an error");
};
/** A folder that looks like libtorch of the given version. */
const fakeLibtorch = (name: string, [major, minor, patch] = [2, 13, 0]) => {
  write(`${name}/lib/libtorch_cpu.so`, `library ${name}`);
  write(`${name}/include/ATen/ATen.h`);
  write(
    `${name}/include/torch/headeronly/version.h`,
    `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`,
  );
  return path.join(root, name);
};
let said = "";
const log = (text: string) => {
  said += text;
};
const context = (env: Record<string, string>) => {
  said = "";
  return { root, env, log };
};

describe("missing tools", () => {
  test("are told by --help and nothing is done; another argument is refused", () => {
    const setup = path.join(import.meta.dirname, "setup.mjs");
    const run = (...args: string[]) => spawnSync(process.execPath, [setup, ...args], { encoding: "utf8" });
    expect(run("--help")).toMatchObject({ status: 0, stderr: "" });
    expect(run("--help").stdout).toMatch(/^The installer: [\s\S]*MIRO_LIBTORCH[\s\S]*MIRO_JOBS/);
    expect(run("--halp")).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining("--halp") });
  });

  test("each is named with the command that installs it, in the order in which they are needed", async () => {
    program("bin/apt-get");
    const env = { PATH: path.join(root, "bin") };
    expect((await failure(() => buildTools(env))).split("\n")).toEqual([
      "CMake is missing; it is needed to build the native addon. Install it with: sudo apt-get install cmake",
      "A C++20 compiler is missing; it is needed to build the native addon. Install it with: sudo apt-get install g++",
      "make (or ninja) is missing; it is needed to build the native addon. Install it with: sudo apt-get install make",
    ]);
    program("bin/cmake");
    expect(await failure(() => buildTools(env))).toMatch(
      /^A C\+\+20 compiler is missing.*sudo apt-get install g\+\+$/m,
    );
    program("bin/c++");
    expect(await failure(() => buildTools(env))).toMatch(/^make \(or ninja\) is missing.*sudo apt-get install make$/);
    program("bin/make");
    expect((await buildTools(env)).generator).toBe("Unix Makefiles");
    program("bin/ninja");
    expect((await buildTools(env)).generator).toBe("Ninja");
  });

  test("a compiler without C++20 is told apart from none", async () => {
    program("bin/cmake");
    program("bin/make");
    program("bin/c++", "echo unrecognized option -std=c++20 >&2; exit 1");
    expect(await failure(() => buildTools({ PATH: path.join(root, "bin") }))).toContain("does not compile C++20");
  });

  test("without a known package manager the package is named alone", () => {
    expect(missingTool("pip", "pip", "once", { PATH: root }).message).toBe(
      'pip is missing; it is needed once. Install it with: install the package "python3-pip"',
    );
  });

  test("an old Node is refused with what is needed", () => {
    expect(() => requireNode("18.19.1")).toThrow("Node 20.19 or newer is needed, this is 18.19.1");
    expect(() => requireNode("20.18.9")).toThrow("Node 20.19 or newer");
    for (const version of ["20.19.0", "22.1.0"]) expect(() => requireNode(version)).not.toThrow();
  });

  test("only executable files count as programs", () => {
    write("bin/cmake");
    expect(which("cmake", { PATH: path.join(root, "bin") })).toBeNull();
    expect(which("cmake", {})).toBeNull();
  });
});

describe("dependencies", () => {
  const lock = (packages: object) => JSON.stringify({ lockfileVersion: 3, packages });
  const a = { version: "1.0.0", integrity: "sha512-a" };
  const clone = (present: object | null) => {
    write(
      "package-lock.json",
      lock({
        "": { devDependencies: { a: "*" } },
        "node_modules/a": a,
        "node_modules/native-win": { ...a, optional: true },
        "packages/x": { version: "1" },
      }),
    );
    if (present) {
      write("node_modules/.package-lock.json", lock(present));
      write("node_modules/a/package.json", "{}");
    }
    return dependenciesStep.isDone(context({}));
  };

  test("are skipped when node_modules holds the lock file's versions, whatever other platforms need", () => {
    expect(clone({ "node_modules/a": a })).toBe(true);
  });
  test("are installed when absent, older, damaged or half installed", () => {
    expect(clone(null)).toBe(false);
    expect(clone({})).toBe(false);
    expect(clone({ "node_modules/a": { ...a, version: "0.9.0" } })).toBe(false);
    expect(clone({ "node_modules/a": { ...a, integrity: "sha512-b" } })).toBe(false);
    expect(clone({ "node_modules/a": a })).toBe(true);
    rmSync(path.join(root, "node_modules/a"), { recursive: true });
    expect(dependenciesStep.isDone(context({}))).toBe(false);
  });
  test("the committed lock file is complete, so that npm ci accepts it on every platform", () => {
    const file = path.resolve(import.meta.dirname, "../package-lock.json");
    const { packages } = JSON.parse(readFileSync(file, "utf8")) as {
      packages: Record<string, { resolved?: string; optionalDependencies?: Record<string, string> }>;
    };
    for (const [name, entry] of Object.entries(packages)) {
      for (const dependency of Object.keys(entry.optionalDependencies ?? {})) {
        const places = [`${name}/node_modules/${dependency}`, `node_modules/${dependency}`];
        expect(
          places.some((place) => packages[place] !== undefined),
          `${name} -> ${dependency}`,
        ).toBe(true);
      }
      if (entry.resolved) expect(entry.resolved).toMatch(/^(packages\/|https:\/\/registry\.npmjs\.org\/)/);
    }
  });
  test("what npm complains about is shown, without its help", async () => {
    const npm = program(
      "bin/npm",
      "echo 'npm error code EUSAGE' >&2; echo 'npm error Missing: x' >&2; echo 'npm error Clean install a project' >&2; echo 'npm error Usage:' >&2; exit 1",
    );
    const message = await failure(() => dependenciesStep.run(context({ PATH: `${path.dirname(npm)}:/usr/bin:/bin` })));
    expect(message).toBe(
      "installing the dependencies failed (npm ci, exit code 1):\nnpm error code EUSAGE\nnpm error Missing: x",
    );
  });
  test("a nested npm keeps the user's configuration and loses the outer command's own", () => {
    const env = {
      npm_config_https_proxy: "http://p:1",
      npm_config_cafile: "/ca",
      npm_config_prefix: "/x",
      npm_config_omit: "dev",
      npm_lifecycle_event: "prestart",
      npm_package_name: "m",
      PATH: "/bin",
    };
    expect(npmEnvironment(env)).toEqual({
      npm_config_https_proxy: "http://p:1",
      npm_config_cafile: "/ca",
      PATH: "/bin",
    });
  });
});

describe("libtorch", () => {
  const nowhere = { PATH: "/nonexistent" };

  test("a variable that names something else is refused by its name", async () => {
    write("wrong/readme");
    const message = await failure(() => libtorchStep.run(context({ ...nowhere, LIBTORCH: path.join(root, "wrong") })));
    expect(message).toMatch(/^LIBTORCH names .*wrong, which is not a libtorch folder/);
  });

  test.each([[2, 10, 1] as const, [2, 16, 0] as const, [3, 11, 0] as const])(
    "of the untested release %i.%i is refused",
    async (...version) => {
      const folder = fakeLibtorch("other", [...version]);
      expect(await failure(() => libtorchStep.run(context({ ...nowhere, MIRO_LIBTORCH: folder })))).toBe(
        `MIRO_LIBTORCH names libtorch ${version.join(".")} in ${folder}; versions 2.11 to 2.15 work.`,
      );
    },
  );

  test("releases that set-up takes are those that doctor calls tested", () => {
    expect(releases).toEqual(TESTED.libtorch);
  });

  test("the choice is remembered, until another is named or it changes on disk", async () => {
    const one = fakeLibtorch("one", [2, 12, 0]);
    const two = fakeLibtorch("two");
    expect(libtorchStep.isDone(context(nowhere))).toBe(false);
    await libtorchStep.run(context({ ...nowhere, MIRO_LIBTORCH: one, LIBTORCH: two }));
    expect(chosenLibtorch(context(nowhere))).toMatchObject({ folder: one, version: "2.12.0", source: "MIRO_LIBTORCH" });
    expect(libtorchStep.isDone(context({ LIBTORCH: two }))).toBe(false);
    writeFileSync(path.join(one, "lib/libtorch_cpu.so"), "another build");
    expect(libtorchStep.isDone(context(nowhere))).toBe(false);
  });

  test("Python's torch is found without importing it", async () => {
    const folder = fakeLibtorch("site packages/torch", [2, 11, 0]);
    program("bin/python3", `echo "${folder}"`);
    await libtorchStep.run(context({ PATH: `${path.join(root, "bin")}:/usr/bin:/bin` }));
    expect(chosenLibtorch(context(nowhere))).toMatchObject({ folder, source: "Python's torch" });
  });

  test("without Python the message says how to get it, and the other way", async () => {
    program("bin/apt-get");
    const message = await failure(() =>
      libtorchStep.run(context({ PATH: path.join(root, "bin"), MIRO_CACHE: path.join(root, "cache") })),
    );
    expect(message).toMatch(/^Python 3 is missing.*set LIBTORCH.*sudo apt-get install python3$/);
  });

  const python = which("python3", process.env);
  describe.runIf(python)("the private copy", () => {
    /** A python3 whose pip takes `wheel` from a folder, and fails for requirements that the folder lacks. */
    const withPip = (wheels: Record<string, string>) => {
      const cases = Object.entries(wheels).map(
        ([name, file]) => `"torch==${name}") cp "${file}" "$dest"; echo x >> "${root}/downloads";;`,
      );
      program(
        "bin/python3",
        `case "$1 $2 $3" in
"-m pip --version") exit 0;;
"-m pip download")
  while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done
  case "$1" in
    ${cases.join("\n    ")}
    *) echo "ERROR: no match for $1" >&2; exit 1;;
  esac;;
"-c import importlib"*) exit 0;;
*) exec "${python}" "$@";;
esac`,
      );
      return { PATH: `${path.join(root, "bin")}:/usr/bin:/bin`, MIRO_CACHE: path.join(root, "my cache") };
    };
    const wheel = (name: string, files: Record<string, string>) => {
      const file = path.join(root, name);
      execFileSync(python as string, [
        "-c",
        "import json,sys,zipfile\nz=zipfile.ZipFile(sys.argv[1],'w')\n[z.writestr(k,v) for k,v in json.loads(sys.argv[2]).items()]",
        file,
        JSON.stringify(files),
      ]);
      return file;
    };
    const cpu = {
      "torch/lib/libtorch_cpu.so": "cpu",
      "torch/lib/libtorch_python.so": "not needed",
      "torch/include/ATen/ATen.h": "",
      "torch/include/torch/headeronly/version.h":
        "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n#define TORCH_VERSION_PATCH 0\n",
      "torch/nn/functional.py": "not needed",
    };

    test("is unpacked whole, with what is needed and nothing left over", async () => {
      const env = withPip({ "2.13.0+cpu": wheel("torch-2.13.0+cpu-py3.whl", cpu) });
      write("my cache/unpack-killed/torch/lib/libtorch_cpu.so", "half");
      await libtorchStep.run(context(env));
      expect(said).toContain("fetching a private copy of libtorch 2.13.0");
      const folder = path.join(root, "my cache/libtorch-2.13.0/torch");
      expect(chosenLibtorch(context(env))).toMatchObject({ folder, version: "2.13.0", source: "private copy" });
      expect(readdirSync(path.join(folder, "lib"))).toEqual(["libtorch_cpu.so"]);
      expect(readdirSync(folder).sort()).toEqual(["include", "lib"]);
      expect(readdirSync(path.join(root, "my cache"))).toEqual(["libtorch-2.13.0"]); // nothing of a killed one either
      rmSync(path.join(root, "packages"), { recursive: true });
      await libtorchStep.run(context(env));
      expect(readFileSync(path.join(root, "downloads"), "utf8")).toBe("x\n"); // the second clone uses the first's
      expect(said).not.toContain("fetching");
    });

    test("falls back to the plain version, and refuses the CUDA build", async () => {
      await libtorchStep.run(context(withPip({ "2.13.0": wheel("torch-2.13.0-py3.whl", cpu) })));
      expect(said).toContain("unpacked torch-2.13.0-py3.whl");
      rmSync(path.join(root, "my cache"), { recursive: true });
      const cuda = withPip({ "2.13.0": wheel("torch-2.13.0-cuda.whl", { ...cpu, "torch/lib/libtorch_cuda.so": "" }) });
      const message = await failure(() => libtorchStep.run(context({ ...cuda })));
      expect(message).toContain("could not fetch libtorch 2.13.0");
      expect(message).toContain("is the CUDA build");
      expect(message).toContain("LIBTORCH");
      expect(existsSync(path.join(root, "my cache/libtorch-2.13.0"))).toBe(false);
    });

    test("a damaged download is not kept", async () => {
      const env = withPip({ "2.13.0+cpu": write("torch-2.13.0+cpu-py3.whl", "PK not a zip") });
      await failure(() => libtorchStep.run(context(env)));
      expect(existsSync(path.join(root, "my cache/libtorch-2.13.0"))).toBe(false);
      await libtorchStep.run(context(withPip({ "2.13.0+cpu": wheel("torch-2.13.0+cpu-py3.whl", cpu) })));
      expect(libtorchStep.isDone(context({}))).toBe(true);
    });
  });
});

describe("native addon and TypeScript", () => {
  test("the files of the addon are told as they are compiled, which one of how many", () => {
    const told = (...lines: string[]) => {
      const texts: string[] = [];
      const tell = buildProgress(root, (text: string) => texts.push(text));
      for (const line of lines) tell(line);
      return texts;
    };
    write("CMakeFiles/progress.marks", "3\n");
    const building = (mark: string, file: string) => `[${mark}] Building CXX object CMakeFiles/x.dir/src/${file}.o`;
    const make = [building(" 33%", "files.cpp"), building(" 66%", "a-b.cpp"), "[100%] Linking CXX shared module x"];
    expect(told("Scanning", ...make)).toEqual(["files.cpp, file 1 of 2", "a-b.cpp, file 2 of 2"]);
    expect(told(building("1/10", "files.cpp"), "[10/10] Linking CXX shared module out/x")).toEqual([
      "files.cpp, file 1 of 9",
    ]);
  });

  test("headers of CUDA that pip's torch comes without are named with the packages that have them", () => {
    const torch = path.join(root, "site", "torch");
    const headers = path.join(root, "site", "nvidia", "cu13", "include");
    const add = (file: string) => {
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, "");
    };
    add(path.join(headers, "cuda_runtime_api.h"));
    expect(cudaHeaders(torch, [])).toEqual([]);
    add(path.join(torch, "lib", "libtorch_cuda.so"));
    expect(() => cudaHeaders(torch, [])).toThrow(/missing beside .*torch,.*pip install "cuda-toolkit\[crt,cccl\]"/);
    add(path.join(headers, "crt", "host_defines.h"));
    expect(() => cudaHeaders(torch, [])).toThrow(/pip install "cuda-toolkit\[cccl\]"/);
    add(path.join(headers, "nv", "target"));
    expect(cudaHeaders(torch, [])).toEqual([]);
  });

  test("headers of CUDA that pip does not have are taken from a toolkit", () => {
    const torch = path.join(root, "site", "torch");
    const toolkit = path.join(root, "cuda");
    const parts = [
      path.join(root, "site", "nvidia", "cu13", "include", "cuda_runtime_api.h"),
      path.join(torch, "lib", "libtorch_cuda.so"),
      path.join(toolkit, "include", "crt", "host_defines.h"),
      path.join(toolkit, "targets", "x86_64-linux", "include", "cccl", "nv", "target"),
    ];
    for (const file of parts) {
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, "");
    }
    expect(cudaHeaders(torch, [path.join(root, "none"), toolkit])).toEqual([
      path.join(toolkit, "include"),
      path.join(toolkit, "targets", "x86_64-linux", "include", "cccl"),
    ]);
  });
  test("a toolkit of CUDA is that of CUDA_HOME, the usual one, or that of the nvcc on the path", () => {
    const bin = path.join(root, "opt", "cuda-13.0", "bin");
    const onPath = path.join(root, "links");
    for (const folder of [bin, onPath]) mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(bin, "nvcc"), "", { mode: 0o755 });
    symlinkSync(path.join(bin, "nvcc"), path.join(onPath, "nvcc"));
    expect(toolkitsOf({ CUDA_HOME: "/home/cuda", PATH: onPath })).toEqual([
      "/home/cuda",
      "/usr/local/cuda",
      realpathSync(path.dirname(bin)),
    ]);
    expect(toolkitsOf({ PATH: root })).toEqual(["/usr/local/cuda"]);
  });

  test("the addon is built again when a source, the libtorch or a record is missing or different", async () => {
    const folder = fakeLibtorch("torch");
    write("packages/torch/native/src/module.cpp", "int x;");
    write("packages/torch/build/miro_torch.node");
    expect(nativeStep.isDone(context({}))).toBe(false); // no libtorch chosen yet
    await libtorchStep.run(context({ LIBTORCH: folder }));
    expect(nativeStep.isDone(context({}))).toBe(false); // an addon without the record of a finished build
  });

  test("TypeScript is compiled when a source changed or an output is gone", async () => {
    write("tsconfig.json", "{}");
    write("tsconfig.base.json", "{}");
    for (const name of ["packages/torch", "packages/miro", "tests", "bench"]) write(`${name}/tsconfig.json`, "{}");
    write("packages/torch/src/index.ts", "export {};");
    write(
      "node_modules/typescript/bin/tsc",
      "const fs = require('node:fs'); fs.mkdirSync('packages/torch/dist', { recursive: true }); fs.writeFileSync('packages/torch/dist/index.js', '');",
    );
    expect(typescriptStep.isDone(context({}))).toBe(false);
    await typescriptStep.run(context({ PATH: process.env.PATH ?? "" }));
    expect(typescriptStep.isDone(context({}))).toBe(true);
    write("packages/torch/src/index.ts", "export const x = 1;");
    expect(typescriptStep.isDone(context({}))).toBe(false);
    await typescriptStep.run(context({ PATH: process.env.PATH ?? "" }));
    rmSync(path.join(root, "packages/torch/dist/index.js"));
    expect(typescriptStep.isDone(context({}))).toBe(false);
  });

  test("checking this clone takes less than 300 ms of processor time", () => {
    const here = { root: path.resolve(import.meta.dirname, ".."), env: process.env, log: () => {} };
    const before = process.cpuUsage();
    for (const step of [dependenciesStep, libtorchStep, nativeStep, typescriptStep]) step.isDone(here);
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(300);
  });
});

describe("--only", () => {
  const here = path.resolve(import.meta.dirname, "..");
  /** Runs the installer of a made-up clone, in which there is nothing but what the test has put there. */
  const setup = (args: string[], env: Record<string, string>) => {
    cpSync(path.join(here, "scripts", "setup.mjs"), path.join(root, "scripts", "setup.mjs"));
    cpSync(path.join(here, "scripts", "setup"), path.join(root, "scripts", "setup"), { recursive: true });
    const command = [path.join(root, "scripts", "setup.mjs"), ...args];
    return spawnSync(process.execPath, command, { env, encoding: "utf8" });
  };

  test("libtorch,addon builds the addon without npm, dependencies and TypeScript, once", () => {
    const built = path.join(here, "packages", "torch", "build", "miro_torch.node");
    program("bin/c++");
    program("bin/make");
    program(
      "bin/cmake",
      `[ "$1" = --build ] || exit 0\n/bin/mkdir -p "$2/out"\n/bin/cp "${built}" "$2/out/"\necho x >> "${root}/builds"`,
    );
    write("packages/torch/native/src/module.cpp", "int x;");
    const env = { PATH: path.join(root, "bin"), LIBTORCH: fakeLibtorch("torch"), HOME: root };
    for (const _ of [1, 2]) {
      const { status, stderr } = setup(["--only", "libtorch,addon"], env);
      expect([status, stderr.includes("failed")], stderr).toEqual([0, false]);
    }
    expect(readFileSync(path.join(root, "builds"), "utf8")).toBe("x\n");
    expect(existsSync(path.join(root, "packages/torch/build/miro_torch.node"))).toBe(true);
    expect(existsSync(path.join(root, "node_modules"))).toBe(false);
  });

  test("names all missing tools of all steps at once, before it does anything", () => {
    const { status, stderr } = setup(["--only", "libtorch,addon"], { PATH: path.join(root, "bin"), HOME: root });
    expect(status).toBe(1);
    expect(stderr.match(/^.*is missing;/gm)).toEqual([
      "setup: Python 3 is missing;",
      "CMake is missing;",
      "A C++20 compiler is missing;",
      "make (or ninja) is missing;",
    ]);
    expect(existsSync(path.join(root, ".setup"))).toBe(false);
  });

  test.each([
    [
      ["--only", "libtorch,native"],
      /--only: expected some of dependencies,libtorch,addon,typescript,page \(received "native"\)/,
    ],
    [["--quick"], /Unknown option '--quick'/],
  ])("%j is wrong usage", (args, message) => {
    const { status, stderr } = setup(args, { PATH: path.join(root, "bin") });
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(existsSync(path.join(root, ".setup"))).toBe(false);
  });
});

describe("the lock", () => {
  test("lets one at a time work", async () => {
    const file = path.join(root, "lock");
    let inside = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 20));
      inside--;
    };
    await Promise.all([1, 2, 3].map(() => withLock(file, () => {}, work)));
    expect(most).toBe(1);
    expect(existsSync(file)).toBe(false);
  });

  test("is taken over from a process that died, here or on a machine that went silent", async () => {
    // this id, of a process that began at another time
    const file = write("lock", ownerText().replace(/\d+\n$/, "1\n"));
    expect(
      await withLock(
        file,
        () => {},
        async () => "done",
      ),
    ).toBe("done");
    write("lock", "elsewhere\n1\n");
    utimesSync(file, new Date(), new Date(Date.now() - 120_000));
    expect(
      await withLock(
        file,
        () => {},
        async () => "done",
      ),
    ).toBe("done");
  });

  test("of a dead process is taken over by one at a time, however many see it", async () => {
    const dead = ownerText().replace(/\d+\n$/, "1\n");
    const file = write("lock", dead);
    write("lock.stale", dead); // one died while it removed a dead lock
    const program = `
      import { withLock } from ${JSON.stringify(new URL("setup/lock.mjs", import.meta.url).href)};
      import { closeSync, openSync, rmSync } from "node:fs";
      const [file, inside] = process.argv.slice(1);
      await withLock(file, () => {}, async () => {
        closeSync(openSync(inside, "wx"));
        await new Promise((resolve) => setTimeout(resolve, 20));
        rmSync(inside);
      });`;
    const inside = path.join(root, "inside");
    const ends = Array.from({ length: 6 }, async () => {
      const child = spawn(process.execPath, ["--input-type=module", "-e", program, file, inside], { stdio: "inherit" });
      return (await once(child, "exit"))[0];
    });
    expect(await Promise.all(ends)).toEqual(Array(6).fill(0));
    expect(readdirSync(root).filter((name) => name.startsWith("lock"))).toEqual([]);
  });

  test("is waited for aloud while its owner lives, or nothing is known of it", async () => {
    for (const text of [ownerText(), "elsewhere\n1\n5\n"]) {
      const file = write("lock", text);
      const said: string[] = [];
      const release = (message: string) => {
        said.push(message);
        rmSync(file);
      };
      expect(await withLock(file, release, async () => "done")).toBe("done");
      expect(said).toEqual([expect.stringMatching(/another set-up is running here/)]);
    }
  });

  test("is released when the work fails", async () => {
    const file = path.join(root, "lock");
    expect(
      await failure(() =>
        withLock(
          file,
          () => {},
          async () => {
            throw new Error("broken");
          },
        ),
      ),
    ).toBe("broken");
    expect(existsSync(file)).toBe(false);
  });
});
