/** Sweeps asked for over HTTP. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeShown } from "../../pictures/decode-shown.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import type { Studio } from "./studio.js";
import { TinyStudios } from "./testing/tiny-studio.js";

const studios = new TinyStudios();
let studio: Studio;
let models: string[];

beforeAll(async () => {
  models = [studios.model("one"), studios.model("two")];
  studio = await studios.start({ models });
});
afterAll(() => studios.end());

const ask = async (body: object) => {
  const answer = await fetch(`${studio.url}/api/sweeps`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: (await answer.json()) as any };
};
const finished = async (id: string) => {
  const events = await (await fetch(`${studio.url}/api/jobs/${id}/events`)).text();
  return { events, view: (await (await fetch(`${studio.url}/api/jobs/${id}`)).json()) as any };
};
const settings = { steps: 2, guidanceScale: 1 };
const base = { prompt: "a cat", ...settings };

describe("a sweep", () => {
  it("is a job with a picture for each place, a sheet and its settings", async () => {
    const { status, body } = await ask({ ...base, x: "reward.clip_score=0,1", y: "seed=5:6", by: ["sharpness"] });
    expect(status).toBe(202);
    const { events, view } = await finished(body.id);
    expect(events).toMatch(/event: done\ndata: .*sheet\.png/);
    expect(view).toMatchObject({ status: "done", total: 4, sheet: `/api/sweeps/${body.id}/sheet.png` });
    const sheet = await fetch(studio.url + view.sheet);
    expect(sheet.headers.get("content-type")).toBe("image/png");
    const { width } = await decodeShown(Buffer.from(await sheet.arrayBuffer()));
    expect(width).toBeGreaterThan(2 * studio.engine.card(undefined)!.size[0]);
    const table = (await (await fetch(`${studio.url}/api/sweeps/${body.id}/sweep.json`)).json()) as any;
    expect(table.x).toEqual({ name: "reward.clip_score", values: [0, 1] });
    expect(table.cells.map(({ scores }: any) => Object.keys(scores))).toEqual(Array(4).fill(["sharpness"]));
    const last = (await (await fetch(`${studio.url}/api/pictures/${view.pictures[3]}/settings`)).json()) as any;
    expect(last).toMatchObject({ seed: 6, rewardTargets: { clip_score: 1 } });
    const png = Buffer.from(await (await fetch(`${studio.url}/api/pictures/${view.pictures[2]}.png`)).arrayBuffer());
    await using pipe = await MiroPipeline.fromPretrained(models[0]!, { dtype: "float32" });
    const { images } = await pipe.generate("a cat", { ...settings, seed: 6, rewardTargets: { clip_score: 0 } });
    expect((await decodeShown(png)).data).toEqual(Buffer.from(images[0]!.data));
  });

  it("compares models that are offered, and draws with the first one afterwards", async () => {
    const { body } = await ask({ ...base, x: `model=${models.join(",")}` });
    const { view } = await finished(body.id);
    expect(view).toMatchObject({ status: "done", total: 2 });
    const names = await Promise.all(
      view.pictures.map(async (id: string) => {
        const settings = await fetch(`${studio.url}/api/pictures/${id}/settings`);
        return ((await settings.json()) as { model: string }).model;
      }),
    );
    expect(names).toEqual(["one", "two"]);
    expect((await finished((await ask({ ...base, x: "seed=0" })).body.id)).view.status).toBe("done");
  });

  it("is cancelled as other jobs are, without a sheet", async () => {
    const { body } = await ask({ ...base, steps: 50_000, x: "seed=0:3" });
    await expect.poll(() => studio.queue.running).toBe(1);
    expect((await fetch(`${studio.url}/api/jobs/${body.id}`, { method: "DELETE" })).status).toBe(204);
    const { view } = await finished(body.id);
    expect(view).toMatchObject({ status: "cancelled", sheet: null });
    expect((await fetch(`${studio.url}/api/sweeps/${body.id}/sheet.png`)).status).toBe(404);
    for (const id of ["..", "job-../../x", "%2e%2e"])
      expect((await fetch(`${studio.url}/api/sweeps/${id}/sheet.png`)).status).toBe(404);
  });

  it("is refused by field", async () => {
    const cases: [object, number, string | undefined][] = [
      [{ ...base }, 400, "x"],
      [{ ...base, x: "colour=1" }, 400, "x"],
      [{ ...base, x: "seed=0", y: "seed=1" }, 400, undefined],
      [{ ...base, x: "reward.beauty=0,1" }, 400, "rewardTargets.beauty"],
      [{ ...base, x: "seed=0", by: ["beauty"] }, 400, "by"],
      [{ ...base, x: "seed=0:63", y: "guidance=0:63", imagesPerCell: 2 }, 400, "x"],
      [{ ...base, x: "model=another" }, 404, "model"],
      [{ ...base, x: "seed=0", samplerOptions: { eta: 0.5 } }, 400, "samplerOptions.eta"],
      [{ ...base, x: "seed=0", variationStrength: 0.5 }, 400, "variationStrength"],
      [{ ...base, x: "seed=0", bestOf: { n: 2, by: "sharpness" } }, 400, "bestOf"],
      [{ x: "seed=0" }, 400, "prompt"],
    ];
    for (const [given, status, field] of cases) {
      const { body, ...answer } = await ask(given);
      expect([answer.status, body.error.field]).toEqual([status, field]);
    }
  });
});

describe("/docs and /openapi.json", () => {
  it("tell of every route with the fields that validate, and ask for nothing from elsewhere", async () => {
    const page = await fetch(`${studio.url}/docs`);
    const html = await page.text();
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    for (const text of ["POST /api/jobs", "POST /v1/images/generations", "POST /sdapi/v1/txt2img", "rewardTargets"])
      expect(html).toContain(text);
    expect(html).not.toMatch(/<script|style=|src=|https?:\/\//);
    for (const [, path] of html.matchAll(/href="([^"]+)"/g))
      expect((await fetch(new URL(path!, page.url))).status).toBe(200);
    const { paths } = (await (await fetch(`${studio.url}/openapi.json`)).json()) as any;
    const fields = (path: string) =>
      paths[path].post.requestBody.content["application/json"].schema.properties as Record<string, any>;
    expect(fields("/api/jobs").steps).toMatchObject({ type: "integer", description: expect.stringContaining("steps") });
    expect(Object.keys(fields("/v1/images/generations"))).toEqual(
      expect.arrayContaining(["n", "size", "rewardTargets"]),
    );
    expect(Object.keys(fields("/sdapi/v1/img2img"))).toEqual(expect.arrayContaining(["init_images", "cfg_scale"]));
    for (const path of ["/api/jobs/{id}", "/api/pictures/{id}"])
      expect(paths[path].delete.responses).toMatchObject({ 204: { description: "Done" }, 404: {} });
    expect(paths["/api/jobs/{id}"].delete.responses[204].content).toBeUndefined();
    expect(Object.keys(fields("/api/sweeps"))).toEqual(expect.arrayContaining(["x", "y", "by"]));
  });
});
