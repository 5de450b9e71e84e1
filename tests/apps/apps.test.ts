/**
 * The applications of examples/, which docs/apps.md shows: each is started, asked for a picture, and ended. That of
 * Electron, whose program is not on npm, runs in Node with a stand-in for Electron's module.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { readImageFile, readSettings } from "miro-t2i";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const examples = join(root, "examples");
const children: ChildProcess[] = [];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "miro-apps-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null && child.kill("SIGKILL")) await once(child, "exit");
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Starts a server that prints its address. */
async function start(file: string): Promise<{ url: string; child: ChildProcess }> {
  const env = { ...process.env, PORT: "0", DATABASE: join(folder, "jobs.db") };
  const child = spawn(process.execPath, [join(examples, file)], {
    cwd: folder,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let said = "";
  child.stderr!.on("data", (bytes) => {
    said += bytes;
  });
  const first = await Promise.race([once(child.stdout!, "data"), once(child, "exit").then(() => null)]);
  if (first === null) throw new Error(`${file} ended: ${said}`);
  return { url: String(first[0]).trim(), child };
}

const post = (url: string, body: unknown, signal?: AbortSignal) =>
  fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(signal && { signal }),
  });

/** The status of an answer, which is read to its end, so that its connection is free. */
async function statusOf(asked: Promise<Response>): Promise<number> {
  const answer = await asked;
  await answer.arrayBuffer();
  return answer.status;
}

/** What a picture's file says of itself. */
async function settingsOf(bytes: ArrayBuffer | Uint8Array): Promise<{ prompt: string; seed: number | null }> {
  const file = join(folder, "answer.png");
  writeFileSync(file, new Uint8Array(bytes));
  const { width, height, text } = await readImageFile(file);
  expect([width, height]).toEqual([256, 256]);
  return readSettings(text, file);
}

describe.each(["express/server.mjs", "fastify/server.mjs"])("%s", (file) => {
  it("draws, refuses what is wrong, forgets who left, and ends when it is told to", async () => {
    const { url, child } = await start(file);
    const answer = await post(`${url}/pictures`, { prompt: "a red apple", seed: 3 });
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "image/png"]);
    expect(await settingsOf(await answer.arrayBuffer())).toMatchObject({ prompt: "a red apple", seed: 3 });

    for (const wrong of [{}, [], { prompt: ["a", "b"] }, { prompt: "a fox", seed: -1 }, "null", "{"])
      expect(await statusOf(post(`${url}/pictures`, wrong))).toBe(400);
    const reward = await post(`${url}/pictures`, { prompt: "a fox", rewardTargets: { beauty: 1 } });
    expect([reward.status, await reward.text()]).toEqual([400, expect.stringContaining("not trained on beauty")]);

    const leave = new AbortController();
    const left = Array.from({ length: 16 }, (_, seed) =>
      post(`${url}/pictures`, { prompt: "a fox", seed }, leave.signal).catch(() => null),
    );
    expect(await (await fetch(`${url}/ping`)).text()).toBe("pong");
    leave.abort();
    await Promise.all(left);
    // Those who left no longer wait: there is room.
    const again = async () => expect(await statusOf(post(`${url}/pictures`, { prompt: "a cat" }))).toBe(200);
    await vi.waitFor(again, { timeout: 60_000 });

    const headers = { "content-type": "application/json", expect: "100-continue" };
    const last = request(`${url}/pictures`, { method: "POST", headers });
    last.end(JSON.stringify({ prompt: "a cat", seed: 5 }));
    const answered = once(last, "response") as Promise<[IncomingMessage]>;
    await once(last, "continue"); // it has arrived
    child.kill("SIGTERM");
    const [response] = await answered;
    response.resume();
    expect(response.statusCode).toBe(200);
    expect(await once(child, "exit")).toEqual([0, null]);
  }, 180_000);
});

describe("queue/server.mjs", () => {
  it("finishes after a kill what was asked for before", async () => {
    const first = await start("queue/server.mjs");
    const prompts = ["a fox", "a cat", "a rocket"];
    const ids: number[] = [];
    for (const [seed, prompt] of prompts.entries()) {
      const answer = await post(`${first.url}/jobs`, { prompt, seed });
      expect(answer.status).toBe(202);
      ids.push(((await answer.json()) as { id: number }).id);
    }
    for (const wrong of [{ seed: 1 }, [], "null", "3", "{", ""])
      expect(await statusOf(post(`${first.url}/jobs`, wrong))).toBe(400);
    expect((await fetch(`${first.url}/jobs/99`)).status).toBe(404);
    first.child.kill("SIGKILL");
    await once(first.child, "exit");

    const { url } = await start("queue/server.mjs");
    const last = (await post(`${url}/jobs`, { prompt: "a fox", seed: -1 }).then((answer) => answer.json())) as {
      id: number;
    };
    const job = async (id: number) => (await (await fetch(`${url}/jobs/${id}`)).json()) as object;
    await vi.waitFor(async () => expect(await job(last.id)).toMatchObject({ state: "failed" }), { timeout: 90_000 });
    expect(await job(last.id)).toMatchObject({ error: expect.stringMatching(/^seed: expected/) });
    for (const [i, id] of ids.entries()) {
      expect(await job(id)).toEqual({ id, state: "done", prompt: prompts[i], seed: i, error: null });
      const picture = await fetch(`${url}/jobs/${id}/picture`);
      expect(await settingsOf(await picture.arrayBuffer())).toMatchObject({ prompt: prompts[i], seed: i });
    }
  }, 180_000);
});

