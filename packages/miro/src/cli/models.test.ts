import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runCaptured } from "./testing/run-captured.js";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "miro-models-"));
});
afterEach(() => rmSync(cache, { recursive: true, force: true }));

async function models(...args: string[]) {
  const { code, stdout } = await runCaptured("models", "--cache-dir", cache, ...args);
  expect(code).toBe(0);
  return stdout;
}

/** A repository in the cache whose files are links to blobs of `size` bytes. */
function cached(name: string, files: string[], size: number): void {
  const folder = join(cache, `models--${name.replace("/", "--")}`);
  for (const sub of ["blobs", "refs", `snapshots/${COMMIT}`]) mkdirSync(join(folder, sub), { recursive: true });
  writeFileSync(join(folder, "refs", "main"), COMMIT);
  for (const [i, file] of files.entries()) {
    const path = join(folder, "snapshots", COMMIT, file);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(join(folder, "blobs", String(i)), Buffer.alloc(size));
    symlinkSync(join(folder, "blobs", String(i)), path);
  }
}

const FILES = ["config.json", "model.safetensors", "uncond_embedding.npy"];

describe("miro models", () => {
  it("lists the bundled model, the main model and fifteen variants, also with an empty cache", async () => {
    const list = JSON.parse(await models("--json"));
    expect(list.bundled.name).toBe("miro-emoji");
    expect(list.published).toHaveLength(16);
    expect(list.published.some(({ cached }: { cached: boolean }) => cached)).toBe(false);
    // The model cards: the main model and the one without synthetic captions know seven rewards, the others six or one.
    const counts = list.published.map(({ rewards }: { rewards: string[] }) => rewards.length);
    expect(counts).toEqual([7, 7, 6, 6, 6, 6, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1]);
    expect(list.cache).toMatchObject({ folder: cache, repositories: [], sizeBytes: 0 });
    expect(list.cache.freeBytes).toBeGreaterThan(0);
  });

  it("tells what is in the cache, whole or in part, and what it takes", async () => {
    cached("nicolas-dufour/miro", [...FILES, "README.md"], 1_000_000);
    const only = FILES.map((file) => `miro-only-clip/${file}`);
    cached("nicolas-dufour/miro-ablations", [...only, "miro-no-clip/config.json"], 10);
    cached("google/flan-t5-xl", ["config.json"], 10);
    const blobs = join(cache, "models--google--flan-t5-xl", "blobs");
    writeFileSync(join(blobs, "abc.miro.incomplete"), Buffer.alloc(500));
    writeFileSync(join(cache, "models--broken--file"), "");
    mkdirSync(join(cache, ".locks"));
    const list = JSON.parse(await models("--json"));
    const whole = list.published.filter(({ cached }: { cached: boolean }) => cached);
    expect(whole.map(({ variant }: { variant?: string }) => variant)).toEqual([undefined, "miro-only-clip"]);
    expect(list.cache.sizeBytes).toBe(4_000_000 + 40 + 10 + 500);
    expect(list.cache.repositories).toMatchObject([
      { repository: "google/flan-t5-xl", sizeBytes: 10, incompleteBytes: 500, revisions: [{ checkpoints: [] }] },
      {
        repository: "nicolas-dufour/miro",
        sizeBytes: 4_000_000,
        revisions: [{ commit: COMMIT, refs: ["main"], files: 4, sizeBytes: 4_000_000, checkpoints: [""] }],
      },
      { repository: "nicolas-dufour/miro-ablations", revisions: [{ checkpoints: ["miro-only-clip"] }] },
    ]);
    const text = await models();
    expect(text).toMatch(/^\* +nicolas-dufour\/miro +7 rewards +main model$/m);
    expect(text).toMatch(
      /^ +nicolas-dufour\/miro-ablations +--variant miro-no-clip +6 rewards +without the CLIP reward$/m,
    );
    expect(text).toMatch(/^ +nicolas-dufour\/miro +4\.0 MB +main 01234567 +used \d{4}-\d\d-\d\d$/m);
  });

  it("lists the scorers: where their weights are from, what they take, their terms, and whether they are cached", async () => {
    cached("openai/clip-vit-large-patch14", ["config.json", "model.safetensors"], 10);
    cached("yuvalkirstain/PickScore_v1", ["config.json"], 10);
    const { scorers } = JSON.parse(await models("--json"));
    const of = (key: string) => scorers.find((scorer: { key: string }) => scorer.key === key);
    expect(of("clip_openai")).toMatchObject({
      license: { name: "MIT", nonCommercial: false },
      repositories: [{ name: "openai/clip-vit-large-patch14", cached: true }],
      ready: true,
    });
    expect(of("clip_openai").memoryBytes.float32).toBeGreaterThan(1.7e9);
    expect(of("pick_a_score_score")).toMatchObject({ repositories: [{ cached: false }], ready: false });
    expect(of("aesthetic_score")).toMatchObject({ repositories: [{ cached: false }, { cached: true }], ready: false });
    expect(of("clip_score").license).toEqual({ name: "CC-BY-NC-4.0", nonCommercial: true });
    expect(of("sharpness")).toMatchObject({ repositories: [], license: null, memoryBytes: null, ready: true });
    const text = await models();
    expect(text).toMatch(
      /^\* +clip_openai +openai\/clip-vit-large-patch14 +1\.7 GB +2\.1 GB or 1\.3 GB of memory +MIT$/m,
    );
    expect(text).toMatch(/^ +clip_score +jinaai\/jina-clip-v2 .* CC-BY-NC-4\.0 \(not for commercial use\)$/m);
  });
});
