/** The dry run of the recipes that train the bundled model's parts: all that would stop them, told at once. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCaptured } from "../../cli/testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-part-checks-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const output = join(folder, "run");
const dryRun = (...args: string[]) => runCaptured("train", ...args, "--output", output, "--dry-run");

describe("a dry run of a part", { timeout: 60_000 }, () => {
  it.each(["emoji-autoencoder", "emoji-text", "emoji-decoder", "emoji-classifier", "emoji-clip"])(
    "%s finds nothing that would stop the recipe as it is, and writes nothing",
    async (name) => {
      const { code, stdout, stderr } = await dryRun(name);
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).toMatch(/ok +network: takes pictures of \d+ pixels/);
      expect(existsSync(output)).toBe(false);
    },
  );

  it.each([
    ["emoji-autoencoder", "scenes.size=136", "network.patch_size=16", /network: .*multiples of 32/],
    ["emoji-decoder", "refine_decoder_of=nowhere", "trainer.batch_size=8", /refine_decoder_of: nowhere is not there/],
    [
      "emoji-decoder",
      "loss.redrawn.model=./nowhere",
      "trainer.batch_size=8",
      /redrawn\.model: \.\/nowhere is not there/,
    ],
    [
      "emoji-decoder",
      "loss.redrawn.model=recipes",
      "trainer.batch_size=8",
      /redrawn\.model: recipes is not a checkpoint/,
    ],
    [
      "emoji-decoder",
      "scenes.size=128",
      "trainer.batch_size=8",
      /redrawn\.model: expected a model of latents 4 × 16 × 16/,
    ],
    ["emoji-text", "scenes.size=40", "trainer.batch_size=8", /network: scenes\.size: expected a multiple of 16/],
    ["emoji-clip", "text_encoder=nowhere", "trainer.batch_size=8", /text_encoder: nowhere is not there/],
    ["emoji-classifier", "trainer.batch_size=1000000000", "scenes.size=64", /memory: at least [\d.,]+ TiB/],
  ])("%s %s %s", async (name, one, other, what) => {
    const { code, stdout, stderr } = await dryRun(name, one, other, "trainer.device=cuda:99");
    expect(code).toBe(1);
    expect(stdout).toMatch(/MISSING +trainer\.device: "cuda:99" is not available/);
    if (!what.source.startsWith("memory")) expect(stdout).toMatch(what);
    else expect((await dryRun(name, one, other)).stdout).toMatch(what);
    expect(stderr).toMatch(/^error: the run cannot start: [^\n]+\n$/);
  });

  it("looks at the network that redraws, and only notes a repository that is not in the cache", async () => {
    expect((await dryRun("emoji-decoder")).stdout).toMatch(/ok +loss\.redrawn\.model: miro-emoji\n/);
    const { code, stdout } = await dryRun("emoji-decoder", "loss.redrawn.model=owner/name");
    expect(stdout).toMatch(/note +loss\.redrawn\.model: the repository owner\/name is not in the cache/);
    expect(code).toBe(0);
  });
});
