/** The guard alone, before a server that has nothing else. */
import { timingSafeEqual } from "node:crypto";
import fastify from "fastify";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { type AccessOptions, guard } from "./security.js";

vi.mock("node:crypto", async (original) => {
  const crypto = await original<typeof import("node:crypto")>();
  return { ...crypto, timingSafeEqual: vi.fn(crypto.timingSafeEqual) };
});
const compared = vi.mocked(timingSafeEqual);
beforeEach(() => {
  compared.mockClear();
});

const KEY = "correct-horse-battery";
const HOST = "127.0.0.1:7860";

function guarded(options: Partial<AccessOptions> = {}) {
  const app = fastify();
  guard(app, { host: "127.0.0.1", allowOrigins: [], ...options }, (path) => path === "/");
  for (const path of ["/", "/health", "/api/jobs"]) app.get(path, async () => "there");
  app.post("/api/jobs", async () => "drawn");
  return (method: "GET" | "POST" | "OPTIONS", url: string, headers: Record<string, string> = {}) =>
    app.inject({ method, url, headers: { host: HOST, ...headers } });
}

describe("the key", () => {
  it("is compared in constant time, whatever is given and however long it is", async () => {
    const ask = guarded({ key: KEY });
    for (const [given, status] of [
      [KEY, 200],
      [`${KEY}x`, 401],
      [KEY.slice(0, -1), 401],
      ["x", 401],
      ["x".repeat(5000), 401],
      ["schlüssel", 401],
    ] as const) {
      compared.mockClear();
      const answer = await ask("GET", "/api/jobs", { authorization: `Bearer ${given}` });
      expect([given.slice(0, 30), answer.statusCode]).toEqual([given.slice(0, 30), status]);
      expect(compared.mock.calls.map((buffers) => buffers.map(({ byteLength }) => byteLength))).toEqual([[32, 32]]);
    }
  });

  it("is wanted of everything but the page and /health", async () => {
    const ask = guarded({ key: KEY });
    expect((await ask("GET", "/")).statusCode).toBe(200);
    expect((await ask("GET", "/health")).statusCode).toBe(200);
    for (const path of ["/api/jobs", "/health/", "/healthx", "//", "/index.html/../api/jobs", "/nothing"])
      expect([path, (await ask("GET", path)).statusCode]).toEqual([path, 401]);
  });
});

describe("pages of other origins", () => {
  it("may neither ask nor read, also where the browser asks for leave first", async () => {
    const ask = guarded({ allowOrigins: ["https://app.example"] });
    for (const origin of [
      "http://evil.example",
      "null",
      "https://app.example.evil",
      "http://app.example",
      `ftp://${HOST}`,
    ])
      for (const method of ["GET", "POST", "OPTIONS"] as const) {
        const answer = await ask(method, "/api/jobs", { origin });
        expect([origin, method, answer.statusCode]).toEqual([origin, method, 403]);
        expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
      }
    expect((await ask("POST", "/api/jobs", { origin: `http://${HOST}` })).statusCode).toBe(200);
    const leave = await ask("OPTIONS", "/api/jobs", { origin: "https://app.example" });
    expect([leave.statusCode, leave.headers["access-control-allow-origin"]]).toEqual([204, "https://app.example"]);
    expect(leave.headers["access-control-allow-credentials"]).toBeUndefined();
  });

  it("that are allowed may send headers of their own, and read where a job is and when to come again", async () => {
    const ask = guarded({ key: KEY, allowOrigins: ["https://app.example"] });
    const origin = "https://app.example";
    const wanted = "authorization, idempotency-key, x-stainless-os";
    const leave = await ask("OPTIONS", "/api/jobs", { origin, "access-control-request-headers": wanted });
    expect(leave.headers["access-control-allow-headers"]).toBe(wanted);
    const answer = await ask("POST", "/api/jobs", { origin, authorization: `Bearer ${KEY}` });
    expect([answer.statusCode, answer.headers["access-control-expose-headers"]]).toEqual([
      200,
      "location, retry-after",
    ]);
    // A cache must not give a page what another way of asking left there.
    for (const headers of [undefined, { origin }])
      expect((await ask("GET", "/", headers)).headers.vary).toBe("Origin, Referer");
    expect((await guarded()("GET", "/")).headers.vary).toBeUndefined();
  });

  it("that are allowed may show pictures, which browsers ask for by their page alone", async () => {
    const ask = guarded({ allowOrigins: ["https://app.example"] });
    for (const [referer, policy] of [
      ["https://app.example/", "cross-origin"],
      ["https://app.example/a/page?q", "cross-origin"],
      ["https://app.example.evil/", "same-origin"],
      ["http://evil.example/https://app.example/", "same-origin"],
      ["no address", "same-origin"],
    ] as const) {
      const { headers } = await ask("GET", "/", { referer });
      expect([referer, headers["cross-origin-resource-policy"]]).toEqual([referer, policy]);
      expect(headers["access-control-allow-origin"]).toBeUndefined();
    }
  });

  it("are not led here by a name of their own (DNS rebinding)", async () => {
    const ask = guarded();
    for (const host of [
      "evil.example",
      "evil.example:7860",
      "127.0.0.1.evil.example",
      "localhost@evil.example",
      "[::2]",
    ])
      expect([host, (await ask("POST", "/api/jobs", { host, origin: `http://${host}` })).statusCode]).toEqual([
        host,
        403,
      ]);
    for (const host of ["localhost:7860", "127.0.0.1", "[::1]:7860"])
      expect([host, (await ask("POST", "/api/jobs", { host })).statusCode]).toEqual([host, 200]);
  });
});

it("every answer, refusals too, forbids frames, foreign scripts and guessed types", async () => {
  const ask = guarded({ key: KEY });
  for (const answer of [
    await ask("GET", "/"),
    await ask("GET", "/api/jobs"),
    await ask("GET", "/", { host: "evil.example" }),
    await ask("GET", "/nothing", { authorization: `Bearer ${KEY}` }),
  ]) {
    const policy = String(answer.headers["content-security-policy"]);
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/unsafe|\*|https?:/);
    expect(answer.headers["x-content-type-options"]).toBe("nosniff");
    expect(answer.headers["referrer-policy"]).toBe("no-referrer");
  }
});

it("pages that may show this one in a frame are named by their origins; others still may not", async () => {
  const ask = guarded({ key: KEY, allowFrames: ["https://hub.example/spaces/fox", "http://127.0.0.1:3000"] });
  for (const answer of [await ask("GET", "/"), await ask("GET", "/", { host: "evil.example" })]) {
    const policy = String(answer.headers["content-security-policy"]);
    expect(policy.split("; ").at(-1)).toBe("frame-ancestors https://hub.example http://127.0.0.1:3000");
    // An old header without a list, which would forbid them all.
    expect(answer.headers["x-frame-options"]).toBeUndefined();
  }
  expect((await guarded()("GET", "/")).headers["x-frame-options"]).toBe("DENY");
});
