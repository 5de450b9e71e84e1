import { expect, test } from "vitest";
import { shortenSpinning, spinCount } from "./spinning.js";

test("threads take more turns of waiting where a pause is short, by the first processor's flags", () => {
  expect(spinCount("flags\t\t: fpu avx512f avx512_fp16 amx_tile\n")).toBe(8000);
  expect(spinCount("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n\nflags\t\t: avx512_fp16\n")).toBe(2000);
  expect(spinCount("Features\t: fp asimd\n")).toBe(2000);
  expect(spinCount("")).toBe(2000);
});

test("what the environment says of waiting counts", () => {
  const found: NodeJS.ProcessEnv = {};
  shortenSpinning(found);
  expect(Number(found.GOMP_SPINCOUNT)).toBeGreaterThanOrEqual(2000);
  for (const given of [{ GOMP_SPINCOUNT: "7" }, { OMP_WAIT_POLICY: "active" }]) {
    const env: NodeJS.ProcessEnv = { ...given };
    shortenSpinning(env);
    expect(env).toEqual(given);
  }
});
