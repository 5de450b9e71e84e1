/** What the server does with requests that mean no good: every route with bodies made from its own schema, and more. */
import { request } from "node:http";
import { connect } from "node:net";
import { deflateSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodePng, pngChunk } from "../../pictures/png.js";
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
      method: method.toUpperCase(),
      path,
      fields: Object.keys(operation.requestBody?.content["application/json"]?.schema?.properties ?? {}),
    })),
  );
});
afterAll(() => studios.end());

const ask = (method: string, path: string, body?: string | Uint8Array, type = "application/json") =>
  fetch(studio.url + path, {
    method,
    headers: { authorization: `Bearer ${KEY}`, ...(body !== undefined && { "content-type": type }) },
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

  it("answers forms with wrong fields, and questions with wrong values, by a refusal as well", async () => {
    const { fields } = routes.find(({ path }) => path === "/v1/images/generations")!;
    const word = fc.oneof(
      fc.string({ maxLength: 50 }),
      fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value)),
      fc.constantFrom("-1", "NaN", "1e999", "[", "{}", "\0", "../../etc/passwd", "a".repeat(3000)),
    );
    const names = fc.oneof(
      fc.constantFrom(...fields, ...fields.map((name) => `${name}[]`), "rewardTargets[clip_score]", "__proto__[a]"),
      fc.string({ minLength: 1, maxLength: 20 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.dictionary(names, word, { maxKeys: 6, noNullPrototype: true }), async (given) => {
        const form = new FormData();
        for (const [name, value] of Object.entries(given)) form.append(name, value);
        form.set("sampler", "no sampler");
        form.append("image", new Blob([Uint8Array.from(encodePng(new Uint8Array(3), 1, 1))]), "a.png");
        const headers = { authorization: `Bearer ${KEY}` };
        const answer = await fetch(`${studio.url}/v1/images/edits`, { method: "POST", headers, body: form });
        expect(answer.status).toBeGreaterThanOrEqual(400);
        expect(answer.status).toBeLessThan(500);
        expect(await answer.json()).toMatchObject({ error: { type: "invalid_request_error" } });
      }),
      { numRuns: 100 },
    );
    const asked = ["q", "model", "favourite", "cursor", "limit", "status", "quality", "reward.clip_score>"];
    const lists = ["/api/pictures", "/api/jobs", "/api/pictures/0.webp", "/sdapi/v1/progress", "/v1/models"];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...lists),
        fc.array(fc.tuple(fc.constantFrom(...asked), word), { maxLength: 4 }),
        async (path, query) => {
          const answer = await ask("GET", `${path}?${new URLSearchParams(query)}`);
          expect([path, query, answer.status < 500]).toEqual([path, query, true]);
          await answer.text();
        },
      ),
      { numRuns: 200 },
    );
  });

  it("takes a body of no bytes for none, whatever its type is called", async () => {
    for (const { method, path } of routes.filter((route) => route.method !== "GET")) {
      const [answer, plain] = await Promise.all([ask(method, filled(path, "x"), ""), ask(method, filled(path, "x"))]);
      expect([method, path, answer.status, await answer.text()]).toEqual([
        ...[method, path, plain.status, await plain.text()],
      ]);
    }
    const packed = await fetch(`${studio.url}/api/jobs`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${KEY}`,
        "content-type": "application/json",
        "content-encoding": "gzip",
      },
      body: gzipSync('{"prompt": "a cat"}'),
    });
    expect([packed.status, await packed.json()]).toEqual([
      ...[415, { error: { message: "the body's content-encoding: expected none, received gzip" } }],
    ]);
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
      const foreign = await ask(method, at, "<a/>", "text/xml");
      expect([foreign.status, await foreign.text()]).toEqual([
        415,
        expect.stringMatching(/expected application\/json, received text\/xml/),
      ]);
      for (const [type, form] of [
        ["multipart/form-data", "x"],
        [
          "multipart/form-data; boundary=a",
          '--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ncut',
        ],
        ["multipart/form-data; boundary=a", "--a\r\n\r\n--a--"],
      ] as const) {
        const answer = await ask(method, at, form, type);
        const isTaken = path === "/api/jobs";
        expect([path, answer.status, await answer.text()]).toEqual([
          ...[path, isTaken ? 400 : 415],
          expect.stringMatching(isTaken ? /expected/ : /expected application\/json, received multipart\/form-data/),
        ]);
      }
      const large = await ask(method, at, new Uint8Array(33 * 2 ** 20));
      expect([path, large.status, await large.text()]).toEqual([path, 413, expect.stringMatching(/more than \d+ MiB/)]);
    }
  });

  it("answers what is long or deep in any field shortly, and in words of its own", async () => {
    const deep = (open: string, close: string) => `${open.repeat(50_000)}1${close.repeat(50_000)}`;
    const values = [deep("[", "]"), deep('{"a":', "}"), JSON.stringify("a".repeat(200_000)), "[5]", "true", "-1"];
    for (const { method, path, fields } of routes) {
      for (const name of fields) {
        for (const value of values) {
          // An unknown sampler keeps a body that happens to be right from being drawn.
          const others = path.startsWith("/sdapi") ? '"sampler_name": "none"' : '"sampler": "none"';
          const answer = await ask(method, filled(path, "x"), `{${others}, "${name}": ${value}}`);
          const told = await answer.text();
          const about = [path, name, value.slice(0, 10)];
          expect([...about, answer.status >= 500, told.length > 3000, told.slice(0, 300)]).toEqual([
            ...[...about, false, false],
            expect.not.stringMatching(/Invalid input|Too (?:big|small)|expected expected/),
          ]);
        }
      }
    }
    await alive();
  });

  it("answers addresses that are none in the form of their routes", async () => {
    const native = await (await fetch(`${studio.url}/api/pictures/%ff`)).json();
    expect(native).toEqual({ error: { message: expect.stringContaining("%ff") } });
    const openai = await fetch(`${studio.url}/v1/models/%ff`);
    expect(openai.status).toBe(400);
    expect(await openai.json()).toMatchObject({ error: { type: "invalid_request_error", param: null } });
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

describe("what grows when it is unpacked", () => {
  const png = (...chunks: Uint8Array[]) => {
    const whole = encodePng(new Uint8Array(3), 1, 1);
    // Signature and header of a picture of one pixel, what is put in, and the rest of it.
    return Buffer.concat([whole.subarray(0, 33), ...chunks, whole.subarray(33)]);
  };
  /** A picture whose header says 60,000 x 60,000 pixels, 10 GB of them. */
  const huge = () => {
    const header = Buffer.from([0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60, 8, 2, 0, 0, 0]);
    const pixels = pngChunk("IDAT", deflateSync(new Uint8Array(1000)));
    return Buffer.concat([encodePng(new Uint8Array(3), 1, 1).subarray(0, 8), pngChunk("IHDR", header), pixels]);
  };
  const form = (name: string, bytes: Uint8Array, fields: Record<string, string> = {}) => {
    const body = new FormData();
    for (const [key, value] of Object.entries(fields)) body.append(key, value);
    body.append(name, new Blob([Uint8Array.from(bytes)], { type: "image/png" }), "a.png");
    return body;
  };
  const send = (path: string, body: FormData | Uint8Array | string, more: Record<string, string> = {}) =>
    fetch(studio.url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, ...more },
      body: body as FormData,
    });

  it("is refused before: pictures of every route by their headers", async () => {
    const bytes = huge();
    const base64 = bytes.toString("base64");
    const job = { prompt: "a cat", strength: 0.5 };
    const type = { "content-type": "application/json" };
    const answers = {
      json: await send("/api/jobs", JSON.stringify({ ...job, image: base64 }), type),
      mask: await send("/api/jobs", JSON.stringify({ ...job, image: png().toString("base64"), mask: base64 }), type),
      form: await send("/api/jobs", form("image", bytes, { request: JSON.stringify(job) })),
      edits: await send("/v1/images/edits", form("image", bytes, { prompt: "a cat" })),
      img2img: await send("/sdapi/v1/img2img", JSON.stringify({ prompt: "a cat", init_images: [base64] }), type),
    };
    for (const [name, answer] of Object.entries(answers)) {
      expect([name, answer.status]).toEqual([name, name === "img2img" ? 422 : 400]);
      expect(await answer.text()).toMatch(/pixels|large/i);
    }
    expect(studio.queue.waiting + studio.queue.running).toBe(0);
  });

  it("is refused before: texts in pictures, and bodies", async () => {
    const zeros = deflateSync(new Uint8Array(64 * 2 ** 20)); // 64 MiB in 64 KiB
    const text = pngChunk("zTXt", Buffer.concat([Buffer.from("miro\0\0", "latin1"), zeros]));
    const before = process.memoryUsage().rss;
    const answers = [
      await send("/api/inspect", png(text), { "content-type": "image/png" }),
      await send("/sdapi/v1/png-info", JSON.stringify({ image: png(text).toString("base64") }), {
        "content-type": "application/json",
      }),
    ];
    expect(answers.map(({ status }) => status)).toEqual([400, 422]);
    for (const answer of answers) expect((await answer.text()).length).toBeLessThan(2000);
    expect(process.memoryUsage().rss - before).toBeLessThan(48 * 2 ** 20);
    const cut = await send("/api/inspect", png().subarray(0, 60), { "content-type": "image/png" });
    expect([cut.status, ((await cut.json()) as any).error.field]).toEqual([400, "image"]);
    // Packed bodies are not unpacked at all.
    const packed = gzipSync(`{"prompt":"${"a".repeat(2 ** 20)}"}`);
    const more = { "content-type": "application/json", "content-encoding": "gzip" };
    const answer = await send("/api/jobs", packed, more);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
    await alive();
  });
});

it("what is no request is refused in the form of all refusals", async () => {
  const { hostname, port } = new URL(studio.url);
  for (const [sent, status, told] of [
    ["\0\0\0\0\r\n\r\n", "400 Bad Request", "the request is not HTTP"],
    [`GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, "431 Request Header Fields Too Large", "too large"],
    ["POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Bad Request", "not HTTP"],
  ] as const) {
    const socket = connect(Number(port), hostname);
    let heard = "";
    socket.on("data", (data) => {
      heard += data;
    });
    socket.on("error", () => {});
    socket.write(sent);
    await new Promise((resolve) => socket.on("close", resolve));
    const [head = "", body = ""] = heard.split("\r\n\r\n");
    expect(head.split("\r\n")[0]).toBe(`HTTP/1.1 ${status}`);
    expect(JSON.parse(body)).toEqual({ error: { message: expect.stringContaining(told) } });
  }
});

