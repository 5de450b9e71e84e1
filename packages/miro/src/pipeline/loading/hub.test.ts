import { createHash, randomBytes } from "node:crypto";
import fs, {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { full, scope } from "@miro-t2i/torch";
import { processIdentity } from "@miro-t2i/torch/atomic-write";
import { readSafetensors, writeSafetensors } from "@miro-t2i/torch/io";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { InvalidInputError, MiroError } from "../../errors.js";
import { REWARD_KEYS } from "../../networks/config.js";
import { MiroPipeline } from "../pipeline.js";
import { resolveModel } from "./hub.js";
import type { DownloadProgress } from "./hub-repository.js";
import { ABLATIONS_REPOSITORY, MAIN_REPOSITORY, RELEASES } from "./releases.js";
import { HubServer, type TestRepository } from "./testing/hub-server.js";
import { writeTinyRelease } from "./testing/tiny-release.js";

const SHA = "0123456789abcdef0123456789abcdef01234567";
let server: HubServer;
let home: string;
let repository: TestRepository;
const retryDelaysMs = [1, 1];

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "miro-hub-"));
  repository = { sha: SHA, files: { "config.json": Buffer.from("{}"), "v1/model.bin": randomBytes(50_000) } };
  server = await new HubServer({ "someone/model": repository }).start();
  for (const name of [
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_TOKEN_PATH",
    ...Object.keys(process.env).filter((name) => /_proxy$/i.test(name)),
  ]) {
    vi.stubEnv(name, "");
  }
  vi.stubEnv("HF_HOME", home);
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await server.stop();
  rmSync(home, { recursive: true, force: true });
});

const open = () => resolveModel("someone/model", "model", { retryDelaysMs });
/** First byte that a request asked for. */
const startOf = ({ range }: { range: string | undefined }) => Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
/** The server that large files come from. */
const storageOrigin = () => server.endpoint.replace("127.0.0.1", "localhost");
const storage = () => join(home, "hub", "models--someone--model");

