import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { describe, expect, it } from "vitest";
import { ColourClassifier, cutOut } from "./colours.js";
import type { Mask } from "./detection.js";

/** 3 × 2 pixels whose red values are 1 to 6. */
const image = { width: 3, height: 2, data: Uint8Array.from({ length: 18 }, (_, i) => (i % 3 === 0 ? i / 3 + 1 : 0)) };
/** The first column and the last pixel. */
const mask: Mask = { width: 3, height: 2, bits: Uint8Array.of(0b100_101_00) };
const reds = ({ data }: { data: Uint8Array }) => Array.from(data.filter((_, i) => i % 3 === 0));

describe("what is seen of an object", () => {
  it("is grey beside the mask, and cut to the box", () => {
    const seen = cutOut(image, [0, 0, 2, 2], mask);
    expect([seen.width, seen.height, reds(seen)]).toEqual([2, 2, [1, 153, 4, 153]]);
    expect(reds(cutOut(image, [0, 0, 2, 2], mask, { background: "#0a0b0c" }))).toEqual([1, 10, 4, 10]);
    expect(reds(cutOut(image, [0, 0, 2, 2], mask, { crop: false }))).toEqual([1, 153, 153, 4, 153, 6]);
    expect(reds(cutOut(image, [0, 0, 2, 2], mask, { background: "original" }))).toEqual([1, 2, 4, 5]);
  });

  it("has corners rounded as Python rounds, is black beyond the picture and never empty", () => {
    expect(reds(cutOut(image, [0.5, 0.5, 1.5, 1.6], undefined))).toEqual([1, 2, 4, 5]);
    expect(reds(cutOut(image, [2, 1, 4, 2], undefined))).toEqual([6, 0]);
    expect(reds(cutOut(image, [-1, 0, 1, 1], undefined))).toEqual([0, 1]);
    expect(cutOut(image, [0, 0, 0, 0], mask)).toMatchObject({ width: 1, height: 1 });
  });

  it("is not put before what is no colour", () => {
    expect(() => cutOut(image, [0, 0, 1, 1], mask, { background: "grey" })).toThrow(/bgcolor: expected original/);
  });
});

it("colours that CLIP cannot tell are an error, not the first of the ten", async () => {
  const published = fileURLToPath(
    new URL("../../../../../tests/reference/fixtures/scorers/clip_openai", import.meta.url),
  );
  const folder = mkdtempSync(join(tmpdir(), "miro-colours-"));
  try {
    cpSync(published, folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const weights = readSafetensors(path);
    weights.set("visual_projection.weight", weights.get("visual_projection.weight")!.mul(0).add(3e38));
    writeSafetensors(path, weights);
    using classifier = await ColourClassifier.load({ clip: folder, dtype: "float32" });
    const objects = [{ box: [0, 0, 3, 2] as const }];
    await expect(classifier.classify(image, objects, "bench")).rejects.toThrow(/colours of bench are not finite/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
