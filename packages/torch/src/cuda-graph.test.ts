// CUDA graphs on the devices that there are: without CUDA only the refusal can be seen.
import { expect, test } from "vitest";
import { captureGraph, cuda, hasCudaGraphs, zeros } from "./index.js";

test.skipIf(cuda.isAvailable())("without CUDA there are no graphs, and capturing says why", () => {
  expect(hasCudaGraphs()).toBe(false);
  expect(() => captureGraph(() => ({ x: zeros([1]) }))).toThrow(/CUDA/);
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