describe("a repository", () => {
  it("is fetched into the layout of Python's cache, once", async () => {
    const source = await open();
    expect([...source.files].sort()).toEqual(["config.json", "v1/model.bin"]);
    await source.fetch(source.files);
    expect(source.folder).toBe(join(storage(), "snapshots", SHA));
    expect(readFileSync(join(storage(), "refs", "main"), "utf8")).toBe(SHA);
    const link = join(source.folder, "v1", "model.bin");
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readlinkSync(link)).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    expect(readFileSync(link)).toEqual(repository.files["v1/model.bin"]);
    expect(readdirSync(join(storage(), "blobs")).every((name) => /^[0-9a-f]{40}([0-9a-f]{24})?$/.test(name))).toBe(
      true,
    );
    const before = server.downloads.length;
    await (await open()).fetch(source.files);
    expect(server.downloads.length).toBe(before);
  });

  it("fetches only what is asked for", async () => {
    const source = await open();
    await source.fetch(["config.json"]);
    expect(existsSync(join(source.folder, "config.json"))).toBe(true);
    expect(existsSync(join(source.folder, "v1"))).toBe(false);
  });

  it("sends the token to the Hub and to nobody else", async () => {
    repository.token = "hf_secret";
    vi.stubEnv("HF_TOKEN", "hf_secret");
    await (await open()).fetch(["v1/model.bin"]);
    const [large, others] = [
      server.requests.filter((r) => r.path.startsWith("/large/")),
      server.requests.filter((r) => !r.path.startsWith("/large/")),
    ];
    expect(others.every(({ authorization }) => authorization === "Bearer hf_secret")).toBe(true);
    expect(large.length).toBeGreaterThan(0);
    expect(large.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("is refused with what to do: 401, 404, an unknown revision", async () => {
    repository.token = "hf_secret";
    await expect(open()).rejects.toThrow(/^model: the Hub refuses access to someone\/model \(401\).*set HF_TOKEN/);
    await expect(resolveModel("someone/nothing", "vae")).rejects.toThrow(
      /^vae: the Hub has no repository someone\/nothing/,
    );
    delete repository.token;
    const other = resolveModel("someone/model", "model", { revision: "v9" });
    await expect(other).rejects.toThrow("no revision v9 of someone/model");
    await expect(other).rejects.toBeInstanceOf(InvalidInputError);
  });

  it("resumes a connection that breaks, and shows progress", async () => {
    server.cutAfter.push(20_000, 10_000);
    const bytes: number[] = [];
    const source = await resolveModel("someone/model", "model", {
      retryDelaysMs,
      onDownload: (p) => void bytes.push(p.bytes),
    });
    await source.fetch(["v1/model.bin"]);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
    // How much of what was sent arrives before the break is up to the system; each attempt goes on where the last
    // ended.
    const starts = server.downloads.filter(({ path }) => path.startsWith("/large/")).map(startOf);
    expect(starts).toHaveLength(3);
    expect(starts[1]).toBeLessThanOrEqual(20_000);
    expect(starts[2]).toBeLessThanOrEqual(starts[1]! + 10_000);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
    expect(bytes.at(-1)).toBe(50_000);
  });

  it("keeps what it has when the connection breaks for good, and continues another time", async () => {
    server.cutAfter.push(1_000, 0, 0);
    const source = await open();
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(
      /download failed: .*\d+ of 50000 bytes are kept, run again to continue/,
    );
    expect(existsSync(join(source.folder, "v1/model.bin"))).toBe(false);
    const [partial] = readdirSync(join(storage(), "blobs"));
    const kept = statSync(join(storage(), "blobs", partial!)).size;
    await (await open()).fetch(["v1/model.bin"]);
    expect(startOf(server.downloads.at(-1)!)).toBe(kept);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
  });

  it("never takes contents with a wrong hash", async () => {
    server.corrupt = randomBytes(50_000);
    const source = await open();
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(/do not have the hash/);
    expect(existsSync(join(source.folder, "v1/model.bin"))).toBe(false);
    expect(readdirSync(join(storage(), "blobs"))).toEqual([]);
  });

  it("tries again when the Hub is busy", async () => {
    server.failWith.push(503, 429);
    const source = await open();
    server.failWith.push(503);
    await source.fetch(["v1/model.bin"]);
    expect(existsSync(join(source.folder, "v1/model.bin"))).toBe(true);
    // As in Python, what the cache has is not waited for.
    server.failWith.push(500);
    expect((await open()).files).toEqual(["v1/model.bin"]);
    rmSync(storage(), { recursive: true });
    server.failWith.push(500, 500, 500);
    await expect(open()).rejects.toThrow(/HTTP status 500/);
  });

  it("starts again when the storage ignores ranges", async () => {
    server.cutAfter.push(20_000);
    server.ignoresRange = true;
    const source = await open();
    await source.fetch(["v1/model.bin"]);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
  });

  it("stops at once when more arrives than the Hub states", async () => {
    server.corrupt = randomBytes(5_000_000);
    const source = await open();
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(
      /more than the 50000 bytes arrive that the Hub states/,
    );
    expect(readdirSync(join(storage(), "blobs"))).toEqual([]);
  });

  it.each([
    ["<!DOCTYPE html><title>Log in</title>", "a web page, not the file"],
    ["version https://git-lfs.github.com/spec/v1\nsize 50000\n", "a Git LFS pointer, not the file of 50000 bytes"],
  ])("says what came in place of a file, and keeps none of it: %j", async (text, words) => {
    server.corrupt = Buffer.from(text);
    const source = await open();
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(
      `someone/model/v1/model.bin: ${storageOrigin()} sent ${words}`,
    );
    expect(readdirSync(join(storage(), "blobs"))).toEqual([]);
  });

  it.each([
    [403, /answers with HTTP status 403; check whether a proxy or the network forbids it$/],
    [404, /answers with HTTP status 404$/],
    [503, /answers with HTTP status 503$/],
    [204, /did not answer as the Hub does/],
  ])("tells a storage that answers with %i from the Hub, and keeps nothing of it", async (status, words) => {
    server.storageStatus = status;
    const failed = (await open()).fetch(["v1/model.bin"]);
    await expect(failed).rejects.toThrow(words);
    if (status >= 400)
      await expect(failed).rejects.toThrow(
        `someone/model/v1/model.bin: ${storageOrigin()}, which ${server.endpoint} leads to, answers`,
      );
    await expect(failed).rejects.not.toBeInstanceOf(InvalidInputError);
    expect(readdirSync(join(storage(), "blobs"))).toEqual([]);
  });

  it("names the storage that is silent", async () => {
    vi.stubEnv("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    const source = await resolveModel("someone/model", "model", { retryDelaysMs: [] });
    server.stalls = "storage";
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(
      `download failed: ${storageOrigin()} cannot be reached (no answer within 1 s)`,
    );
  });

  it("begins anew where the storage compresses what it sends", async () => {
    server.compresses = true;
    server.cutAfter.push(20_000);
    const source = await open();
    await source.fetch(["v1/model.bin"]);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
    const starts = server.downloads.filter(({ path }) => path.startsWith("/large/")).map(startOf);
    expect(starts.slice(1).filter((start) => start === 0)).toHaveLength(1);
  });

  it("is no mixture of two versions where a mirror states no hash", async () => {
    const [before, after] = [randomBytes(50_000), randomBytes(50_000)];
    const versions = (contents: Buffer, etag: string) => {
      repository.files = { "config.json": Buffer.from("{}"), "model.safetensors": contents };
      server.plainEtag = etag;
    };
    versions(before, "1f-5c");
    server.lacks = /^\/api\//;
    server.cutAfter.push(20_000);
    const source = await resolveModel("someone/model", "model", {
      retryDelaysMs,
      onDownload: () => versions(after, "20-7a"),
    });
    await expect(source.fetch(["model.safetensors"])).rejects.toThrow(
      /model\.safetensors: download failed: it has changed on the server; 0 of 50000 bytes are kept, run again/,
    );
    expect(readdirSync(join(storage(), "blobs"))).toEqual([]);
    await (await open()).fetch(["model.safetensors"]);
    expect(readFileSync(join(source.folder, "model.safetensors"))).toEqual(after);
  });

  it("says when it keeps getting less", async () => {
    server.corrupt = randomBytes(40_000);
    const source = await open();
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(/does not continue|ended at byte|hash/);
    expect(existsSync(join(source.folder, "v1/model.bin"))).toBe(false);
  });

  it("waits as long as a busy Hub asks", async () => {
    server.failWith.push(429, 429);
    server.failureHeaders = { "Retry-After": "1" };
    const start = performance.now();
    await open();
    expect(performance.now() - start).toBeGreaterThan(1_900);
    server.failWith.push(429, 429);
    server.failureHeaders = { "Retry-After": new Date(Date.now() - 1000).toUTCString() };
    await open();
    server.failWith.push(429, 429, 429);
    await expect(open()).rejects.toThrow(/HTTP status 429 \(too many requests\); wait a little, or set HF_TOKEN/);
  });

  it.each([{ "Retry-After": "42.4" }, { RateLimit: '"api";r=0;t=42' }])(
    "says how long a busy Hub asks to wait: %j",
    async (headers) => {
      server.failWith.push(429);
      server.failureHeaders = headers as unknown as Record<string, string>;
      const stop = new AbortController();
      const said: string[] = [];
      const onMessage = (text: string) => {
        said.push(text);
        stop.abort();
      };
      const opened = resolveModel("someone/model", "model", { retryDelaysMs, onMessage, signal: stop.signal });
      await expect(opened).rejects.toMatchObject({ name: "AbortError" });
      expect(said).toEqual([`${server.endpoint} is busy (HTTP status 429); the next attempt is in 42 s`]);
    },
  );

  it("is refused for a token that the Hub does not know, and says that it is the token", async () => {
    server.failureHeaders = { "X-Error-Message": "Invalid credentials in Authorization header" };
    server.failWith.push(401);
    vi.stubEnv("HF_TOKEN", "hf_expired");
    await expect(open()).rejects.toThrow(
      /^model: the Hub does not know the access token of HF_TOKEN .*settings\/tokens/,
    );
  });

  it("that is gated repeats what the Hub says about the access", async () => {
    server.failureHeaders = { "X-Error-Code": "GatedRepo", "X-Error-Message": "Your request awaits a review." };
    server.failWith.push(403);
    await expect(open()).rejects.toThrow(/`hf auth login` \(the Hub says: Your request awaits a review\.\)$/);
  });

  it("that is gated names its page and HF_TOKEN", async () => {
    repository.gated = true;
    await expect(open()).rejects.toThrow(
      /^model: the Hub refuses access to someone\/model \(403\): its owner lets in only .*someone\/model, then set HF_TOKEN/,
    );
    vi.stubEnv("HF_TOKEN", "hf_other");
    await expect(open()).rejects.toThrow(/with the account of your token/);
  });

  it("comes by the proxy that the environment names", async () => {
    vi.stubEnv("HF_ENDPOINT", "http://hub.invalid");
    vi.stubEnv("http_proxy", server.endpoint);
    vi.stubEnv("no_proxy", "");
    const source = await open();
    await source.fetch(["v1/model.bin"]);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
    vi.stubEnv("no_proxy", "hub.invalid");
    rmSync(storage(), { recursive: true });
    await expect(open()).rejects.toThrow(/^someone\/model: http:\/\/hub\.invalid cannot be reached \(/);
  });

  it("goes on when a server stops in the middle and says nothing", async () => {
    vi.stubEnv("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    server.stalls = "contents";
    const source = await open();
    await source.fetch(["v1/model.bin"]);
    expect(server.downloads.filter(({ path }) => path.startsWith("/large/")).map(startOf)).toEqual([0, 1000]);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
  });

  it("is served by a cache in which its commit cannot be noted", async () => {
    await (await open()).fetch(["config.json"]);
    rmSync(join(storage(), "refs"), { recursive: true });
    writeFileSync(join(storage(), "refs"), "");
    const source = await open();
    await source.fetch(["config.json"]);
    expect(readFileSync(join(source.folder, "config.json"), "utf8")).toBe("{}");
  });

  it("says at once that a disk does not take a file, also where it says so late", async () => {
    const full = Object.assign(new Error("EDQUOT"), { code: "EDQUOT", syscall: "fsync" });
    vi.spyOn(fs, "fsync").mockImplementation((_, done) => done(full));
    const source = await open();
    await expect(source.fetch(["v1/model.bin"])).rejects.toThrow(/blobs\/[0-9a-f]{64}: cannot be written: .*quota/);
    expect(server.downloads.filter(({ path }) => path.startsWith("/large/"))).toHaveLength(1);
  });

  it("keeps files of their own where the user wants no links", async () => {
    vi.stubEnv("HF_HUB_DISABLE_SYMLINKS", "yes");
    const source = await open();
    await source.fetch(["v1/model.bin"]);
    expect(lstatSync(join(source.folder, "v1/model.bin")).isFile()).toBe(true);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(repository.files["v1/model.bin"]);
  });

  it("counts files that are fetched together", async () => {
    const seen: DownloadProgress[] = [];
    const source = await resolveModel("someone/model", "model", {
      retryDelaysMs,
      onDownload: (p) => void seen.push(p),
    });
    await source.fetch(source.files);
    const total = Object.values(repository.files).reduce((sum, body) => sum + body.length, 0);
    expect(seen.at(-1)).toMatchObject({ allBytes: total, allTotalBytes: total, fileNumber: 2, fileCount: 2 });
    expect(seen.map(({ allBytes }) => allBytes)).toEqual(seen.map(({ allBytes }) => allBytes).sort((a, b) => a - b));
  });

  it("refuses file names that leave the cache", async () => {
    repository.files["../../evil"] = Buffer.from("x");
    const source = await open();
    expect(source.files).not.toContain("../../evil");
    await expect(source.fetch(["../../evil"])).rejects.toThrow(MiroError);
    expect(existsSync(join(home, "hub", "evil"))).toBe(false);
  });
});

describe("two downloads of one file", () => {
  const inBlobs = () => readdirSync(join(storage(), "blobs"));

  it("in one process send one request", async () => {
    const [a, b] = [await open(), await open()];
    await Promise.all([a.fetch(["v1/model.bin"]), b.fetch(["v1/model.bin"])]);
    expect(server.downloads.filter(({ path }) => path.startsWith("/large/"))).toHaveLength(1);
    expect(inBlobs()).toHaveLength(1);
  });

  it("continue what a killed process left, and leave what a live one writes", async () => {
    const source = await open();
    const body = repository.files["v1/model.bin"]!;
    const hash = createHash("sha256").update(body).digest("hex");
    mkdirSync(join(storage(), "blobs"), { recursive: true });
    const dead = processIdentity().replace(/\d+$/, "1");
    const left = join(storage(), "blobs", `${hash}.miro-${dead}-0123abcd.incomplete`);
    writeFileSync(left, body.subarray(0, 30_000));
    await source.fetch(["v1/model.bin"]);
    expect(server.downloads.filter(({ path }) => path.startsWith("/large/")).map(startOf)).toEqual([30_000]);
    expect(inBlobs()).toEqual([hash]);

    rmSync(join(storage(), "blobs", hash));
    rmSync(join(source.folder, "v1/model.bin"));
    const live = join(storage(), "blobs", `${hash}.miro-${processIdentity()}-0123abcd.incomplete`);
    writeFileSync(live, body.subarray(0, 30_000));
    const count = server.downloads.length;
    const waiting = source.fetch(["v1/model.bin"]);
    await expect.poll(() => existsSync(live)).toBe(true);
    writeFileSync(live, body);
    renameSync(live, join(storage(), "blobs", hash));
    await waiting;
    expect(server.downloads.length).toBe(count);
    expect(readFileSync(join(source.folder, "v1/model.bin"))).toEqual(body);
  });
});

describe("without the Hub", () => {
  it("uses the cache when offline is asked for or the Hub does not answer", async () => {
    await (await open()).fetch(["config.json"]);
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    const count = server.requests.length;
    const offline = await open();
    expect(offline.files).toEqual(["config.json"]);
    await offline.fetch(["config.json"]);
    await expect(offline.fetch(["v1/model.bin"])).rejects.toThrow(/v1\/model\.bin is not in the cache/);
    expect(server.requests.length).toBe(count);
    vi.stubEnv("HF_HUB_OFFLINE", "");
    await server.stop();
    expect((await open()).files).toEqual(["config.json"]);
  });

  it("says so when the cache has nothing", async () => {
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    await expect(open()).rejects.toThrow(/HF_HUB_OFFLINE is set, and the cache has no copy/);
    vi.stubEnv("HF_HUB_OFFLINE", "");
    await server.stop();
    await expect(open()).rejects.toThrow(/cannot be reached \(.*ECONNREFUSED.*\), and the cache has no copy/);
  });

  it("tells folders, repositories and neither apart", async () => {
    await expect(resolveModel("./nowhere", "model")).rejects.toThrow(
      'model: expected a folder or a repository owner/name, received "./nowhere"',
    );
    await expect(resolveModel("a/b/c", "model")).rejects.toThrow(InvalidInputError);
    await expect(resolveModel(fileURLToPath(import.meta.url), "model")).rejects.toThrow(
      /\(a file\); its folder is .*\/loading$/,
    );
  });

  it.each([
    ["https://huggingface.co/me/toy", "; write it as me/toy"],
    ["https://huggingface.co/me/toy.git", "; write it as me/toy"],
    ["https://hf.co/me/toy-1.5/?library=miro", "; write it as me/toy-1.5"],
    ["https://huggingface.co/me/toy/tree/main/sub", "; write it as me/toy"],
    ["https://huggingface.co/me/toy/tree/v1.0", '; write it as me/toy, with `revision: "v1.0"`'],
    ["hf://me/toy", "; write it as me/toy"],
    ["me/toy@refs/pr/1", '; write it as me/toy, with `revision: "refs/pr/1"`'],
    ["https://example.com/me/toy", ""],
    ["me/toy/sub", ""],
  ])("is told from the address %s", async (address, hint) => {
    await expect(resolveModel(address, "model")).rejects.toMatchObject({
      message: `model: expected a folder or a repository owner/name, received "${address}" (neither)${hint}`,
    });
  });

  it("names the folder that a misspelt one may be", async () => {
    mkdirSync(join(home, "runs", "tiny"), { recursive: true });
    await expect(resolveModel(join(home, "runs", "tinny"), "model")).rejects.toThrow(
      /\(neither\); did you mean the folder .*runs\/tiny\?$/,
    );
    // What may be a repository too is asked for first.
    const before = process.cwd();
    process.chdir(home);
    try {
      await expect(resolveModel("runs/tinny", "model")).rejects.toThrow(
        /no repository runs\/tinny with revision main; did you mean the folder runs\/tiny\?$/,
      );
      await expect(resolveModel("runs/other", "model")).rejects.toThrow(/; the folder runs here has no other$/);
      vi.stubEnv("HF_HUB_OFFLINE", "1");
      await expect(resolveModel("runs/tinny", "model")).rejects.toThrow(/; did you mean the folder runs\/tiny\?$/);
    } finally {
      process.chdir(before);
    }
  });
});

describe("a cache that Python filled", () => {
  it("is read offline: refs, blobs, links by either route, notes of files that do not exist", async () => {
    // As huggingface_hub 2.4 leaves it, where a blob may itself be a link into the store that repositories share.
    const body = randomBytes(100);
    const at = (...path: string[]) => join(storage(), ...path);
    for (const folder of [`snapshots/${SHA}`, "blobs", "refs", `.no_exist/${SHA}`])
      mkdirSync(at(folder), { recursive: true });
    mkdirSync(join(home, "hub", "blobs", "ab"), { recursive: true });
    mkdirSync(join(home, "hub", ".locks", "models--someone--model"), { recursive: true });
    writeFileSync(join(home, "hub", "CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n");
    writeFileSync(at("refs", "main"), SHA);
    writeFileSync(at(".no_exist", SHA, "model.safetensors"), "");
    writeFileSync(join(home, "hub", "blobs", "ab", "abcd"), body);
    symlinkSync("../../blobs/ab/abcd", at("blobs", "1234"));
    symlinkSync("../../blobs/1234", at("snapshots", SHA, "config.json"));
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    const source = await open();
    expect(source.files).toEqual(["config.json"]);
    await source.fetch(["config.json"]);
    expect(readFileSync(join(source.folder, "config.json"))).toEqual(body);
    // The same snapshot as a plain folder.
    const folder = await resolveModel(source.folder, "model");
    await folder.fetch(["config.json"]);
    expect(existsSync(at(".no_exist", SHA, "model.safetensors"))).toBe(true);
  });
});

describe("a folder", () => {
  it("must not link to files outside of it", async () => {
    const folder = join(home, "checkpoint");
    mkdirSync(folder);
    writeFileSync(join(home, "secret"), "s");
    symlinkSync("../secret", join(folder, "config.json"));
    mkdirSync(join(folder, "real"));
    writeFileSync(join(folder, "real", "a"), "a");
    symlinkSync("real/a", join(folder, "inside"));
    symlinkSync(home, join(folder, "vae"));
    const source = await resolveModel(folder, "model");
    await source.fetch(["inside", "real/a"]);
    await expect(source.fetch(["config.json"])).rejects.toThrow(
      /^model: .*config\.json is a link out of the folder, to .*secret/,
    );
    await expect(source.fetch(["vae/secret"])).rejects.toThrow(/link out of the folder/);
    // A link to the folder itself is the user's own.
    symlinkSync(folder, join(home, "alias"));
    await (await resolveModel(join(home, "alias"), "model")).fetch(["inside"]);
  });
});

describe("a pipeline from the Hub", () => {
  it("offers upstream's main model and fifteen ablations, with their rewards, and fetches the one that is asked for", async () => {
    const files: Record<string, Record<string, Buffer>> = { [MAIN_REPOSITORY]: {}, [ABLATIONS_REPOSITORY]: {} };
    for (const { repository: name, variant, rewards } of RELEASES) {
      const folder = join(home, `made-${rewards.join("-")}`);
      if (!existsSync(folder)) writeTinyRelease(folder, rewards);
      const prefix = variant ? `${variant}/` : "";
      for (const file of readdirSync(folder)) files[name]![prefix + file] = readFileSync(join(folder, file));
      files[name]![`${prefix}teaser.jpg`] = files[name]![`${prefix}README.md`] = Buffer.from("");
    }
    for (const [name, own] of Object.entries(files)) server.repositories[name] = { sha: SHA, files: own };
    const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
    const local = { textEncoder: join(tiny, "text_encoder"), vae: join(tiny, "vae"), dtype: "float32" as const };
    const variants = RELEASES.flatMap(({ variant }) => variant ?? []);
    expect(variants).toHaveLength(15);
    await expect(MiroPipeline.fromPretrained(ABLATIONS_REPOSITORY, local)).rejects.toThrow(
      `choose one of its variants: ${[...variants].sort().join(", ")}`,
    );
    for (const { repository: name, variant, rewards } of RELEASES) {
      const pipe = await MiroPipeline.fromPretrained(name, { ...local, variant });
      expect(pipe.coherenceKeys).toEqual(rewards);
      const lacks = REWARD_KEYS.find((key) => !rewards.includes(key));
      if (lacks) {
        await expect(pipe.generate("a cat", { steps: 1, rewardTargets: { [lacks]: 1 } })).rejects.toThrow(
          `rewardTargets: this checkpoint was not trained on ${lacks}; its rewards are ${rewards.join(", ")}`,
        );
      }
      await pipe.dispose();
    }
    const fetched = server.downloads.filter(({ path }) => path.includes("/resolve/")).map(({ path }) => path);
    expect(fetched).toHaveLength(3 * RELEASES.length);
    expect(fetched.some((path) => /teaser|README/.test(path))).toBe(false);
  });

  it("takes a text encoder in FLAN-T5's published layout: only shards with tensors of the encoder, of them only those", async () => {
    const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
    const made = join(home, "flan");
    mkdirSync(made);
    const shards = [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`);
    const weight_map: Record<string, string> = {};
    scope(() => {
      const encoder = [...readSafetensors(join(tiny, "text_encoder", "model.safetensors"))];
      // A decoder of NaN: whoever reads it notices.
      const decoder = ["layer.0.SelfAttention.q", "layer.1.EncDecAttention.k", "layer.2.DenseReluDense.wo"].map(
        (name) => [`decoder.block.0.${name}.weight`, full([48, 48], Number.NaN)] as const,
      );
      const parts = [
        encoder.slice(0, 9),
        [...encoder.slice(9), decoder[0]!],
        [...decoder.slice(1), ["lm_head.weight", decoder[0]![1]] as const],
      ];
      for (const [i, part] of parts.entries()) {
        writeSafetensors(join(made, shards[i]!), new Map(part), { format: "pt" });
        for (const [name] of part) weight_map[name] = shards[i]!;
      }
    });
    const files = Object.fromEntries(readdirSync(made).map((name) => [name, readFileSync(join(made, name))]));
    for (const name of ["config.json", "tokenizer.json"]) files[name] = readFileSync(join(tiny, "text_encoder", name));
    files["model.safetensors.index.json"] = Buffer.from(JSON.stringify({ metadata: { total_size: 1 }, weight_map }));
    files["pytorch_model.bin.index.json"] = files["tf_model.h5"] = files["README.md"] = Buffer.from("");
    server.repositories["someone/flan"] = { sha: SHA, files };
    const load = (textEncoder: string) =>
      MiroPipeline.fromPretrained(join(tiny, "checkpoint"), { dtype: "float32", textEncoder, vae: join(tiny, "vae") });
    const [local, remote] = [await load(join(tiny, "text_encoder")), await load("someone/flan")];
    expect(server.downloads).toEqual([]); // asked for when a text is to be encoded
    const [a, b] = [await local.encodePrompt("a red fox"), await remote.encodePrompt("a red fox")];
    expect(b.embeddings.toList()).toEqual(a.embeddings.toList());
    for (const { embeddings } of [a, b]) embeddings.dispose();
    await Promise.all([local.dispose(), remote.dispose()]);
    const fetched = server.downloads.map(({ path }) => path).filter((path) => path.includes("/resolve/"));
    expect(fetched.map((path) => path.split("/").at(-1)).sort()).toEqual(
      ["config.json", "model.safetensors.index.json", "tokenizer.json", ...shards.slice(0, 2)].sort(),
    );

    server.repositories["someone/pickled"] = {
      sha: SHA,
      files: {
        "config.json": files["config.json"]!,
        "tokenizer.json": files["tokenizer.json"]!,
        "pytorch_model.bin": Buffer.from("x"),
      },
    };
    const pickled = await load("someone/pickled");
    await expect(pickled.encodePrompt("a fox")).rejects.toThrow(
      /^textEncoder: someone\/pickled holds its weights as pytorch_model\.bin only, which can run code/,
    );
    await pickled.dispose();
  });

  it("draws with a variant, its own text encoder and another repository's autoencoder", async () => {
    const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
    const read = (folder: string, prefix: string) =>
      Object.fromEntries(
        readdirSync(join(tiny, folder)).map((name) => [`${prefix}${name}`, readFileSync(join(tiny, folder, name))]),
      );
    server.repositories["someone/variants"] = {
      sha: SHA,
      files: {
        ...read("checkpoint", "small/"),
        ...read("text_encoder", "small/text_encoder/"),
        "README.md": Buffer.from(""),
      },
    };
    server.repositories["someone/vae"] = { sha: SHA, files: read("vae", "") };
    const load = (variant?: string) =>
      MiroPipeline.fromPretrained("someone/variants", { variant, vae: "someone/vae", dtype: "float32" });
    await expect(load()).rejects.toThrow(/not a checkpoint: .*choose one of its variants: small/);
    await expect(load("../x")).rejects.toThrow(/has no variant "..\/x"; it has small/);
    const pipe = await load("small");
    const result = await pipe.generate("a cat", { steps: 1 });
    expect(result.images[0]!.settings).toMatchObject({ model: "someone/variants", variant: "small" });
    await pipe.dispose();
    expect(server.downloads.some(({ path }) => path.endsWith("README.md"))).toBe(false);
  });
});