it("a body that is too large is refused while its sender sends on, who hears why", async () => {
  const { hostname, port } = new URL(studio.url);
  const head = (path: string, type: string, bytes: number) =>
    `POST ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAuthorization: Bearer ${KEY}\r\n` +
    `Content-Type: ${type}\r\nContent-Length: ${bytes}\r\n\r\n`;
  for (const [path, type, most] of [
    ["/api/jobs", "application/json", 1],
    ["/v1/images/generations", "application/json; charset=utf-8", 1],
    ["/sdapi/v1/img2img", "application/json", 32],
    ["/api/inspect", "image/png", 32],
  ] as const) {
    const socket = connect(Number(port), hostname);
    let heard = "";
    socket.on("data", (data) => {
      heard += data;
    });
    try {
      const bytes = most * 2 ** 20 + 1;
      socket.write(head(path, type, bytes));
      await expect.poll(() => heard).toContain(`it holds more than ${most} MiB`);
      expect(heard).toMatch(/^HTTP\/1\.1 413 /);
      heard = "";
      // All of it is taken, and the connection is good for the next request.
      socket.write(Buffer.alloc(bytes));
      socket.write(head("/api/jobs", "application/json", 2));
      socket.write("{}");
      await expect.poll(() => heard).toMatch(/^HTTP\/1\.1 400 /);
    } finally {
      socket.destroy();
    }
  }
});

it("a body that never ends is not waited for for ever", () => {
  const { requestTimeout } = studio.app.server;
  expect(requestTimeout > 0 && requestTimeout <= 3_600_000).toBe(true);
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
