/** The server with small random weights, asked over HTTP. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "libsql";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeImage } from "../../pictures/image-files.js";
import { readPng } from "../../pictures/png.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { readSettings } from "../../pipeline/settings.js";
import type { StudioOptions } from "./options.js";
import { Studio } from "./studio.js";

const tiny = fileURLToPath(new URL("../../../../../tests/reference/fixtures/tiny", import.meta.url));
const folders: string[] = [];
/** A checkpoint with its parts beside it. */
let model: string;
let studio: Studio;

const folder = () => {
  const made = mkdtempSync(join(tmpdir(), "miro-studio-"));
  folders.push(made);
  return made;
};
const start = (options: StudioOptions = {}) =>
  Studio.start({ models: [model], port: 0, output: folder(), dtype: "float32", ...options });
const small = { prompt: "a cat", steps: 2, guidanceScale: 1, seed: 3 };

beforeAll(async () => {
  model = join(folder(), "tiny");
  cpSync(`${tiny}/checkpoint`, model, { recursive: true });
  for (const part of ["text_encoder", "vae"]) cpSync(`${tiny}/${part}`, join(model, part), { recursive: true });
  studio = await start();
});
afterAll(async () => {
  await studio.close();
  for (const made of folders) rmSync(made, { recursive: true, force: true });
});

const at = (path: string, of = studio) => `${of.url}${path}`;
const json = { "content-type": "application/json" };
const post = (body: unknown, of = studio, path = "/api/jobs") =>
  fetch(at(path, of), { method: "POST", headers: json, body: JSON.stringify(body) });
const submit = async (body: object, of = studio): Promise<string> => {
  const answer = await post(body, of);
  expect(answer.status).toBe(202);
  return ((await answer.json()) as { id: string }).id;
};

interface Heard {
  id: number;
  event: string;
  data: Record<string, unknown>;
}

/** The events of a job until its end, or until `enough`. */
async function events(
  id: string,
  {
    of = studio,
    last = 0,
    enough = (_: Heard) => false,
  }: { of?: Studio; last?: number; enough?: (event: Heard) => boolean } = {},
): Promise<Heard[]> {
  const answer = await fetch(at(`/api/jobs/${id}/events`, of), {
    headers: last > 0 ? { "last-event-id": `${last}` } : {},
  });
  expect(answer.headers.get("content-type")).toMatch(/^text\/event-stream/);
  const heard: Heard[] = [];
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of answer.body!) {
    rest += decoder.decode(chunk as Uint8Array, { stream: true });
    for (let cut = rest.indexOf("\n\n"); cut >= 0; cut = rest.indexOf("\n\n")) {
      const lines = rest.slice(0, cut).split("\n");
      rest = rest.slice(cut + 2);
      const value = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (value("event") === undefined) continue;
      const event = { id: Number(value("id")), event: value("event")!, data: JSON.parse(value("data")!) };
      heard.push(event);
      if (enough(event)) return heard;
    }
  }
  return heard;
}
const names = (heard: Heard[]) => heard.map(({ event }) => event);
const view = async (id: string, of = studio) => (await fetch(at(`/api/jobs/${id}`, of))).json() as Promise<any>;

