import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { TESTBED_FOLDER } from "../training/samples/testbed.js";
import { runCaptured } from "./testing/run-captured.js";

const encoder = fileURLToPath(new URL("../../../../tests/reference/fixtures/tiny/text_encoder", import.meta.url));
const before = process.cwd();
const folder = mkdtempSync(join(tmpdir(), "miro-testbed-command-"));
beforeAll(() => process.chdir(folder));
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true, force: true });
});

it("checks the prompts that come with the program in a folder that has none, and writes nothing", async () => {
  const { code, stdout } = await runCaptured("testbed", "--check", "--json");
  expect([code, JSON.parse(stdout).prompts.length]).toEqual([0, 80]);
  expect(existsSync("datasets")).toBe(false);
});

it("puts the prompts that come with the program where recipes look for them, and embeds them", async () => {
  const { code, stdout } = await runCaptured("testbed", "--text-encoder", encoder, "--embeddings-name", "tiny");
  expect([code, stdout]).toEqual([0, `${TESTBED_FOLDER}/tiny_embeddings: 80 computed, 0 kept\n`]);
  expect(readdirSync(TESTBED_FOLDER).sort()).toEqual(["metadata.csv", "prompts.txt", "tiny_embeddings"]);
  const { stdout: again } = await runCaptured("testbed", "--text-encoder", encoder, "--embeddings-name", "tiny");
  expect(again).toBe(`${TESTBED_FOLDER}/tiny_embeddings: 0 computed, 80 kept\n`);
});

it("takes no other folder that is missing for the prompts that come with the program", async () => {
  const { code, stderr } = await runCaptured("testbed", "other", "--check");
  expect(code).toBe(2);
  expect(stderr).toMatch(/^error: other\/metadata\.csv: cannot be read: no such file or directory/);
});
