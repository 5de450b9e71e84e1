// What the training benchmark reckons with: the times of steps, and what a GPU can do by its data sheet.
import { describe, expect, it } from "vitest";
import { dataSheetTflops } from "./data-sheet.js";
import { stepTimes } from "./step-times.js";

describe("the times of steps", () => {
  it("are those between the ends of steps where each is waited for", () => {
    expect(stepTimes([1, 3, 6, 10], false)).toEqual([2, 3, 4]);
  });

  it("are one mean where the host only queues: it runs ahead, and the last step waits for all", () => {
    // Steps of 10 seconds. The first end is waited for; the host queues the next step in 1 second, waits for the
    // figures of the step before from then on, and at the end for all.
    const ends = [10, 11, 20, 30, 50];
    expect(stepTimes(ends, true)).toEqual([10]);
  });
});

describe("the data sheet", () => {
  it.each([
    ["NVIDIA A100-SXM4-80GB", 312, 19.5],
    ["NVIDIA A100 80GB PCIe", 312, 19.5],
    ["NVIDIA H100 80GB HBM3", 989, 67],
    ["NVIDIA H100 PCIe", 756, 51],
    ["NVIDIA H100 NVL", 835, 60],
    ["NVIDIA H200", 989, 67],
    ["NVIDIA H200 NVL", 835, 60],
    ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", null, null],
    ["NVIDIA A100-SXM4-40GB MIG 3g.20gb", null, null],
    ["NVIDIA GeForce RTX 2080 Ti", null, null],
    ["No GPU", null, null],
  ])("has the dense peak of %s", (name, half, float32) => {
    expect(dataSheetTflops(name, "bfloat16")).toBe(half);
    expect(dataSheetTflops(name, "float16")).toBe(half);
    expect(dataSheetTflops(name, "float32")).toBe(float32);
  });
});
