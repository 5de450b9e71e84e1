import { expect, test, vi } from "vitest";
import { BenchError, failuresOf, inTurns, runProcess } from "./harness.js";

test("a process that fails is told of with what it said last, one that cannot be started with the reason", () => {
  expect(runProcess(process.execPath, ["-e", "console.log(process.env.SIDE)"], { SIDE: "512" })).toBe("512\n");
  const failing = () => runProcess(process.execPath, ["-e", "console.error('no memory left'); process.exit(3)"]);
  expect(failing).toThrow(BenchError);
  expect(failing).toThrow(/-e .* failed:\nno memory left$/s);
  expect(() => runProcess("/nowhere/python", ["x.py"])).toThrow(/^\/nowhere\/python x\.py failed:\n.*ENOENT/);
});

test("a side that fails is left out from then on, and what is known is kept after each run", async () => {
  const said = vi.spyOn(console, "error").mockImplementation(() => {});
  const order: string[] = [];
  const side = (name: string, failsAt = Number.POSITIVE_INFINITY) => {
    let times = 0;
    const run = () => {
      order.push(name);
      if (++times >= failsAt) throw new Error("CUDA out of memory");
    };
    return { name, batch: 8, run };
  };
  const sides = [side("a"), side("b", 2), side("c")];
  await inTurns(3, sides, () => order.push("kept"));
  expect(order.filter((one) => one !== "kept").join("")).toBe("abcabcac");
  expect(order.filter((one) => one === "kept").length).toBe(7);
  expect(order.indexOf("kept")).toBe(1);
  expect(failuresOf(sides)).toEqual([{ name: "b", batch: 8, failure: "CUDA out of memory" }]);
  expect(said.mock.calls.flat()).toContain("b, batch 8: CUDA out of memory");
  await expect(inTurns(1, [side("d", 1)], () => {})).rejects.toThrow("no side could be measured");
  said.mockRestore();
});
