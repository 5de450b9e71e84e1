/** What the server does with requests that mean no good: every route with bodies made from its own schema, and more. */

import { request } from "node:http";
import { connect } from "node:net";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Studio } from "./studio.js";
import { TinyStudios } from "./testing/tiny-studio.js";

const studios = new TinyStudios();
let studio: Studio;
/** A route as the description has it. */
interface Route {
  method: string;
  path: string;
  fields: string[];
}
let routes: Route[];
const KEY = "correct-horse-battery";

beforeAll(async () => {
  studio = await studios.start({ models: [studios.model()], maxImages: 2, queue: 4, key: KEY });
  const { paths } = (await (await ask("GET", "/openapi.json")).json()) as {
    paths: Record<string, Record<string, any>>;
  };
  routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      ...{ method: method.toUpperCase(), path },
      fields: Object.keys(operation.requestBody?.content["application/json"]?.schema?.properties ?? {}),
    })),
  );
});
afterAll(() => studios.end());

const ask = (method: string, path: string, body?: string | Uint8Array, type = "application/json") =>
  fetch(studio.url + path, {
    ...{ method, headers: { authorization: `Bearer ${KEY}`, ...(body !== undefined && { "content-type": type }) } },
    ...(body !== undefined && { body: body as string }),
  });
const alive = async () => expect((await fetch(`${studio.url}/health`)).status).toBe(200);
/** A path with its parameters filled in. */
const filled = (path: string, id: string) => path.replace(/\{[^}]+\}/g, encodeURIComponent(id)).replace("*", id);

describe("every route", () => {
  it("answers bodies of its own fields with wrong values by a refusal, never by a failure", async () => {
    const withBody = routes.filter(({ fields }) => fields.length > 0);
    expect(withBody.map(({ path }) => path)).toEqual(
      expect.arrayContaining(["/api/jobs", "/api/sweeps", "/v1/images/generations", "/sdapi/v1/img2img"]),
    );
    const value = fc.oneof(
      fc.constantFrom(
        null,
        "",
        "0",
        -1,
        0.5,
        1e308,
        2 ** 53,
        "a".repeat(5000),
        "__proto__",
        "../../etc/passwd",
        "AAAA",
      ),
      fc.jsonValue({ maxDepth: 3 }),
    );
    const bodies = fc.constantFrom(...withBody).chain(({ method, path, fields }) =>
      fc.record({
        method: fc.constant(method),
        path: fc.constant(path),
        // An unknown sampler or field keeps a body that happens to be right from being drawn.
        body: fc.dictionary(fc.constantFrom(...fields), value, { maxKeys: 6 }).map((body) => ({
          ...body,
          ...(path.startsWith("/sdapi") ? { sampler_name: "no sampler", image: 0 } : { sampler: "no sampler" }),
        })),
      }),
    );
    await fc.assert(
      fc.asyncProperty(bodies, async ({ method, path, body }) => {
        const answer = await ask(method, filled(path, "job-0"), JSON.stringify(body));
        expect(answer.status).toBeLessThan(500);
        expect(answer.headers.get("content-type")).toMatch(/json/);
        await answer.text();
      }),
      { numRuns: 300 },
    );
    await alive();
  });

  it("refuses bodies that are no JSON, too large, of another type, or cut, in its own form", async () => {
    for (const { method, path } of routes.filter((route) => route.fields.length > 0)) {
      const at = filled(path, "x");
      for (const body of ["{", "[]", "null", '"a"', "\0", '{"__proto__": {"prompt": "a"}}', "1".repeat(70_000)]) {
        const answer = await ask(method, at, body);
        expect([path, body.slice(0, 10), answer.status >= 400 && answer.status < 500]).toEqual([
          ...[path, body.slice(0, 10), true],
        ]);
        const told = (await answer.json()) as { error: unknown };
        expect(told.error).toBeDefined();
      }
      expect((await ask(method, at, "<a/>", "text/xml")).status).toBe(415);
      for (const [type, form] of [
        ["multipart/form-data", "x"],
        [
          "multipart/form-data; boundary=a",
          '--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ncut',
        ],
        ["multipart/form-data; boundary=a", "--a\r\n\r\n--a--"],
      ] as const) {
        const answer = await ask(method, at, form, type);
        expect([path, answer.status >= 400 && answer.status < 500]).toEqual([path, true]);
        await answer.text();
      }
      expect((await ask(method, at, new Uint8Array(33 * 2 ** 20))).status).toBe(413);
    }
  });

  it("knows no ids that lead elsewhere, and no methods but its own", async () => {
    const ids = [
      "../../etc/passwd",
      "%2e%2e%2f",
      "\0",
      "a\nb",
      "job-../x",
      "__proto__",
      "constructor",
      "é".repeat(300),
    ];
    for (const { method, path } of routes.filter(({ path }) => path.includes("{") || path.includes("*")))
      for (const id of ids) {
        const answer = await ask(method, filled(path, id), method === "PATCH" ? '{"favourite":true}' : undefined);
        expect([method, path, id, answer.status < 500 && answer.status >= 400]).toEqual([method, path, id, true]);
        expect(await answer.text()).not.toMatch(/root:|node_modules|\bat .*\.js:/);
      }
    const { hostname, port } = new URL(studio.url);
    const headers = { authorization: `Bearer ${KEY}` };
    // As it stands: an address that `fetch` would have made shorter.
    for (const path of [
      "/../../etc/passwd",
      "/assets/../../package.json",
      "/api/pictures/../../../etc/passwd",
      "//etc/passwd",
    ])
      expect([403, 404]).toContain(
        await new Promise<number>((resolve, reject) =>
          request({ hostname, port, path, headers }, (answer) => resolve(answer.resume().statusCode!))
            .on("error", reject)
            .end(),
        ),
      );
    for (const method of ["PUT", "DELETE", "PATCH"]) expect((await ask(method, "/api/jobs", "{}")).status).toBe(404);
  });
});