describe("jobs", () => {
  it("are accepted, told of as they go, and leave pictures with their settings", async () => {
    const answer = await post({ ...small, imagesPerPrompt: 2, previewEvery: 1 });
    expect(answer.status).toBe(202);
    const { id, links } = (await answer.json()) as { id: string; links: { events: string } };
    expect(answer.headers.get("location")).toBe(`/api/jobs/${id}`);
    expect(links.events).toBe(`/api/jobs/${id}/events`);
    const heard = await events(id);
    expect(names(heard).at(-1)).toBe("done");
    // Who has heard the end is not kept waiting for more.
    const after = await fetch(at(links.events), { headers: { "last-event-id": `${heard.at(-1)!.id}` } });
    expect(after.status).toBe(204);
    const pictures = heard.filter(({ event }) => event === "picture");
    expect(pictures.map(({ data }) => data.index).sort()).toEqual([0, 1]);
    const state = await view(id);
    expect(state).toMatchObject({ status: "done", total: 2, step: 2, steps: 2, error: null });
    expect(new Set(state.pictures)).toEqual(new Set(pictures.map(({ data }) => data.id)));
    const png = Buffer.from(await (await fetch(at(`/api/pictures/${state.pictures[0]}.png`))).arrayBuffer());
    const settings = readSettings(readPng(png, "it").text, "it");
    expect(settings).toMatchObject({ prompt: "a cat", seed: 3, steps: 2 });
    expect(await (await fetch(at(`/api/pictures/${state.pictures[0]}/settings`))).json()).toEqual(settings);
  });

  it("draw what generate draws", async () => {
    const id = await submit({ ...small, deterministic: true, rewardTargets: { clip_score: 0.5 } });
    await events(id);
    const { pictures } = await view(id);
    const drawn = Buffer.from(await (await fetch(at(`/api/pictures/${pictures[0]}.png`))).arrayBuffer());
    await using pipe = await MiroPipeline.fromPretrained(model, { dtype: "float32" });
    const { prompt, ...options } = small;
    const { images } = await pipe.generate(prompt, {
      ...options,
      deterministic: true,
      rewardTargets: { clip_score: 0.5 },
    });
    expect(drawn).toEqual(await images[0]!.toBuffer());
  });

  it("take a set of targets for each picture, which are those of single jobs", async () => {
    const rewardTargets = [{ clip_score: 0 }, { clip_score: 0.5, aesthetic_score: 0.25 }];
    const body = { ...small, seed: [3, 3], imagesPerPrompt: 2, deterministic: true };
    const id = await submit({ ...body, rewardTargets });
    await events(id);
    const { pictures } = await view(id);
    const bytesOf = async (picture: string) =>
      Buffer.from(await (await fetch(at(`/api/pictures/${picture}.png`))).arrayBuffer());
    for (const [i, targets] of rewardTargets.entries()) {
      const alone = await submit({ ...small, deterministic: true, rewardTargets: targets });
      await events(alone);
      expect(await bytesOf(pictures[i]!)).toEqual(await bytesOf((await view(alone)).pictures[0]!));
    }
    for (const wrong of [rewardTargets.slice(1), [...rewardTargets.slice(1), { other: 1 }], []]) {
      const answer = await post({ ...body, rewardTargets: wrong });
      expect(answer.status).toBe(400);
      const { error } = (await answer.json()) as { error: { field: string } };
      expect(error.field).toMatch(/^rewardTargets/);
    }
  });

  it("give previews, which a late reader does without, but never without pictures or the end", async () => {
    const id = await submit({ ...small, steps: 6, previewEvery: 2 });
    const all = await events(id);
    const previews = all.filter(({ event }) => event === "preview");
    for (const { data } of previews) expect(data.data).toMatch(/^data:image\/webp;base64,/);
    const late = await events(id);
    expect(names(late)).toEqual(["started", "picture", "done"]);
    expect(late.at(-1)).toEqual(all.at(-1));
    expect(names(await events(id, { last: late[1]!.id }))).toEqual(["done"]);
  });

  it("wait in order, are cancelled at any time, and again", async () => {
    const long = await submit({ ...small, steps: 5000, deterministic: true });
    const waiting = await submit({ ...small, deterministic: true, seed: 4 });
    expect(await view(waiting)).toMatchObject({ status: "queued", position: 1 });
    const cancelWaiting = await fetch(at(`/api/jobs/${waiting}`), { method: "DELETE" });
    expect(cancelWaiting.status).toBe(204);
    expect(await view(waiting)).toMatchObject({ status: "cancelled", pictures: [] });
    await events(long, { enough: ({ event }) => event === "step" });
    for (let i = 0; i < 2; i++) expect((await fetch(at(`/api/jobs/${long}`), { method: "DELETE" })).status).toBe(204);
    expect(await view(long)).toMatchObject({ status: "cancelled" });
    expect(names(await events(long)).at(-1)).toBe("cancelled");
    const next = await submit(small);
    expect(names(await events(next)).at(-1)).toBe("done");
    const list = (await (await fetch(at("/api/jobs?status=cancelled"))).json()) as { jobs: { id: string }[] };
    expect(list.jobs.map((job) => job.id)).toEqual([waiting, long]);
  });

  it("end when their last reader goes, where that was asked for", async () => {
    const id = await submit({ ...small, steps: 5000, cancelOnDisconnect: true });
    const reader = new AbortController();
    const answer = await fetch(at(`/api/jobs/${id}/events`), { signal: reader.signal });
    await answer.body!.getReader().read();
    // Asking for headers is no reading.
    await fetch(at(`/api/jobs/${id}/events`), { method: "HEAD" });
    expect((await view(id)).status).toMatch(/queued|running/);
    reader.abort();
    await expect.poll(async () => (await view(id)).status).toBe("cancelled");
  });

  it("that are small go together, and each is what it is alone", async () => {
    const blocker = await submit({ ...small, steps: 5000 });
    const few = await Promise.all([1, 2, 3].map((seed) => submit({ ...small, prompt: `a cat ${seed}`, seed })));
    const alone = await submit({ ...small, seed: 9, deterministic: true });
    await fetch(at(`/api/jobs/${blocker}`), { method: "DELETE" });
    for (const id of [...few, alone]) expect(names(await events(id)).at(-1)).toBe("done");
    const states = await Promise.all(few.map((id) => view(id)));
    expect(new Set(states.map(({ startedAt }) => startedAt)).size).toBe(1);
    const settings = await Promise.all(
      states.map(
        async ({ pictures }) => (await fetch(at(`/api/pictures/${pictures[0]}/settings`))).json() as Promise<any>,
      ),
    );
    expect(settings.map(({ prompt, seed }) => [prompt, seed])).toEqual([
      ["a cat 1", 1],
      ["a cat 2", 2],
      ["a cat 3", 3],
    ]);
    await using pipe = await MiroPipeline.fromPretrained(model, { dtype: "float32" });
    const { images } = await pipe.generate("a cat 2", { steps: 2, guidanceScale: 1, seed: 2 });
    const png = Buffer.from(await (await fetch(at(`/api/pictures/${states[1].pictures[0]}.png`))).arrayBuffer());
    const { data } = await (await import("../../pictures/decode-shown.js")).decodeShown(png);
    const far = images[0]!.data.filter((value, i) => Math.abs(value - data[i]!) > 1).length;
    expect(far).toBe(0);
  });

  it("that go together each hear the warnings of their own pictures alone", async () => {
    const blocker = await submit({ ...small, steps: 400 });
    const long = `${"very ".repeat(600)}long`;
    const asked = [
      small,
      { ...small, prompt: long },
      { ...small, prompt: undefined, prompts: ["a dog", "a cow"], rewardTargets: { clip_score: 2 } },
    ];
    const ids = await Promise.all(asked.map((one) => submit(one)));
    await fetch(at(`/api/jobs/${blocker}`), { method: "DELETE" });
    const heard = await Promise.all(ids.map((id) => events(id)));
    const views = await Promise.all(ids.map((id) => view(id)));
    // In one batch: all began at once.
    expect(new Set(views.map(({ startedAt }) => startedAt)).size).toBe(1);
    expect(views.map(({ warnings }) => warnings)).toEqual([
      [],
      [expect.stringMatching(/^the prompt "very .* is longer than/)],
      [expect.stringMatching(/^the reward target clip_score 2 is outside/)],
    ]);
    for (const [i, { warnings }] of views.entries())
      expect(heard[i]!.filter(({ event }) => event === "warning").map(({ data }) => data.message)).toEqual(warnings);
  });

  it("with deterministic go together too, and each has the bytes of its single drawing", async () => {
    const options = { ...small, deterministic: true };
    const blocker = await submit({ ...small, steps: 5000 });
    const seeds = [11, 12, 13, 14, 15, 16, 17, 18];
    const few = await Promise.all(seeds.map((seed) => submit({ ...options, seed })));
    await fetch(at(`/api/jobs/${blocker}`), { method: "DELETE" });
    for (const id of few) expect(names(await events(id)).at(-1)).toBe("done");
    const states = await Promise.all(few.map((id) => view(id)));
    expect(new Set(states.map(({ startedAt }) => startedAt)).size).toBe(1);
    await using pipe = await MiroPipeline.fromPretrained(model, { dtype: "float32" });
    for (const [i, { pictures }] of states.entries()) {
      const drawn = Buffer.from(await (await fetch(at(`/api/pictures/${pictures[0]}.png`))).arrayBuffer());
      const { prompt, ...rest } = { ...options, seed: seeds[i]! };
      expect(drawn).toEqual(await (await pipe.generate(prompt, rest)).images[0]!.toBuffer());
    }
  });

  it("are not drawn twice when a request is sent again with its key", async () => {
    const headers = { ...json, "idempotency-key": "once.only" };
    const ask = () => fetch(at("/api/jobs"), { method: "POST", headers, body: JSON.stringify(small) });
    const [first, again] = [await (await ask()).json(), await (await ask()).json()] as { id: string }[];
    expect(again!.id).toBe(first!.id);
    const found = (await (await fetch(at("/api/jobs?requestKey=once.only"))).json()) as { jobs: { id: string }[] };
    expect(found.jobs.map(({ id }) => id)).toEqual([first!.id]);
    await events(first!.id);
    const wrong = await fetch(at("/api/jobs"), {
      method: "POST",
      headers: { ...json, "idempotency-key": "a b" },
      body: JSON.stringify(small),
    });
    expect([wrong.status, await wrong.json()]).toEqual([
      400,
      {
        error: {
          message: 'idempotency-key: expected 1 to 100 letters, digits or _ . : -, received "a b"',
          field: "idempotency-key",
          expected: "1 to 100 letters, digits or _ . : -",
          received: "a b",
        },
      },
    ]);
  });

  it("draw over pictures that come as a data URL, a form or an id of the gallery", async () => {
    const grey = { width: 64, height: 64, data: new Uint8Array(64 * 64 * 3).fill(90) };
    const png = Buffer.from(await encodeImage(grey, []));
    const body = { ...small, strength: 0.5 };
    const first = await submit({ ...body, image: `data:image/png;base64,${png.toString("base64")}` });
    const form = new FormData();
    form.set("request", JSON.stringify(body));
    form.set("image", new Blob([png]), "grey.png");
    const second = ((await (await fetch(at("/api/jobs"), { method: "POST", body: form })).json()) as { id: string }).id;
    for (const id of [first, second]) expect(names(await events(id)).at(-1)).toBe("done");
    const [a, b] = await Promise.all([first, second].map((id) => view(id)));
    const pixels = async (id: string) => Buffer.from(await (await fetch(at(`/api/pictures/${id}.png`))).arrayBuffer());
    expect(await pixels(a.pictures[0])).toEqual(await pixels(b.pictures[0]));
    const third = await submit({ ...body, image: { picture: a.pictures[0] } });
    expect(names(await events(third)).at(-1)).toBe("done");
  });

  it("keep the best of several by a scorer, with the scores", async () => {
    const id = await submit({ ...small, bestOf: { n: 3, by: "sharpness" } });
    const heard = await events(id);
    expect(names(heard).at(-1)).toBe("done");
    expect(heard.find(({ event }) => event === "picture")!.data.scores).toEqual({ sharpness: expect.any(Number) });
    expect((await view(id)).pictures).toHaveLength(1);
  });

  it("are refused by field, with what was expected and what came", async () => {
    const cases: [object | string, number, string | undefined][] = [
      [{ ...small, steps: 0 }, 400, "steps"],
      [{ ...small, rewardTargets: { beauty: 1 } }, 400, "rewardTargets.beauty"],
      [{ ...small, prompt: " " }, 400, "prompt"],
      [{ prompts: ["a", ""] }, 400, "prompts.1"],
      [{ steps: 2 }, 400, "prompt"],
      [{ ...small, imagesPerPrompt: 17 }, 400, "imagesPerPrompt"],
      [{ ...small, stepz: 2 }, 400, "stepz"],
      [{ ...small, sampler: "nothing" }, 400, "sampler"],
      [{ ...small, sampler: "euler_ancestral", samplerOptions: { eta: 2 } }, 400, "samplerOptions.eta"],
      [{ ...small, samplerOptions: { eta: 0.5 } }, 400, "samplerOptions.eta"],
      [{ ...small, variationStrength: 0.5 }, 400, "variationStrength"],
      [{ ...small, strength: 0.5 }, 400, "strength"],
      [{ ...small, mask: "AAAA" }, 400, "mask"],
      [{ ...small, image: "no base64!" }, 400, "image"],
      [{ ...small, image: "/etc/passwd" }, 400, "image"],
      [{ ...small, image: { picture: "../../x" } }, 400, "image.picture"],
      [{ ...small, bestOf: { n: 2, by: "beauty" } }, 400, "bestOf.by"],
      [{ ...small, model: "another" }, 404, "model"],
      [[], 400, "body"],
      ["{", 400, "body"],
      [{ ...small, prompt: "a".repeat(2 ** 20) }, 413, undefined],
    ];
    for (const [body, status, field] of cases) {
      const text = typeof body === "string" ? body : JSON.stringify(body);
      const answer = await fetch(at("/api/jobs"), { method: "POST", headers: json, body: text });
      const { error } = (await answer.json()) as { error: { message: string; field?: string } };
      expect([text.slice(0, 80), answer.status, error.field]).toEqual([text.slice(0, 80), status, field]);
      expect(error.message.length).toBeGreaterThan(5);
    }
    const xml = await fetch(at("/api/jobs"), { method: "POST", headers: { "content-type": "text/xml" }, body: "<a/>" });
    expect(xml.status).toBe(415);
    const untyped = await fetch(at("/api/jobs"), { method: "POST", body: JSON.stringify(small) });
    expect([untyped.status, ((await untyped.json()) as any).error.message]).toEqual([
      415,
      "the body's content-type: expected application/json, received text/plain;charset=UTF-8",
    ]);
    const empty = await fetch(at("/sdapi/v1/interrupt"), { method: "POST", body: "" });
    expect(empty.status).toBe(200);
    const damage = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2, 3]);
    const dataUrl = (bytes: Buffer) => `data:image/png;base64,${bytes.toString("base64")}`;
    const atOnce = await post({ ...small, image: dataUrl(damage), strength: 0.5 });
    expect([atOnce.status, ((await atOnce.json()) as any).error.field]).toEqual([400, "image"]);
    // A good header with half of the pixels is found when they are decoded.
    const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251);
    const whole = Buffer.from(await encodeImage({ width: 64, height: 64, data: noise }, []));
    const half = whole.subarray(0, whole.length / 2);
    const damaged = await submit({ ...small, image: dataUrl(half), strength: 0.5 });
    const heard = await events(damaged);
    expect(heard.at(-1)).toMatchObject({ event: "failed" });
    expect((await fetch(at("/api/jobs/job-unknown"))).status).toBe(404);
    const favourite = await fetch(at("/api/pictures/0"), { method: "PATCH", headers: json, body: '{"favourite": 1}' });
    expect(await favourite.json()).toMatchObject({
      error: { message: "favourite: expected true or false, received 1", expected: "true or false", received: 1 },
    });
  });

  it("above the queue's length are refused, and nobody waits unanswered", async () => {
    const own = await start({ queue: 3 });
    try {
      const long = await submit({ ...small, steps: 5000, deterministic: true }, own);
      await events(long, { of: own, enough: ({ event }) => event === "started" });
      const answers = await Promise.all(Array.from({ length: 20 }, () => post({ ...small, deterministic: true }, own)));
      const statuses = answers.map(({ status }) => status);
      expect(statuses.filter((status) => status === 202)).toHaveLength(3);
      expect(statuses.filter((status) => status === 429)).toHaveLength(17);
      expect(answers.find(({ status }) => status === 429)!.headers.get("retry-after")).toMatch(/^\d+$/);
    } finally {
      await own.close();
    }
  });
});

