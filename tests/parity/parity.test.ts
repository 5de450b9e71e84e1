// The committed recording of the Python reference (tests/reference/fixtures/tiny), every check of `npm run parity`.

import { randn, scope, tensor } from "@miro-t2i/torch";
import { afterAll, describe, expect, test } from "vitest";
import { defaultNormalization } from "../../packages/miro/src/autoencoder/normalization.js";
import { loadReference, relativeError } from "../reference/fixture.js";
import { CHECKS, computeOn } from "./checks.js";
import { agreement, table } from "./report.js";

const reference = loadReference();
afterAll(() => reference.close());

describe("parity with the Python reference", () => {
  test.each(CHECKS.map((check) => [check.name, check] as const))("%s", async (_name, check) => {
    expect(check.recorded(reference)).toBe(true);
    const rows = await check.run(reference);
    expect(rows.length).toBeGreaterThan(0);
    expect(
      rows.every((row) => row.ok),
      `\n${table(rows)}`,
    ).toBe(true);
  });
});

test("in bfloat16 the network agrees within rounding, and not within float32's bound", async () => {
  const network = CHECKS.find(({ name }) => name === "network")!;
  const worst = async () => Math.max(...(await network.run(reference)).map(({ figure }) => figure));
  const exact = await worst();
  computeOn("cpu", "bfloat16");
  try {
    const rows = await network.run(reference);
    expect(
      rows.every((row) => row.ok),
      `\n${table(rows)}`,
    ).toBe(true);
    expect(await worst()).toBeGreaterThan(100 * exact);
  } finally {
    computeOn("cpu", "float32");
  }
});

test("a checkpoint without normalisation constants gets the published ones", () => {
  scope(() => {
    const constants = defaultNormalization({ channel_wise_normalisation: true });
    for (const prefix of ["data_preprocessing.", "postprocessing."]) {
      const recorded = reference.checkpoint(prefix);
      expect(relativeError(constants.scale, recorded.get("scale")!)).toBeLessThan(1e-7);
      expect(relativeError(constants.bias, recorded.get("bias")!)).toBeLessThan(1e-7);
    }
  });
});

describe("the measure", () => {
  test("sees noise of one part in a million, and no other", () => {
    scope(() => {
      const a = randn([1000]);
      expect(relativeError(a, a)).toBe(0);
      const error = relativeError(a.add(randn([1000]).mul(1e-6)), a);
      expect(error).toBeGreaterThan(1e-7);
      expect(error).toBeLessThan(1e-5);
    });
  });
  test("takes NaN, another shape and nothing compared for failures", () => {
    scope(() => {
      const a = tensor([1, 2]);
      expect(relativeError(tensor([1, Number.NaN]), a)).toBe(Number.POSITIVE_INFINITY);
      expect(relativeError(tensor([1, 2, 3]), a)).toBe(Number.POSITIVE_INFINITY);
      expect(relativeError(a, tensor([0, 0]))).toBe(Number.POSITIVE_INFINITY);
      expect(agreement("nothing", 1, []).ok).toBe(false);
    });
  });
});