describe("strangers", () => {
  const plain = (headers: Record<string, string>, path = "/api/jobs", method = "POST") =>
    new Promise<number>((resolve, reject) =>
      request(studio.url + path, { method, headers }, (answer) => resolve(answer.resume().statusCode!))
        .on("error", reject)
        .end(method === "POST" ? '{"prompt":"a cat"}' : undefined),
    );

  it("come by another name (DNS rebinding), from another origin, or without the key", async () => {
    const json = { "content-type": "application/json", authorization: `Bearer ${KEY}` };
    const { port } = new URL(studio.url);
    for (const host of [
      "evil.example",
      `evil.example:${port}`,
      "127.0.0.1.evil.example",
      "localhost.evil.example",
      "[::2]",
    ])
      expect([host, await plain({ ...json, host })]).toEqual([host, 403]);
    for (const origin of ["http://evil.example", "null", `http://localhost.evil.example:${port}`, "http://127.0.0.1:1"])
      for (const path of ["/api/jobs", "/v1/images/generations", "/sdapi/v1/txt2img"])
        expect([origin, await plain({ ...json, origin }, path)]).toEqual([origin, 403]);
    // What a form of another page can send without asking.
    expect(await plain({ "content-type": "text/plain", origin: "http://evil.example" })).toBe(403);
    for (const authorization of [
      "",
      "Bearer",
      "Bearer ",
      KEY,
      `Basic ${KEY}`,
      `Bearer ${KEY} `.repeat(2),
      `bearer ${KEY}x`,
    ])
      for (const path of [
        "/api/jobs",
        "/v1/images/generations",
        "/sdapi/v1/txt2img",
        "/metrics",
        "/docs",
        "/openapi.json",
      ])
        expect([authorization, path, await plain({ authorization }, path, "GET")]).toEqual([authorization, path, 401]);
  });

  it("that break off or send no HTTP leave nothing behind", async () => {
    const { hostname, port } = new URL(studio.url);
    for (const text of [
      "\0\0\0\0",
      "GET / HTTP/1.1\r\n",
      `POST /api/jobs HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAuthorization: Bearer ${KEY}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"pro`,
      `GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    ]) {
      const socket = connect(Number(port), hostname);
      socket.on("error", () => {});
      await new Promise<void>((resolve) => socket.write(text, () => resolve()));
      socket.destroy();
    }
    await alive();
    expect(studio.queue.waiting + studio.queue.running).toBe(0);
  });
});

describe("secrets", () => {
  it("stand neither in answers nor in what the server writes", async () => {
    const written: string[] = [];
    const spy = (name: "stdout" | "stderr") =>
      vi.spyOn(process[name], "write").mockImplementation((text) => {
        written.push(String(text));
        return true;
      });
    const spies = [spy("stdout"), spy("stderr")];
    // A failure of the server's own, which it writes about.
    const list = vi.spyOn(studio.gallery, "list").mockImplementation(() => {
      throw new Error(`the disk at ${studio.options.output} is gone`);
    });
    try {
      const answer = await ask("GET", `/api/pictures?q=${KEY}`);
      expect(answer.status).toBe(500);
      expect(await answer.json()).toEqual({ error: { message: "an error in the server" } });
      for (const path of ["/openapi.json", "/metrics", "/api/models", "/docs"])
        expect(await (await ask("GET", path)).text()).not.toContain(KEY);
    } finally {
      list.mockRestore();
      for (const one of spies) one.mockRestore();
    }
    expect(written.join("")).toContain("is gone");
    expect(written.join("")).not.toContain(KEY);
  });
});
