import { expect, test } from "vitest";
import { BenchError, runProcess } from "./harness.js";

test("a process that fails is told of with what it said last, one that cannot be started with the reason", () => {
  expect(runProcess(process.execPath, ["-e", "console.log(process.env.SIDE)"], { SIDE: "512" })).toBe("512\n");
  const failing = () => runProcess(process.execPath, ["-e", "console.error('no memory left'); process.exit(3)"]);
  expect(failing).toThrow(BenchError);
  expect(failing).toThrow(/-e .* failed:\nno memory left$/s);
  expect(() => runProcess("/nowhere/python", ["x.py"])).toThrow(/^\/nowhere\/python x\.py failed:\n.*ENOENT/);
});