describe("the gallery", () => {
  it("lists, searches, filters, marks, deletes and restores pictures", async () => {
    const id = await submit({ ...small, prompt: "an odd zebra 🦓", rewardTargets: { clip_score: 0.25 } });
    await events(id);
    const [picture] = (await view(id)).pictures;
    const list = async (query: string) =>
      ((await (await fetch(at(`/api/pictures?${query}`))).json()) as { pictures: { id: string }[] }).pictures.map(
        (p) => p.id,
      );
    expect((await list("limit=1"))[0]).toBe(picture);
    const file = await fetch(at(`/api/pictures/${picture}.jpg`));
    const name = `an-odd-zebra-${encodeURIComponent("🦓")}-seed3.jpg`;
    expect(file.headers.get("content-disposition")).toBe(
      `inline; filename="an-odd-zebra-_-seed3.jpg"; filename*=UTF-8''${name}`,
    );
    expect(await list("q=zeb odd")).toEqual([picture]);
    expect(await list("q=🦓")).toEqual([picture]);
    expect(await list("q=odd 🦓")).toEqual([picture]);
    for (const other of ["🦊", "zebra 🦊", "!", "cow 🦓"]) expect(await list(`q=${other}`)).toEqual([]);
    expect(await list("q=zebra&reward.clip_score>=0.3")).toEqual([]);
    expect(await list("q=zebra&reward.clip_score>=0.2")).toEqual([picture]);
    for (const another of ["reward.clip_score<=0.2", "reward.clip_score>0.2", "reward.clip_score>=much", "reward.=1"])
      expect([another, (await fetch(at(`/api/pictures?${another}`))).status]).toEqual([another, 400]);
    expect(await list("q=zebra&favourite=true")).toEqual([]);
    const patched = await fetch(at(`/api/pictures/${picture}`), {
      method: "PATCH",
      headers: json,
      body: JSON.stringify({ favourite: true }),
    });
    expect(await patched.json()).toMatchObject({ favourite: true });
    expect(await list("q=zebra&favourite=true")).toEqual([picture]);
    for (const favourite of [false, true]) {
      const again = await fetch(at(`/api/pictures/${picture}`), {
        method: "PATCH",
        headers: json,
        body: JSON.stringify({ favourite }),
      });
      expect(await again.json()).toMatchObject({ favourite });
      expect(await list("q=zebra&favourite=true")).toEqual(favourite ? [picture] : []);
    }
    expect((await fetch(at(`/api/pictures/${picture}`), { method: "DELETE" })).status).toBe(204);
    expect(await list("q=zebra")).toEqual([]);
    expect((await fetch(at(`/api/pictures/${picture}.png`))).status).toBe(404);
    expect((await fetch(at(`/api/pictures/${picture}/restore`), { method: "POST" })).status).toBe(200);
    expect(await list("q=zebra")).toEqual([picture]);
    const first = await fetch(at("/api/pictures?limit=2"));
    const { pictures, next } = (await first.json()) as { pictures: { id: string }[]; next: string };
    expect(await list(`limit=2&cursor=${next}`)).not.toContain(pictures[1]!.id);
    // What is no cursor would begin again at the first page, for ever.
    for (const path of ["/api/pictures?cursor=x", "/api/jobs?cursor=x"])
      expect((await fetch(at(path))).status).toBe(400);
    const page = async (query: string) => (await (await fetch(at(`/api/jobs?${query}`))).json()) as { jobs: object[] };
    const [newest] = (await page("limit=1")).jobs as { id: string }[];
    const older = await page(`status=failed&limit=200&cursor=${newest!.id}`);
    expect(older).toEqual(await page("status=failed&limit=200"));
    expect(await page("cursor=job-0123456789")).toEqual({ jobs: [], next: null });
  });

  it("gives other formats with the settings inside, small ones, and answers caches", async () => {
    const [{ id }] = ((await (await fetch(at("/api/pictures?limit=1"))).json()) as { pictures: [{ id: string }] })
      .pictures;
    for (const [end, type] of [
      [".webp", "image/webp"],
      [".jpg", "image/jpeg"],
      ["/thumbnail", "image/webp"],
    ]) {
      const answer = await fetch(at(`/api/pictures/${id}${end}`));
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, type]);
      const etag = answer.headers.get("etag")!;
      for (const known of [etag, `W/${etag}`, `"another", ${etag}`, "*"]) {
        const again = await fetch(at(`/api/pictures/${id}${end}`), { headers: { "if-none-match": known } });
        expect([known, again.status]).toEqual([known, 304]);
      }
      const other = await fetch(at(`/api/pictures/${id}${end}`), { headers: { "if-none-match": `"another"` } });
      expect([other.status, (await other.arrayBuffer()).byteLength > 0]).toEqual([200, true]);
      if (end === "/thumbnail") continue;
      const inspected = await fetch(at("/api/inspect"), {
        method: "POST",
        headers: { "content-type": type! },
        body: await answer.arrayBuffer(),
      });
      expect(((await inspected.json()) as { settings: { prompt: string } }).settings.prompt).toBeTypeOf("string");
    }
  });

  it("knows no paths", async () => {
    for (const id of ["..%2f..%2fetc%2fpasswd.png", "..%2f.studio%2findex.sqlite", "%00.png", "a/b.png"])
      expect((await fetch(at(`/api/pictures/${id}`))).status).toBe(404);
  });

  it("forgets pictures whose files somebody has taken away, out of the trash as well", async () => {
    const of = await start();
    try {
      const id = await submit({ ...small, imagesPerPrompt: 2 }, of);
      await events(id, { of });
      const [gone, thrown] = (await view(id, of)).pictures as [string, string];
      rmSync(of.gallery.pathOf(gone)!);
      for (const path of ["/thumbnail", ".webp", ".png", "/settings", ""]) {
        const answer = await fetch(at(`/api/pictures/${gone}${path}`, of));
        expect([path, answer.status]).toEqual([path, 404]);
        // A browser that kept it would go on missing a picture that comes back.
        expect(answer.headers.get("cache-control") ?? "").not.toMatch(/max-age/);
      }
      expect((await fetch(at(`/api/pictures/${gone}`, of), { method: "DELETE" })).status).toBe(404);
      const { pictures } = (await (await fetch(at("/api/pictures", of))).json()) as { pictures: { id: string }[] };
      expect(pictures.map((one) => one.id)).toEqual([thrown]);
      expect((await fetch(at(`/api/pictures/${thrown}`, of), { method: "DELETE" })).status).toBe(204);
      rmSync(join(of.options.output, ".studio", "trash"), { recursive: true });
      expect((await fetch(at(`/api/pictures/${thrown}/restore`, of), { method: "POST" })).status).toBe(404);
    } finally {
      await of.close();
    }
  });

  it("fails a job whose picture its index cannot take in, and the server goes on", async () => {
    const of = await start();
    const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const other = new Database(join(of.options.output, ".studio", "index.sqlite"));
    try {
      const before = await submit(small, of);
      await events(before, { of });
      const [first] = (await view(before, of)).pictures as [string];
      other.exec("BEGIN IMMEDIATE"); // as on a full disk nothing can be written
      const failed = await submit(small, of);
      expect((await events(failed, { of })).at(-1)!.data.message).toMatch(/index\.sqlite: cannot be written: .*locked/);
      const refused = await fetch(at(`/api/pictures/${first}`, of), { method: "DELETE" });
      expect([refused.status, existsSync(of.gallery.pathOf(first)!)]).toEqual([500, true]);
      other.exec("ROLLBACK");
      const id = await submit({ ...small, seed: 4 }, of);
      expect(names(await events(id, { of })).at(-1)).toBe("done");
      expect(said.mock.calls.join("")).toMatch(/^warning: .*index\.sqlite: cannot be written/);
    } finally {
      said.mockRestore();
      other.close();
      await of.close();
    }
  });

  it("shows small pictures that it cannot keep, and no browser keeps an error", async () => {
    const of = await start();
    try {
      const id = await submit(small, of);
      await events(id, { of });
      const [picture] = (await view(id, of)).pictures as [string];
      writeFileSync(join(of.options.output, ".studio", "cache"), "no folder");
      const answer = await fetch(at(`/api/pictures/${picture}/thumbnail`, of));
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "image/webp"]);
      writeFileSync(of.gallery.pathOf(picture)!, "no picture");
      const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
      const path = of.gallery.pathOf(picture)!;
      const broken = async (ending: string) => {
        said.mockClear();
        const answer = await fetch(at(`/api/pictures/${picture}${ending}`, of));
        const { headers } = answer;
        const sent = ["etag", "content-disposition", "cache-control", "content-type"].map((name) => headers.get(name));
        expect([answer.status, ...sent]).toEqual([...[500, null, null, "no-store"], "application/json; charset=utf-8"]);
        const { error } = (await answer.json()) as { error: { message: string } };
        expect(said.mock.calls.join("")).toBe(`error: GET /api/pictures/${picture}${ending}: ${error.message}\n`);
        return error.message;
      };
      for (const ending of ["/thumbnail", ".webp", "/settings"]) expect(await broken(ending)).toContain(`${path}: `);
      rmSync(path);
      mkdirSync(path);
      for (const ending of ["/thumbnail", ".png", ".webp", "/settings"])
        expect(await broken(ending)).toBe(`${path}: cannot be read: it is a folder`);
      said.mockRestore();
    } finally {
      await of.close();
    }
  });

  it("is made anew from the files when its index is lost or damaged; lost jobs are told as lost", async () => {
    const output = folder();
    const first = await start({ output });
    const done = await submit(small, first);
    await events(done, { of: first });
    const [picture] = (await view(done, first)).pictures;
    await fetch(at(`/api/pictures/${picture}`, first), { method: "PATCH", headers: json, body: '{"favourite":true}' });
    await first.close();
    writeFileSync(join(output, ".studio", "index.sqlite"), "no database");
    const second = await start({ output });
    try {
      await expect
        .poll(async () => ((await (await fetch(at("/api/pictures", second))).json()) as any).pictures)
        .toMatchObject([{ id: picture, favourite: true }]);
      second.gallery.rememberJob({
        ...(await view(await submit(small, second), second)),
        id: "job-lost",
        finishedAt: null,
      });
      await expect(start({ output })).rejects.toThrow(/another studio serves these pictures/);
    } finally {
      await second.close();
    }
    const third = await start({ output });
    expect(await view("job-lost", third)).toMatchObject({ status: "failed", error: expect.stringContaining("lost") });
    await third.close();
    const day = readdirSync(output).find((name) => !name.startsWith("."))!;
    expect(readdirSync(join(output, day)).every((name) => name.endsWith(".png"))).toBe(true);
    expect(readFileSync(join(output, day, readdirSync(join(output, day))[0]!))[0]).toBe(0x89);
  });
});

