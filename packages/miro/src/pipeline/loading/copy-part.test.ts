import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { full, ones, scope } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { copyPart } from "./copy-part.js";

let folder: string;
const at = (...parts: string[]): string => join(folder, ...parts);

beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "miro-copy-part-"));
  fs.mkdirSync(at("blobs"));
  fs.mkdirSync(at("snapshot", "onnx"), { recursive: true });
  scope(() => writeSafetensors(at("blobs", "1"), { weight: full([2, 3], 1.5), steps: ones([4], { dtype: "int64" }) }));
  fs.writeFileSync(at("blobs", "2"), "{}");
  fs.symlinkSync("../blobs/1", at("snapshot", "model.safetensors"));
  fs.symlinkSync("../blobs/2", at("snapshot", "config.json"));
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

describe("a frozen model that is copied", () => {
  it("is made of files where the Hub's cache has links", async () => {
    await copyPart(at("snapshot"), at("release", "vae"));
    expect(fs.readdirSync(at("release", "vae")).sort()).toEqual(["config.json", "model.safetensors"]);
    for (const [copy, blob] of [
      ["model.safetensors", "1"],
      ["config.json", "2"],
    ] as const) {
      expect(fs.lstatSync(at("release", "vae", copy)).isFile()).toBe(true);
      expect(fs.readFileSync(at("release", "vae", copy))).toEqual(fs.readFileSync(at("blobs", blob)));
    }
  });

  it("has its float32 tensors in half precision where that is asked for", async () => {
    await copyPart(at("snapshot"), at("half"), { half: true });
    scope(() => {
      const tensors = readSafetensors(at("half", "model.safetensors"));
      expect([...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
        ["steps", "int64", [4]],
        ["weight", "float16", [2, 3]],
      ]);
      expect(tensors.get("weight")!.eq(1.5).all().item()).toBe(1);
    });
  });

  it("is left between two files", async () => {
    const stopped = copyPart(at("snapshot"), at("stopped"), { half: true, signal: AbortSignal.abort() });
    await expect(stopped).rejects.toThrow(/abort/);
    expect(fs.readdirSync(at("stopped"))).toEqual([]);
  });
});
