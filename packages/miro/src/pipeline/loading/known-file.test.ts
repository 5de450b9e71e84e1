import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { fetchKnownFile, isFetched, knownFolder } from "./known-file.js";

const content = Buffer.alloc(5000, "head");
const sha256 = createHash("sha256").update(content).digest("hex");
const cacheDir = mkdtempSync(join(tmpdir(), "miro-known-"));
const seen: (string | undefined)[] = [];
let answer = { status: 200, body: content };
const server = createServer((request, response) => {
  seen.push(request.headers.authorization);
  response.writeHead(answer.status, { "Content-Length": answer.body.length }).end(answer.body);
});
beforeAll(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve)));
beforeEach(() => {
  seen.length = 0;
  answer = { status: 200, body: content };
  rmSync(join(cacheDir, "assets"), { recursive: true, force: true });
  vi.stubEnv("HF_TOKEN", "hf_secret");
  vi.stubEnv("HF_HUB_OFFLINE", "");
});
afterAll(() => {
  vi.unstubAllEnvs();
  server.close();
  rmSync(cacheDir, { recursive: true, force: true });
});

const options = { cacheDir, retryDelaysMs: [] };
const file = () => ({
  name: "head.pth",
  url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/head.pth`,
  sizeBytes: content.length,
  sha256,
});

it("is fetched once, compared with its hash, and its server gets no token of the Hub", async () => {
  expect(isFetched(file(), cacheDir)).toBe(false);
  const folder = await fetchKnownFile(file(), options);
  expect(readFileSync(join(folder, "head.pth"))).toEqual(content);
  expect(await fetchKnownFile(file(), options)).toBe(folder);
  expect(isFetched(file(), cacheDir)).toBe(true);
  expect(seen).toEqual([undefined]);
});

it.each([
  ["another content", { status: 200, body: Buffer.alloc(5000, "else") }, /do not have the hash/],
  ["a refusal", { status: 404, body: Buffer.from("no") }, /127\.0\.0\.1:\d+ answers with HTTP status 404/],
])("is not taken from %s, and nothing is left of it", async (_, given, message) => {
  answer = given;
  await expect(fetchKnownFile(file(), options)).rejects.toThrow(message);
  const folder = knownFolder(file(), cacheDir);
  expect(existsSync(folder) ? readdirSync(folder) : []).toEqual([]);
});

it("is not asked for where the Hub must not be, which is said", async () => {
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  await expect(fetchKnownFile(file(), options)).rejects.toThrow(/head\.pth: not in the cache .*HF_HUB_OFFLINE is set/);
  expect(seen).toEqual([]);
});
