import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { full, ones, scope } from "@miro-t2i/torch";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { copyPart } from "./copy-part.js";

let folder: string;
/** A model in the Hub's cache. */
let cached: string;
const at = (...parts: string[]): string => join(folder, ...parts);

beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "miro-copy-part-"));
  const model = at("hub", "models--me--vae");
  cached = join(model, "snapshots", "1");
  fs.mkdirSync(join(cached, "onnx"), { recursive: true });
  fs.mkdirSync(join(model, "blobs"));
  const [weights, config] = ["a", "b"].map((name) => join(model, "blobs", name));
  scope(() => writeSafetensors(weights!, { weight: full([2, 3], 1.5), steps: ones([4], { dtype: "int64" }) }));
  fs.writeFileSync(config!, "{}");
  fs.symlinkSync("../../blobs/a", join(cached, "model.safetensors"));
  fs.symlinkSync("../../blobs/b", join(cached, "config.json"));
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

describe("a frozen model that is copied", () => {
  it("is made of files where the Hub's cache has links", async () => {
    await copyPart(cached, at("release", "vae"));
    expect(fs.readdirSync(at("release", "vae")).sort()).toEqual(["config.json", "model.safetensors"]);
    for (const name of ["config.json", "model.safetensors"]) {
      expect(fs.lstatSync(at("release", "vae", name)).isFile()).toBe(true);
      expect(fs.readFileSync(at("release", "vae", name))).toEqual(fs.readFileSync(join(cached, name)));
    }
  });

  it("has its float32 tensors in half precision where that is asked for", async () => {
    await copyPart(cached, at("half"), { half: true });
    scope(() => {
      const tensors = readSafetensors(at("half", "model.safetensors"));
      expect([...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
        ["steps", "int64", [4]],
        ["weight", "float16", [2, 3]],
      ]);
      expect(tensors.get("weight")!.eq(1.5).all().item()).toBe(1);
    });
  });

  it("stays in float32 where a value would become infinite, which is said", async () => {
    const model = join(cached, "..", "..", "blobs", "a");
    scope(() => writeSafetensors(model, { small: full([1], 2), large: full([1], 70_000) }));
    await expect(copyPart(cached, at("half"), { half: true })).rejects.toThrow(
      /model\.safetensors: large: holds values that do not fit float16/,
    );
    // What is infinite already is so on purpose, as in a mask.
    scope(() => writeSafetensors(model, { mask: full([1], Number.NEGATIVE_INFINITY) }));
    await copyPart(cached, at("half"), { half: true });
  });

  it("takes no file from elsewhere, be it a link itself or below one", async () => {
    fs.mkdirSync(at("release"));
    fs.symlinkSync(cached, at("release", "vae"));
    const into = at("copied");
    const outside =
      /source: .*release\/vae\/config\.json is a link out of the folder, to .*blobs\/b; copy the file there/;
    await expect(copyPart(at("release", "vae"), into, { root: at("release") })).rejects.toThrow(outside);
    fs.symlinkSync(at("secret"), join(cached, "link"));
    fs.writeFileSync(at("secret"), "");
    await expect(copyPart(cached, into)).rejects.toThrow(/link is a link out of the folder, to .*secret/);
    expect(fs.existsSync(into)).toBe(false);
  });

  it("is left between two files", async () => {
    const stopped = copyPart(cached, at("stopped"), { half: true, signal: AbortSignal.abort() });
    await expect(stopped).rejects.toThrow(/abort/);
    expect(fs.readdirSync(at("stopped"))).toEqual([]);
  });
});
