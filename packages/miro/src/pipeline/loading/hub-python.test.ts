/**
 * The same troubles for Python's `huggingface_hub` and for this package, on the same stand-in server: what the cache
 * held before, what the server does, and whether the file comes from the cache, from the server, or not at all.
 * Python's answers stand in the table; where its library is installed (`MIRO_PYTHON`, by default `python3`), it is
 * asked again.
 */
import { execFile, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { resolveModel } from "./hub.js";
import { HubServer, type TestRepository } from "./testing/hub-server.js";

const OLD = "a".repeat(40);
const NEW = "b".repeat(40);
const FILE = "model.bin";
const contents = (seed: string) => Buffer.from(seed.repeat(2000));

type Outcome = "old copy" | "new copy" | "error";

interface Case {
  what: string;
  /** Makes the trouble; the cache holds the old commit's file when `cached`. */
  trouble(server: HubServer, repository: TestRepository, storage: string): void;
  cached: boolean;
  python: Outcome;
  /** Where this package does better than Python. */
  ours?: Outcome;
  environment?: Record<string, string>;
}

const sha256 = (body: Buffer) => createHash("sha256").update(body).digest("hex");
const always = (status: number) => Array.from({ length: 40 }, () => status);

const CASES: Case[] = [
  { what: "nothing wrong, nothing cached", cached: false, python: "new copy", trouble: () => {} },
  { what: "nothing wrong, an older commit cached", cached: true, python: "new copy", trouble: () => {} },
  ...[401, 403, 404, 429, 500, 502, 503].map(
    (status): Case => ({
      what: `status ${status}, an older commit cached`,
      cached: true,
      python: "old copy",
      trouble: (server) => void server.failWith.push(...always(status)),
    }),
  ),
  {
    what: "status 401, nothing cached",
    cached: false,
    python: "error",
    trouble: (server) => void server.failWith.push(...always(401)),
  },
  {
    what: "the repository is gated, an older commit cached",
    cached: true,
    python: "old copy",
    trouble: (_, repository) => {
      repository.gated = true;
    },
  },
  {
    what: "the repository is gone, an older commit cached",
    cached: true,
    python: "old copy",
    trouble: (server) => delete server.repositories["someone/model"],
  },
  {
    what: "the server never answers, an older commit cached",
    cached: true,
    python: "old copy",
    environment: { HF_HUB_ETAG_TIMEOUT: "1" },
    trouble: (server) => {
      server.stalls = "answers";
    },
  },
  {
    what: "the server knows the addresses of files alone",
    cached: false,
    python: "new copy",
    trouble: (server) => {
      server.lacks = /^\/api\//;
    },
  },
  {
    what: "the server has no route for information about paths",
    cached: false,
    python: "new copy",
    trouble: (server) => {
      server.lacks = /paths-info/;
    },
  },
  {
    what: "a portal answers with a page, an older commit cached",
    cached: true,
    python: "old copy",
    trouble: (server) => {
      server.portal = "<!DOCTYPE html><title>Log in</title>";
    },
  },
  {
    what: "a portal answers with a page, nothing cached",
    cached: false,
    python: "error",
    trouble: (server) => {
      server.portal = "<!DOCTYPE html><title>Log in</title>";
    },
  },
  {
    what: "offline, cached",
    cached: true,
    python: "old copy",
    environment: { HF_HUB_OFFLINE: "on" },
    trouble: () => {},
  },
  {
    what: "offline, the link leads nowhere",
    cached: true,
    python: "error",
    environment: { HF_HUB_OFFLINE: "1" },
    trouble: (_server, _repository, storage) => rmSync(join(storage, "blobs"), { recursive: true }),
  },
  {
    what: "offline, the revision's commit has no snapshot",
    cached: true,
    python: "error",
    environment: { HF_HUB_OFFLINE: "1" },
    trouble: (_server, _repository, storage) => writeFileSync(join(storage, "refs", "main"), "c".repeat(40)),
  },
  {
    what: "the blob is gone, the server has the same commit",
    cached: true,
    python: "old copy",
    trouble: (_server, repository, storage) => {
      repository.sha = OLD;
      repository.files[FILE] = contents("old");
      rmSync(join(storage, "blobs"), { recursive: true });
    },
  },
  {
    what: "the snapshot is gone and the blob was cut",
    cached: true,
    python: "error", // it hands out the blob as it is
    ours: "old copy",
    trouble: (_server, repository, storage) => {
      repository.sha = OLD;
      repository.files[FILE] = contents("old");
      rmSync(join(storage, "snapshots"), { recursive: true });
      truncateSync(join(storage, "blobs", sha256(contents("old"))), 100);
    },
  },
  {
    what: "a note says that the file does not exist",
    cached: true,
    python: "new copy",
    trouble: (_server, _repository, storage) => {
      mkdirSync(join(storage, ".no_exist", NEW), { recursive: true });
      writeFileSync(join(storage, ".no_exist", NEW, FILE), "");
    },
  },
];

const python = process.env.MIRO_PYTHON || "python3";
const library = spawnSync(python, ["-c", "import huggingface_hub as h; print(h.__version__)"], { encoding: "utf8" });
const PYTHON = `
import sys
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import _http
_http.time.sleep = lambda _: None
print(hf_hub_download("someone/model", ${JSON.stringify(FILE)}))
`;

let home: string;
let server: HubServer;
let repository: TestRepository;
beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "miro-hub-"));
  repository = { sha: NEW, files: { "config.json": Buffer.from("{}"), [FILE]: contents("new") } };
  server = await new HubServer({ "someone/model": repository }).start();
  for (const name of Object.keys(process.env)) {
    if (/^(HF_|HUGGING|TRANSFORMERS_)|_proxy$/i.test(name)) vi.stubEnv(name, undefined);
  }
  vi.stubEnv("HF_HOME", home);
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
  vi.stubEnv("HF_HUB_DISABLE_XET", "1");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  rmSync(home, { recursive: true, force: true });
});

