/** `/openapi.json`: it describes every route as it is, and every answer is one that it describes. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import type { Studio } from "./studio.js";
import { TinyStudios } from "./testing/tiny-studio.js";

/** What is read of the description. */
interface Description {
  openapi: string;
  security: object[];
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object>; securitySchemes?: object };
}
interface Operation {
  operationId: string;
  tags: string[];
  security?: object[];
  parameters?: { in: string; name: string }[];
  requestBody?: { content: Record<string, object> };
  responses: Record<string, { description: string; content?: Record<string, { schema: object }> }>;
}

const KEY = "correct-horse-battery";
const studios = new TinyStudios();
let studio: Studio;
let model: string;
let description: Description;
let operations: { method: string; path: string; operation: Operation }[];

beforeAll(async () => {
  model = studios.model();
  studio = await studios.start({ models: [model], maxImages: 2, key: KEY });
  const told = await fetch(`${studio.url}/openapi.json`, { headers: authorization });
  description = (await told.json()) as Description;
  operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
  );
});
afterAll(() => studios.end());

const authorization = { authorization: `Bearer ${KEY}` };
const asked = new Set<string>();

/** Checks an answer against what the description says of its route. @returns its body */
async function described(answer: Response, method: string, path: string): Promise<unknown> {
  const operation = description.paths[path]?.[method.toLowerCase()];
  const told = operation?.responses[answer.status] ?? operation?.responses.default;
  const at = [method, path, answer.status];
  expect([...at, told !== undefined]).toEqual([...at, true]);
  const type = answer.headers.get("content-type")?.split(";", 1)[0];
  expect([...at, type !== undefined]).toEqual([...at, told!.content !== undefined]);
  if (type === undefined) return null;
  expect(Object.keys(told!.content!)).toContain(type);
  if (type !== "application/json") return answer.arrayBuffer();
  const body = await answer.json();
  const schema = z.fromJSONSchema(inDefs({ ...told!.content![type]!.schema, $defs: description.components.schemas }));
  expect([...at, schema.safeParse(body).error?.issues]).toEqual([...at, undefined]);
  return body;
}

/** The schema with its references as JSON Schema has them alone. */
const inDefs = (schema: object) => JSON.parse(JSON.stringify(schema).replaceAll("#/components/schemas/", "#/$defs/"));

async function ask(
  method: string,
  path: string,
  { to = path, body, headers = {} }: { to?: string; body?: unknown; headers?: Record<string, string> } = {},
): Promise<any> {
  asked.add(`${method} ${path}`);
  const json = body !== undefined && !(body instanceof FormData || body instanceof Blob);
  const answer = await fetch(studio.url + to, {
    method,
    headers: { ...authorization, ...(json && { "content-type": "application/json" }), ...headers },
    ...(body !== undefined && { body: json ? JSON.stringify(body) : (body as Blob) }),
  });
  return described(answer, method, path);
}

