import { expect, it } from "vitest";
import { limitSeconds } from "./time-limit.js";

it("reads each of SLURM's forms of a time limit", () => {
  // As sbatch(1) lists them.
  expect(limitSeconds("90")).toBe(90 * 60);
  expect(limitSeconds("1:30")).toBe(90);
  expect(limitSeconds("1:00:05")).toBe(3605);
  expect(limitSeconds("1-2")).toBe(26 * 3600);
  expect(limitSeconds("1-2:03")).toBe(26 * 3600 + 180);
  expect(limitSeconds("1-2:03:04")).toBe(26 * 3600 + 184);
});

it.each(["", "0", "0:00", "1h", "-1", "1:2:3:4", "1-", "1.5"])("refuses %j", (text) => {
  expect(limitSeconds(text)).toBeNull();
});
