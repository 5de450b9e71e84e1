import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { cacheFinding, gpuFindings, hubFinding, libtorchFindings, memoryFinding, nodeFinding } from "./doctor.js";

afterEach(() => vi.unstubAllEnvs());

const h100 = { name: "NVIDIA H100", memoryBytes: 80 * 2 ** 30, capability: [9, 0] as const };
const t4 = { name: "Tesla T4", memoryBytes: 15 * 2 ** 30, capability: [7, 5] as const };

test("each GPU is named with its memory and capability", () => {
  expect(gpuFindings([h100, t4], true, true)).toEqual([
    { name: "cuda:0", value: "NVIDIA H100, 80.0 GiB, compute capability 9.0", state: "ok" },
    { name: "cuda:1", value: "Tesla T4, 15.0 GiB, compute capability 7.5", state: "ok" },
  ]);
  expect(gpuFindings([], false, false)).toEqual([]);
});

test("memory is what a container or a batch job leaves", () => {
  expect(memoryFinding(2 ** 30, 2 ** 29)).toEqual({ name: "memory", value: "512.0 MiB free of 1.0 GiB", state: "ok" });
  expect(memoryFinding(2 ** 28, 2 ** 27)).toMatchObject({ value: "128.0 MiB free of 256.0 MiB", state: "note" });
});

test("a GPU that libtorch cannot use is named with what to do", () => {
  const [forCpus] = gpuFindings([t4], false, false);
  expect(forCpus).toMatchObject({ name: "GPU 0", state: "note" });
  expect(forCpus!.fix).toContain("LIBTORCH");
  expect(gpuFindings([t4], false, true)[0]!.fix).toContain("driver");
});

test("Node and libtorch are named with their versions, and what no test runs on is said", () => {
  expect(nodeFinding("22.23.3")).toEqual({ name: "Node", value: "22.23.3 (tested)", state: "ok" });
  expect(nodeFinding("27.0.0")).toMatchObject({
    value: "27.0.0",
    state: "note",
    fix: "tested are Node 20, 22, 24, 26",
  });
  for (const name of ["MIRO_LIBTORCH", "LIBTORCH"]) vi.stubEnv(name, "");
  const info = {
    torchVersion: "2.13.0",
    cuda: false,
    libraryPath: "/l/lib/libtorch_cpu.so",
    addonPath: "/c/build/a.node",
  };
  expect(libtorchFindings(info, null)).toEqual([
    { name: "addon", value: "built here for libtorch 2.13.0 (/c/build/a.node)", state: "ok" },
    { name: "libtorch", value: "2.13.0, CPU (tested) (/l/lib/libtorch_cpu.so)", state: "ok" },
  ]);
  vi.stubEnv("LIBTORCH", "/l");
  expect(libtorchFindings(info, null)[0]!.state).toBe("ok");
  vi.stubEnv("LIBTORCH", "/cuda");
  expect(libtorchFindings(info, null)[0]).toMatchObject({
    state: "note",
    fix: "LIBTORCH names another libtorch: in a clone `npm run setup` compiles the addon for it",
  });
  const untested = { ...info, torchVersion: "2.10.0", cuda: true, addonPath: "/p/node_modules/@miro-t2i/x/a.node" };
  const [addon, library] = libtorchFindings(untested, "13.0");
  expect(addon!.value).toContain("prebuilt for libtorch 2.10.0");
  expect(library).toMatchObject({ state: "note", fix: "tested are 2.11, 2.12, 2.13, 2.14, 2.15" });
  expect(library!.value).toContain("2.10.0, CUDA 13.0 (");
});

test("what every request to the Hub would fail with is said, and the token is not", () => {
  vi.stubEnv("HF_TOKEN", "hf_secret");
  expect(hubFinding()).toMatchObject({ state: "ok", value: expect.stringContaining("with an access token") });
  expect(JSON.stringify(hubFinding())).not.toContain("secret");
  vi.stubEnv("HF_TOKEN", "hf_sec ret");
  const { state, value, fix } = hubFinding();
  expect(state).toBe("missing");
  expect(value).toMatch(/^HF_TOKEN: .*white space at character 7/);
  expect(value).not.toContain("hf_sec");
  expect(fix).toMatch(/^copy the token again/);
  vi.stubEnv("HF_TOKEN", "");
  vi.stubEnv("HF_HUB_ETAG_TIMEOUT", "soon");
  expect(hubFinding()).toMatchObject({ state: "missing", value: "HF_HUB_ETAG_TIMEOUT is not right" });
});

test("a cache that is no folder is said, and one that is not there yet is none", () => {
  const root = mkdtempSync(join(tmpdir(), "miro-doctor-"));
  try {
    const file = join(root, "file");
    writeFileSync(file, "");
    for (const path of [file, join(file, "hub")])
      expect(cacheFinding(path)).toMatchObject({ state: "missing", fix: expect.stringContaining("HF_HUB_CACHE") });
    expect(cacheFinding(join(root, "later"))).toMatchObject({
      state: "ok",
      value: expect.stringContaining("0 models"),
    });
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("a cache that cannot be written is named, with what a download needs", () => {
  expect(cacheFinding("/proc/hub")).toMatchObject({
    state: "note",
    value: expect.stringMatching(/^\/proc\/hub \(0 models\), cannot be written: /),
    fix: expect.stringContaining("HF_HUB_CACHE"),
  });
});