describe("models in less memory", () => {
  it("draw the same with lowMemory, and in eight bits where that is asked for", async () => {
    const drawn = async (of: Studio) => {
      const id = await submit({ ...small, deterministic: true, previewEvery: 1 }, of);
      expect(names(await events(id, { of })).at(-1)).toBe("done");
      const { pictures } = await view(id, of);
      const picture = at(`/api/pictures/${pictures[0]}`, of);
      const settings = (await (await fetch(`${picture}/settings`)).json()) as { quantization?: string };
      return { settings, png: Buffer.from(await (await fetch(`${picture}.png`)).arrayBuffer()) };
    };
    const whole = await drawn(studio);
    const low = await start({ lowMemory: true });
    const eight = await start({ quantization: "int8", lowMemory: true });
    try {
      expect((await drawn(low)).png).toEqual(whole.png);
      expect([whole, await drawn(eight)].map(({ settings }) => settings.quantization)).toEqual([undefined, "int8"]);
    } finally {
      await low.close();
      await eight.close();
    }
  });
});

describe("the only model", () => {
  it("is loaded at the start, and of several none before its first use", async () => {
    const loaded = async (of: Studio) =>
      ((await (await fetch(at("/api/models", of))).json()) as any[]).map((one) => one.loaded);
    await expect.poll(() => loaded(studio)).toEqual([true]);
    const other = join(folder(), "other");
    cpSync(model, other, { recursive: true });
    const two = await start({ models: [model, other] });
    try {
      expect(await loaded(two)).toEqual([false, false]);
      const id = await submit({ ...small, model: other }, two);
      expect(names(await events(id, { of: two })).at(-1)).toBe("done");
      expect(await loaded(two)).toEqual([false, true]);
    } finally {
      await two.close();
    }
  });

  it("that cannot be loaded is told of by the server and by every job", async () => {
    const damaged = join(folder(), "damaged");
    cpSync(model, damaged, { recursive: true });
    writeFileSync(join(damaged, "model.safetensors"), "no tensors");
    const said: string[] = [];
    const stderr = vi.spyOn(process.stderr, "write").mockImplementation((text) => said.push(String(text)) > 0);
    try {
      const own = await start({ models: [damaged] });
      try {
        await expect.poll(() => said.join("")).toMatch(/^warning: .*damaged could not be loaded: /m);
        const id = await submit(small, own);
        expect((await events(id, { of: own })).at(-1)).toMatchObject({ event: "failed" });
      } finally {
        await own.close();
      }
    } finally {
      stderr.mockRestore();
    }
  });
});

