#!/usr/bin/env node
/**
 * `node scripts/device/emulate.mjs COMMAND …`: runs a command of a clone whose addon was built against a libtorch with
 * CUDA, as if there were GPUs. All of libtorch and of the addon is real but the kernels, which are those of the CPU,
 * and CUDA's runtime, driver and NCCL, which keep their rules (emulator/):
 *
 *   LIBTORCH=…/site-packages/torch npm run setup
 *   node scripts/device/emulate.mjs node tests/dist/device/main.js --device cuda --only smoke,parity,train,replay,nccl
 *
 * What a GPU finds and this does not: what its kernels compute, and work that does not wait for what it needs, because
 * streams do everything at once. The addon's own kernels cannot be loaded, so that ATen's are used. Of the device check
 * all phases but `step`, which keeps a GPU busy, come through. Both libraries are compiled anew each time, in a minute.
 * Linux on x86-64.
 *
 * Environment: MIRO_EMULATED_GPUS (default 1), MIRO_EMULATED_GIB (memory of each, default 139), CXX.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chosenLibtorch } from "../setup/libtorch.mjs";
import { cudaHeaders } from "../setup/native.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(path.dirname(here));

/** Loads the operators behind the engine's addon, in every process of the command. */
const preload = (operators) => `import process from "node:process";
const load = process.dlopen;
process.dlopen = function (module, file, ...rest) {
  load.call(this, module, file, ...rest);
  if (/miro_torch\\.node$/.test(file)) load.call(this, { exports: {} }, ${JSON.stringify(operators)});
};
`;

function compile(args) {
  const { status, stderr, error } = spawnSync(process.env.CXX || "c++", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(error?.message ?? stderr);
}

function main(command, folder) {
  if (command.length === 0) {
    console.error("expected a command, received none");
    return 2;
  }
  const torch = chosenLibtorch({ root, env: process.env })?.folder;
  if (torch === undefined || !existsSync(path.join(torch, "lib", "libtorch_cuda.so"))) {
    const found = torch === undefined ? "none" : `${torch}, which has no CUDA`;
    console.error(`expected a clone set up for a libtorch with CUDA (LIBTORCH=… npm run setup), found ${found}`);
    return 2;
  }
  const cuda = path.join(torch, "..", "nvidia", "cu13", "include");
  const headers = [
    path.join(torch, "include"),
    path.join(torch, "include", "torch", "csrc", "api", "include"),
    ...[cuda, ...cudaHeaders(torch)],
    path.join(root, "node_modules", "node-api-headers", "include"),
  ].flatMap((include) => ["-isystem", include]);
  const shared = ["-shared", "-fPIC", "-O1", "-std=c++20", ...headers];
  const [driver, operators, hook] = ["libcuda.so.1", "compute.node", "preload.mjs"].map((name) =>
    path.join(folder, name),
  );
  const source = (name) => path.join(here, "emulator", `${name}.cpp`);
  compile([...shared, source("runtime"), source("nccl"), "-o", driver, "-Wl,-soname,libcuda.so.1", "-ldl", "-lrt"]);
  const libraries = ["torch_cpu", "torch_cuda", "c10", "c10_cuda"].map((name) => `-l${name}`);
  const lib = path.join(torch, "lib");
  const link = [`-L${lib}`, "-Wl,--no-as-needed", ...libraries, `-Wl,-rpath,${lib}`];
  compile([...shared, source("compute"), "-o", operators, ...link]);
  writeFileSync(hook, preload(operators));
  const { LD_LIBRARY_PATH: libraryPath, NODE_OPTIONS: options } = process.env;
  const { status } = spawnSync(command[0], command.slice(1), {
    stdio: "inherit",
    env: {
      ...process.env,
      LD_PRELOAD: driver,
      LD_LIBRARY_PATH: [folder, libraryPath].filter(Boolean).join(":"),
      NODE_OPTIONS: [options, `--import ${pathToFileURL(hook).href}`].filter(Boolean).join(" "),
    },
  });
  return status ?? 1;
}

const folder = mkdtempSync(path.join(tmpdir(), "miro-emulator-"));
try {
  process.exitCode = main(process.argv.slice(2), folder);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
