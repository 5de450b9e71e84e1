import { expect, test } from "vitest";
import { gpuFindings } from "./doctor.js";

const h100 = { name: "NVIDIA H100", memoryBytes: 80 * 2 ** 30, capability: [9, 0] as const };
const t4 = { name: "Tesla T4", memoryBytes: 15 * 2 ** 30, capability: [7, 5] as const };

test("each GPU is named with its memory and capability", () => {
  expect(gpuFindings([h100, t4], true, true)).toEqual([
    { name: "cuda:0", value: "NVIDIA H100, 80.0 GiB, compute capability 9.0", state: "ok" },
    { name: "cuda:1", value: "Tesla T4, 15.0 GiB, compute capability 7.5", state: "ok" },
  ]);
  expect(gpuFindings([], false, false)).toEqual([]);
});

test("a GPU that libtorch cannot use is named with what to do", () => {
  const [forCpus] = gpuFindings([t4], false, false);
  expect(forCpus).toMatchObject({ name: "GPU 0", state: "note" });
  expect(forCpus!.fix).toContain("LIBTORCH");
  expect(gpuFindings([t4], false, true)[0]!.fix).toContain("driver");
});
