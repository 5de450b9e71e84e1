import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { runCaptured as miro } from "./testing/run-captured.js";

afterEach(() => {
  vi.unstubAllEnvs();
});

it.each([
  ["nowhere", "expected a folder or a repository"],
  ["miro-emoji@nowhere", '.* has no variant "nowhere"'],
])("a model that is none, %s, is refused by its flag", async (model, says) => {
  const output = mkdtempSync(join(tmpdir(), "miro-model-"));
  const { code, stderr } = await miro("studio", "--model", model, "--port", "0", "--output", output);
  rmSync(output, { recursive: true, force: true });
  expect([code, stderr]).toEqual([2, expect.stringMatching(new RegExp(`^error: --model: ${says}`))]);
});

it("a key that is none is told by where it stands, and is not shown", async () => {
  const folder = mkdtempSync(join(tmpdir(), "miro-key-"));
  const file = join(folder, "key");
  try {
    for (const [key, received] of [
      ["hunter2", "one of 7"],
      ["correct horse", "one with others"],
    ] as const) {
      vi.stubEnv("MIRO_STUDIO_API_KEY", key);
      writeFileSync(file, `${key}\n`);
      for (const [where, args] of [
        ["MIRO_STUDIO_API_KEY", []],
        [file, ["--api-key-file", file]],
      ] as const) {
        const { code, stderr } = await miro("studio", "--output", folder, ...args);
        expect([code, stderr]).toEqual([2, expect.stringContaining(`error: ${where}: expected a key of 8 to 200`)]);
        expect(stderr).toContain(`received ${received}`);
        expect(stderr).not.toContain(key);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