describe("/openapi.json", () => {
  it("names every route once, with its parameters, its family, and the form of its refusals", () => {
    expect(description.openapi).toBe("3.1.0");
    expect(description.security).toEqual([{ key: [] }]);
    expect(description.components.securitySchemes).toMatchObject({ key: { type: "http", scheme: "bearer" } });
    expect(Object.keys(description.components.schemas)).toEqual(
      expect.arrayContaining(["Error", "Job", "Model", "OpenAIError", "OpenAIImages", "Picture", "WebUIError"]),
    );
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { method, path, operation } of operations) {
      const [family, refusal] = path.startsWith("/v1/")
        ? ["OpenAI", "OpenAIError"]
        : path.startsWith("/sdapi/")
          ? ["Stable Diffusion WebUI", "WebUIError"]
          : ["MIRO", "Error"];
      const named = operation.parameters?.filter((one) => one.in === "path").map(({ name }) => name) ?? [];
      const refused = operation.responses.default?.content?.["application/json"]?.schema;
      expect([method, path, operation.tags, named, refused]).toEqual([
        ...[method, path, [family], [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)],
        { $ref: `#/components/schemas/${refusal}` },
      ]);
      const good = Object.keys(operation.responses).filter((status) => status.startsWith("2"));
      expect([path, good.length > 0]).toEqual([path, true]);
      expect(operation.security).toEqual(path === "/health" ? [] : undefined);
    }
    // A program that describes routes of its own finds none of these names among its own.
    expect(z.toJSONSchema(z.globalRegistry).schemas).toEqual({});
    const bodies = (path: string) => Object.keys(description.paths[path]!.post!.requestBody!.content);
    expect(bodies("/api/jobs")).toEqual(["application/json", "multipart/form-data"]);
    expect(bodies("/v1/images/edits")).toEqual(["multipart/form-data"]);
    expect(bodies("/api/inspect")).toContain("image/png");
  });

  it("wants no key where the server wants none", async () => {
    const open = await studios.start({ models: [model] });
    const told = (await (await fetch(`${open.url}/openapi.json`)).json()) as Description;
    expect([told.security, told.components.securitySchemes]).toEqual([[], undefined]);
  });

  it("describes the answers of all routes, and what they refuse", async () => {
    const small = { prompt: "a cat", steps: 1 };
    const done = async (id: string) => {
      const to = `/api/jobs/${id}/events`;
      await ask("GET", "/api/jobs/{id}/events", { to });
      await ask("GET", "/api/jobs/{id}/events", { to, headers: { "last-event-id": "1000" } });
      return ask("GET", "/api/jobs/{id}", { to: `/api/jobs/${id}` });
    };
    const { id } = await ask("POST", "/api/jobs", { body: { ...small, rewardTargets: { clip_score: null } } });
    const { pictures } = await done(id);
    await ask("DELETE", "/api/jobs/{id}", { to: `/api/jobs/${id}` });
    await ask("DELETE", "/api/jobs/{id}", { to: "/api/jobs/none" });
    const sweep = await ask("POST", "/api/sweeps", { body: { ...small, x: "seed=0:1", by: ["sharpness"] } });
    await done(sweep.id);
    for (const file of ["sheet.png", "sweep.json"])
      await ask("GET", "/api/sweeps/{id}/{file}", { to: `/api/sweeps/${sweep.id}/${file}` });
    await ask("GET", "/api/sweeps/{id}/{file}", { to: `/api/sweeps/job-none/sheet.png` });
    for (const path of ["/health", "/metrics", "/api/models", "/api/jobs", "/api/pictures"]) await ask("GET", path);
    for (const to of ["?limit=0", "?limit=2&cursor=x", "?limit=&favourite=true"])
      await ask("GET", "/api/pictures", { to: `/api/pictures${to}` });

    const picture = "/api/pictures/{id}";
    const [one] = pictures;
    for (const to of [one, `${one}.png`, `${one}.webp`, `${one}.jpg?quality=50`, `${one}.webp?quality=`, "none"])
      await ask("GET", picture, { to: `/api/pictures/${to}` });
    const png = new Blob([(await ask("GET", picture, { to: `/api/pictures/${one}.png` })) as ArrayBuffer]);
    await ask("GET", picture, { to: `/api/pictures/${one}.png`, headers: { "if-none-match": "*" } });
    for (const end of ["thumbnail", "settings"])
      await ask("GET", `${picture}/${end}`, { to: `/api/pictures/${one}/${end}` });
    await ask("PATCH", picture, { to: `/api/pictures/${one}`, body: { favourite: true } });
    await ask("PATCH", picture, { to: `/api/pictures/${one}`, body: { favourite: 1 } });
    await ask("DELETE", picture, { to: `/api/pictures/${one}` });
    await ask("POST", `${picture}/restore`, { to: `/api/pictures/${one}/restore` });
    await ask("POST", "/api/inspect", { body: png, headers: { "content-type": "image/png" } });
    await ask("POST", "/api/inspect", { body: {} });
    const form = new FormData();
    form.set("request", JSON.stringify(small));
    form.set("image", png);
    await done((await ask("POST", "/api/jobs", { body: form })).id);

    await ask("GET", "/v1/models");
    for (const to of [encodeURIComponent(model), "another"])
      await ask("GET", "/v1/models/{id}", { to: `/v1/models/${to}` });
    const generations = "/v1/images/generations";
    for (const more of [{}, { response_format: "url" }, { stream: true, partial_images: 1 }, { n: 0 }, { model: "x" }])
      await ask("POST", generations, { body: { ...small, ...more } });
    const edit = new FormData();
    for (const [name, value] of Object.entries({ ...small, image: png }))
      edit.set(name, value instanceof Blob ? value : String(value));
    await ask("POST", "/v1/images/edits", { body: edit });

    const base64 = Buffer.from(await png.arrayBuffer()).toString("base64");
    await ask("POST", "/sdapi/v1/txt2img", { body: small });
    await ask("POST", "/sdapi/v1/txt2img", { body: { ...small, width: 1 } });
    await ask("POST", "/sdapi/v1/img2img", { body: { ...small, init_images: [base64] } });
    await ask("POST", "/sdapi/v1/png-info", { body: { image: base64 } });
    await ask("POST", "/sdapi/v1/options", { body: {} });
    // What is left takes nothing.
    for (const { method, path } of operations) if (!asked.has(`${method} ${path}`)) await ask(method, path);
    expect([...asked].sort()).toEqual(operations.map(({ method, path }) => `${method} ${path}`).sort());
  });
});