function prepare({ cached, trouble, environment = {} }: Case): void {
  const storage = join(home, "hub", "models--someone--model");
  if (cached) {
    for (const folder of ["blobs", "refs", `snapshots/${OLD}`]) mkdirSync(join(storage, folder), { recursive: true });
    const blob = sha256(contents("old"));
    writeFileSync(join(storage, "blobs", blob), contents("old"));
    writeFileSync(join(storage, "refs", "main"), OLD);
    symlinkSync(`../../blobs/${blob}`, join(storage, "snapshots", OLD, FILE));
  }
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  trouble(server, repository, storage);
}

function outcome(path: string | null): Outcome {
  const body = path !== null && existsSync(path) ? readFileSync(path) : null;
  return body?.equals(contents("old")) ? "old copy" : body?.equals(contents("new")) ? "new copy" : "error";
}

/** A mirror without lists is asked for the names that models have. */
async function fetchHere(): Promise<string | null> {
  try {
    const source = await resolveModel("someone/model", "model", { retryDelaysMs: [1] });
    await source.fetch([FILE]);
    return join(source.folder, FILE);
  } catch {
    return null;
  }
}

describe("in trouble a file comes from where Python takes it", () => {
  it.each(CASES)("$what", async (given) => {
    prepare(given);
    expect(outcome(await fetchHere())).toBe(given.ours ?? given.python);
  });
});

describe.skipIf(library.status !== 0)("huggingface_hub, where $MIRO_PYTHON has it, answers as the table says", () => {
  it.each(CASES)(
    "$what",
    async (given) => {
      prepare(given);
      const path = await new Promise<string | null>((resolve) => {
        const done = (error: unknown, stdout: string) => resolve(error ? null : stdout.trim());
        execFile(python, ["-c", PYTHON], { env: process.env, encoding: "utf8" }, done);
      });
      expect(outcome(path)).toBe(given.python);
    },
    60_000,
  );
});