describe("pool/draw.mjs", () => {
  it("draws each prompt with one of several pipelines", async () => {
    const prompts = ["a fox", "a cat"];
    const child = spawn(process.execPath, [join(examples, "pool/draw.mjs"), ...prompts], { cwd: folder });
    children.push(child);
    expect(await once(child, "exit")).toEqual([0, null]);
    expect(readdirSync(folder).sort()).toEqual(["0.png", "1.png"]);
    for (const [i, prompt] of prompts.entries())
      expect(await settingsOf(readFileSync(join(folder, `${i}.png`)))).toMatchObject({ prompt, seed: 7 });
  });
});

describe("next/app/api/pictures/route.ts", () => {
  it("answers a request with a picture, and what is wrong with it", async () => {
    const { POST } = (await import(join(examples, "next/app/api/pictures/route.ts"))) as {
      POST(request: Request): Promise<Response>;
    };
    const ask = (body: string, signal?: AbortSignal) =>
      POST(new Request("http://localhost/api/pictures", { method: "POST", body, ...(signal && { signal }) }));
    const answer = await ask(JSON.stringify({ prompt: "a bell", seed: 2 }));
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "image/png"]);
    expect(await settingsOf(await answer.arrayBuffer())).toMatchObject({ prompt: "a bell", seed: 2 });
    for (const wrong of ["{", "{}", '{"prompt": "a", "seed": 1.5}']) expect((await ask(wrong)).status).toBe(400);
    await expect(ask('{"prompt": "a"}', AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
    const { pipeline } = (await import(join(examples, "next/lib/pipeline.ts"))) as {
      pipeline(): Promise<{ dispose(): Promise<void> }>;
    };
    await (await pipeline()).dispose();
  });
});

/**
 * What the example uses of Electron, in Node: the application is ready after its main module has ended and no sooner;
 * then "a window" asks for a picture and is closed.
 */
const ELECTRON = `
import { EventEmitter } from "node:events";
import { writeFileSync } from "node:fs";
const handlers = {};
export const ipcMain = { handle: (name, handler) => (handlers[name] = handler) };
let ready;
const isReady = new Promise((resolve) => (ready = resolve));
export const app = Object.assign(new EventEmitter(), {
  whenReady: () => isReady,
  quit: () => app.emit("will-quit", { preventDefault: () => {} }),
  exit: () => process.exit(0),
});
export class BrowserWindow {
  constructor({ webPreferences }) {
    this.preload = webPreferences.preload;
  }
  async loadFile(page) {
    const steps = [];
    const sender = { send: (channel, step, of) => steps.push([channel, step, of]) };
    const bytes = await handlers.draw({ sender }, "a red apple");
    writeFileSync("seen.json", JSON.stringify({ page, preload: this.preload, steps }));
    writeFileSync("apple.webp", bytes);
    app.emit("window-all-closed");
  }
}
export const start = async (main) => {
  await import(main);
  ready();
};
`;

describe("electron/main.mjs", () => {
  it("opens its window when the application is ready, draws for it, and ends when it is closed", async () => {
    const app = join(folder, "app");
    cpSync(join(examples, "electron"), app, { recursive: true });
    mkdirSync(join(app, "node_modules", "electron"), { recursive: true });
    writeFileSync(
      join(app, "node_modules", "electron", "package.json"),
      '{"name":"electron","type":"module","exports":"./index.js"}',
    );
    writeFileSync(join(app, "node_modules", "electron", "index.js"), ELECTRON);
    symlinkSync(join(root, "packages", "miro"), join(app, "node_modules", "miro-t2i"));
    const fromApp = `await (await import("electron")).start(${JSON.stringify(pathToFileURL(join(app, "main.mjs")).href)})`;
    writeFileSync(join(app, "start.mjs"), fromApp);
    const child = spawn(process.execPath, [join(app, "start.mjs")], {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe"],
    });
    children.push(child);
    let said = "";
    child.stderr!.on("data", (bytes) => {
      said += bytes;
    });
    expect(await once(child, "exit"), said).toEqual([0, null]);
    const seen = JSON.parse(readFileSync(join(folder, "seen.json"), "utf8"));
    expect([seen.page, seen.preload].every(existsSync)).toBe(true);
    expect(seen.steps).toEqual(Array.from({ length: 8 }, (_, i) => ["step", i + 1, 8]));
    const { format, text } = await readImageFile(join(folder, "apple.webp"));
    expect([format, readSettings(text, "apple.webp").prompt]).toEqual(["webp", "a red apple"]);
  });
});

describe("docs/apps.md", () => {
  const page = readFileSync(join(root, "docs", "apps.md"), "utf8");
  const blocks = [...page.matchAll(/^From `(examples\/[\w./-]+)`:\n\n```\w+\n([\s\S]*?)^```$/gm)];

  it("shows the applications as they are", () => {
    for (const [, file, block] of blocks) expect(readFileSync(join(root, file!), "utf8"), file).toContain(block);
    const shown = new Set(blocks.map(([, file]) => file!.split("/")[1]));
    expect([...shown].sort()).toEqual(readdirSync(examples).sort());
  });
});
