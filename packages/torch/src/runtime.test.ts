import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { buildInfo, cuda, getNumThreads, setNumThreads } from "./index.js";
import { native } from "./native.js";

test("the addon's own loops run on as many threads as libtorch's operators", () => {
  const before = getNumThreads();
  try {
    for (const threads of [1, 2, 3]) {
      setNumThreads(threads);
      expect(native.loopThreads()).toBe(threads);
    }
  } finally {
    setNumThreads(before);
  }
});

test("no loop of the addon is at::parallel_for, which is compiled in place and runs on one thread", () => {
  const folder = new URL("../native/src/", import.meta.url);
  const sources = readdirSync(folder);
  expect(sources).toContain("parallel.cpp");
  const serial = sources.filter((name) => /parallel_(for|reduce)\(/.test(readFileSync(new URL(name, folder), "utf8")));
  expect(serial).toEqual([]);
});

test("JavaScript that is loaded again, as test runners do, gets its own errors, and is told when to collect", () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-again-"));
  try {
    const here = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));
    for (const name of ["dist", "package.json"]) cpSync(here(name), join(folder, name), { recursive: true });
    symlinkSync(here("build"), join(folder, "build")); // one file, which Node loads once
    const program = `
      const folders = process.argv.slice(1);
      for (const folder of folders) {
        const { memory, ones, TorchError } = await import(folder + "/dist/index.js");
        try { ones([2]).add("a"); } catch (error) { console.log(error instanceof TorchError); }
        for (let i = 0; i < 300; i++) ones([2 ** 18]);
        console.log(memory.stats().liveBytes < 2 ** 27);
      }`;
    const args = ["--input-type=module", "-e", program, here("."), folder];
    expect(execFileSync(process.execPath, args, { encoding: "utf8" })).toBe("true\n".repeat(4));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("float32 is exact on CUDA until TF32 is allowed, for products and convolutions apart", () => {
  expect(cuda.allowTf32()).toEqual({ matmul: false, cudnn: false });
  expect(cuda.allowTf32({ cudnn: true })).toEqual({ matmul: false, cudnn: true });
  expect(cuda.allowTf32({ matmul: true })).toEqual({ matmul: true, cudnn: true });
  expect(cuda.allowTf32({ matmul: false, cudnn: false })).toEqual({ matmul: false, cudnn: false });
  expect(cuda.allowTf32()).toEqual({ matmul: false, cudnn: false });
});

test("cuDNN's attention is left out unless the environment asks for it", () => {
  const index = JSON.stringify(new URL("../dist/index.js", import.meta.url).href);
  const program = `console.log((await import(${index})).buildInfo().cudnnAttention)`;
  for (const [wanted, expected] of [
    ["", "false"],
    ["0", "false"],
    ["1", "true"],
  ] as const) {
    const env = { ...process.env, MIRO_CUDNN_ATTENTION: wanted };
    const found = execFileSync(process.execPath, ["--input-type=module", "-e", program], { env, encoding: "utf8" });
    expect(found.trim()).toBe(expected);
  }
});

// Without a memory dump of the process, wherever the system would put it.
test.runIf(process.platform === "linux").each([
  ["", false],
  ["1", true],
])("MIRO_STACKS=%j: whether a process that dies by a signal tells where its threads are: %j", (wanted, tells) => {
  const index = JSON.stringify(new URL("../dist/index.js", import.meta.url).href);
  const program = `(await import(${index})).getNumThreads();
    process.kill(process.pid, "SIGABRT");
    setInterval(() => {}, 9);`;
  const shell = ["-c", 'ulimit -c 0; exec "$0" "$@"', process.execPath, "--input-type=module", "-e", program];
  const env = { ...process.env, MIRO_STACKS: wanted };
  const { signal, stderr } = spawnSync("sh", shell, { env, encoding: "utf8" });
  expect(signal).toBe("SIGABRT");
  expect(/^signal 6, thread \d+\n.*miro_torch\.node/m.test(stderr)).toBe(tells);
});

test("the driver's GPUs have a name, memory and a capability; devices that libtorch offers are among them", () => {
  const gpus = cuda.devices();
  for (const { name, memoryBytes, capability } of gpus) {
    expect(name).not.toBe("");
    expect(memoryBytes).toBeGreaterThan(2 ** 28);
    expect(capability[0]).toBeGreaterThanOrEqual(3);
  }
  expect(gpus.length).toBeGreaterThanOrEqual(cuda.isAvailable() ? cuda.deviceCount() : 0);
});

test("libtorch says which CUDA it was built with, or that it was built without", () => {
  if (buildInfo().cuda) expect(cuda.version()).toMatch(/^\d+\.\d$/);
  else expect(cuda.version()).toBeNull();
});

test.skipIf(cuda.isAvailable())("without CUDA its memory cannot be asked for", () => {
  expect(() => cuda.memory()).toThrow("no CUDA device is available");
});
