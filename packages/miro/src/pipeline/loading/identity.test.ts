import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MiroError } from "../../errors.js";
import { bundledModel } from "./bundled.js";
import { expandTilde, hashFile, identifyWeights } from "./identity.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-identity-"));
  vi.stubEnv("MIRO_CACHE", join(folder, "cache"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});
const sha256 = (data: Uint8Array | string) => createHash("sha256").update(data).digest("hex");

describe("hashFile", () => {
  it("gives SHA-256, of small files at once and of large ones in another thread, remembered until they change", async () => {
    writeFileSync(join(folder, "small"), "weights");
    expect(await hashFile(join(folder, "small"))).toBe(sha256("weights"));
    const large = join(folder, "large");
    const content = Buffer.alloc((32 << 20) + 1, "a");
    writeFileSync(large, content);
    utimesSync(large, 1000, 1000);
    expect(await hashFile(large)).toBe(sha256(content));
    const cache = join(folder, "cache", "sha256.json");
    const entry = Object.values(JSON.parse(readFileSync(cache, "utf8")))[0] as { sha256: string };
    // What is remembered is used: a forged entry is believed, until the file has another state.
    writeFileSync(cache, readFileSync(cache, "utf8").replace(entry.sha256, "f".repeat(64)));
    expect(await hashFile(large)).toBe("f".repeat(64));
    content[5] = 0;
    writeFileSync(large, content);
    utimesSync(large, 1000, 1000); // same size and time of change
    expect(await hashFile(large)).toBe(sha256(content));
    writeFileSync(cache, "{ damaged");
    expect(await hashFile(large)).toBe(sha256(content));
  });

  it("of a large file in the background lets the process end, unless it is waited for", () => {
    const large = join(folder, "large");
    writeFileSync(large, "");
    truncateSync(large, 4e9); // sparse: seconds to hash
    const program = (wait: boolean) => `
      import { identifyWeights } from ${JSON.stringify(new URL("../../../dist/pipeline/loading/identity.js", import.meta.url).href)};
      const weights = identifyWeights("checkpoint", ${JSON.stringify(folder)}, ["large"]);
      ${wait ? "console.log((await weights.get()).sha256.length);" : ""}`;
    const run = (wait: boolean) => {
      const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "-e", program(wait)]);
      return [status, stdout.toString().trim(), existsSync(join(folder, "cache", "sha256.json"))];
    };
    expect(run(false)).toEqual([0, "", false]);
    truncateSync(large, 64 << 20);
    expect(run(true)).toEqual([0, "64", true]);
  });

  it("takes the name of a blob of the Hub's cache", async () => {
    mkdirSync(join(folder, "blobs"));
    writeFileSync(join(folder, "blobs", "ab".repeat(32)), "not read");
    symlinkSync(join("blobs", "ab".repeat(32)), join(folder, "model.safetensors"));
    expect(await hashFile(join(folder, "model.safetensors"))).toBe("ab".repeat(32));
  });

  it("names a file that is not there", async () => {
    await expect(hashFile(join(folder, "none"))).rejects.toThrow(/none: cannot be read: no such file/);
    await expect(hashFile(join(folder, "none"))).rejects.toThrow(MiroError);
  });
});

describe("identifyWeights", () => {
  it("tells the bundled model, folders, repositories and parts of a checkpoint apart", async () => {
    writeFileSync(join(folder, "w"), "weights");
    const bundled = bundledModel()!;
    const identify = async (source: Parameters<typeof identifyWeights>[0], at = folder) =>
      (await identifyWeights(source, at, ["w"]).get()) as object;
    expect(await identify({ name: folder })).toEqual({ source: "folder", name: folder, sha256: sha256("weights") });
    expect(await identify({ name: bundled })).toEqual({ source: "bundled", sha256: sha256("weights") });
    expect(await identify("checkpoint")).toEqual({ source: "checkpoint", sha256: sha256("weights") });
    const snapshot = join(folder, "snapshots", "0123abc");
    mkdirSync(snapshot, { recursive: true });
    writeFileSync(join(snapshot, "w"), "weights");
    expect(await identify({ name: "owner/name" }, snapshot)).toMatchObject({
      source: "hub",
      name: "owner/name",
      commit: "0123abc",
    });
  });

  it("hashes shards as sha256sum lists them, in whatever order they come", async () => {
    for (const name of ["b", "a"]) writeFileSync(join(folder, name), name);
    const expected = sha256(`${sha256("a")}  a\n${sha256("b")}  b\n`);
    for (const files of [
      ["a", "b"],
      ["b", "a"],
    ]) {
      expect((await identifyWeights("checkpoint", folder, files).get()).sha256).toBe(expected);
    }
  });

  it("folders below home are stored without the user's name", () => {
    expect(expandTilde("~/models/x")).toBe(join(homedir(), "models/x"));
    expect(expandTilde("/models/x")).toBe("/models/x");
  });
});