describe("access", () => {
  it("is for this machine's pages, names and key holders alone", async () => {
    const plain = (headers: Record<string, string>, of = studio, path = "/api/models") =>
      new Promise<number>((resolve, reject) =>
        request(at(path, of), { headers }, (answer) => resolve(answer.resume().statusCode!))
          .on("error", reject)
          .end(),
      );
    expect(await plain({ host: "evil.example" })).toBe(403);
    expect(await plain({ origin: "http://evil.example" })).toBe(403);
    expect(await plain({ origin: "null" })).toBe(403);
    expect(await plain({ origin: studio.url })).toBe(200);
    expect(await plain({ host: `localhost:${new URL(studio.url).port}` })).toBe(200);
    const own = await start({ key: "correct-horse", allowOrigins: ["https://app.example"] });
    try {
      expect(await plain({}, own)).toBe(401);
      expect(await plain({ authorization: "Bearer wrong-horse" }, own)).toBe(401);
      for (const scheme of ["Bearer", "bearer"])
        expect(await plain({ authorization: `${scheme} correct-horse` }, own)).toBe(200);
      expect(await plain({}, own, "/health")).toBe(200);
      expect(await plain({ authorization: "Bearer correct-horse", origin: "https://app.example" }, own)).toBe(200);
    } finally {
      await own.close();
    }
    await expect(start({ host: "0.0.0.0" })).rejects.toThrow(/^host: expected an address of this machine alone/);
    // An address for documentation, and a name that nobody has.
    for (const host of ["192.0.2.1", "nobody.invalid"])
      await expect(start({ host, insecure: true })).rejects.toThrow(/^host: expected an address of this machine, rec/);
    const port = Number(new URL(studio.url).port);
    await expect(start({ port })).rejects.toThrow(`port ${port} of 127.0.0.1 is taken; choose another \`port\``);
  });

  it("describes itself, and counts", async () => {
    const { paths } = (await (await fetch(at("/openapi.json"))).json()) as { paths: Record<string, unknown> };
    for (const path of ["/api/jobs", "/api/jobs/{id}/events", "/api/pictures", "/api/models", "/health"])
      expect(Object.keys(paths)).toContain(path);
    const metrics = await (await fetch(at("/metrics"))).text();
    for (const name of [
      "miro_jobs_total",
      "miro_cancels_total",
      "miro_queue_jobs",
      "miro_step_seconds_bucket",
      "process_resident_memory_bytes",
    ])
      expect(metrics).toContain(name);
    expect(await (await fetch(at("/health"))).json()).toMatchObject({ status: "ok", queue: { waiting: 0 } });
  });
});

