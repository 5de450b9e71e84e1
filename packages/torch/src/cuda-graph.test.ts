// CUDA graphs on the devices that there are: without CUDA only the refusal can be seen.
import { expect, test, vi } from "vitest";
import { captureGraph, cuda, hasCudaGraphs, zeros } from "./index.js";
import { native } from "./native.js";

test.skipIf(cuda.isAvailable())("without CUDA there are no graphs, and capturing says why", () => {
  expect(hasCudaGraphs()).toBe(false);
  expect(() => captureGraph(() => ({ x: zeros([1]) }))).toThrow(/CUDA/);
});

test("a capture that fails says why, and everything that was begun is ended", () => {
  const calls: string[] = [];
  let failing = "";
  const names = ["graphNew", "graphEnter", "graphBegin", "graphEnd", "graphLeave", "graphFree"] as const;
  for (const name of names)
    vi.spyOn(native, name).mockImplementation((): any => {
      calls.push(name);
      if (name === failing) throw new Error(`${name} was refused`);
      return 0;
    });
  try {
    const [made, entered] = [["graphNew"], ["graphNew", "graphEnter"]];
    const body = () => {
      if (calls.at(-1) === "graphBegin") throw new Error("the body failed");
      return { x: zeros([1]) };
    };
    const left = ["graphLeave", "graphFree"];
    for (const [which, expected, message] of [
      ["graphEnter", [...made, "graphEnter", "graphFree"], "graphEnter was refused"],
      ["graphBegin", [...entered, "graphBegin", ...left], "graphBegin was refused"],
      ["", [...entered, "graphBegin", "graphEnd", ...left], "the body failed"],
      ["graphEnd", [...entered, "graphBegin", "graphEnd", ...left], "the body failed"],
    ] as const) {
      failing = which;
      calls.length = 0;
      expect(() => captureGraph(body)).toThrow(message);
      expect(calls).toEqual(expected);
    }
  } finally {
    vi.restoreAllMocks();
  }
});

test.runIf(hasCudaGraphs())("a captured sequence gives new results for new values in the same tensors", () => {
  const x = zeros([4], { device: "cuda" }).keep();
  const graph = captureGraph(() => ({ y: x.mul(2).add(1) }));
  for (const value of [1, 5]) {
    x.fill_(value);
    graph.replay();
    expect(graph.outputs.y.cpu().toList()).toEqual(new Array(4).fill(2 * value + 1));
  }
  graph.dispose();
  x.dispose();
});