describe("the end", () => {
  it("tells who waits for pictures that another server may draw them, in the answer or in the stream", async () => {
    const own = await start();
    const body = { ...small, steps: 5000, deterministic: true };
    const asked = [
      post(body, own, "/v1/images/generations"),
      post({ prompt: "a cat", steps: 5000 }, own, "/sdapi/v1/txt2img"),
      post({ ...body, stream: true }, own, "/v1/images/generations"),
    ];
    await expect.poll(() => own.queue.waiting + own.queue.running).toBe(3);
    await own.close();
    const [waiting, webui, stream] = await Promise.all(asked);
    for (const answer of [waiting!, webui!])
      expect([answer.status, answer.headers.get("retry-after"), await answer.text()]).toEqual([
        503,
        "2",
        expect.stringContaining("the server is ending"),
      ]);
    expect(await stream!.text()).toMatch(/"the server is ending","type":"server_error"/);
  });

  it("cancels what runs, ends streams with a last event, and frees the folder", async () => {
    const output = folder();
    const own = await start({ output });
    const id = await submit({ ...small, steps: 5000 }, own);
    const heard = events(id, { of: own });
    await events(id, { of: own, enough: ({ event }) => event === "step" });
    const began = performance.now();
    await own.close();
    expect(performance.now() - began).toBeLessThan(6000);
    expect(names(await heard).at(-1)).toBe("cancelled");
    expect(existsSync(join(output, ".studio", "index.sqlite"))).toBe(true);
    await (await start({ output })).close();
  });
});
