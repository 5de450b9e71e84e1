/**
 * `npm run soak -- studio`: a server under load and faults. 1,000 requests at once against its queue of 64; hang-ups,
 * slow readers and half-sent bodies; thousands of pictures in one process, with its memory and file descriptors, and
 * their gallery as the page shows it; and kill -9 at random moments. Writes bench/results/studio-soak.json; exit code 1
 * when anything was not as it should be.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { readImageFile, readSettings } from "miro-t2i";
import type { Kept } from "./collect.js";
import { measureGallery } from "./gallery-page.js";
import { generator } from "./kill-and-restart.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url.replace("/dist/", "/")));
const QUEUE = 64;
const REQUESTS = 1000;
const ALLOWED_GROWTH_MIB = 50;

type Usage = Kept & { descriptors: number };

/** A server in a process of its own. */
class Server {
  private constructor(
    readonly child: ChildProcess,
    readonly url: string,
  ) {}

  static async start(model: string, output: string): Promise<Server> {
    const options = ["--model", model, "--output", output, "--port", "0", "--queue", `${QUEUE}`, "--max-images", "16"];
    // V8's young generation keeps what it has grown to, so it has its full size from the beginning.
    const flags = ["--expose-gc", "--min-semi-space-size=16"];
    const preload = [...flags, "--import", new URL("./collect.js", import.meta.url).href];
    const program = [join(ROOT, "packages/miro/bin/miro.mjs"), "studio", ...options];
    const child = spawn(process.execPath, [...preload, ...program], { stdio: ["ignore", "pipe", "inherit", "ipc"] });
    const url = await new Promise<string>((resolve, reject) => {
      child.stdout!.once("data", (bytes: Buffer) => resolve(bytes.toString().trim()));
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    });
    return new Server(child, url);
  }

  /** A request on a connection of its own, so that none is left open by this side. */
  json(path: string, body?: object, method = body ? "POST" : "GET"): Promise<{ status: number; body: any }> {
    const headers = body && { "content-type": "application/json" };
    return new Promise((resolve, reject) => {
      request(this.url + path, { method, headers, agent: false }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        answer.on("end", () => resolve({ status: answer.statusCode!, body: readJson(text) }));
        answer.on("error", reject);
      })
        .on("error", reject)
        .end(body && JSON.stringify(body));
    });
  }

  /** Open file descriptors, and what is in memory once garbage is collected. */
  async usage(): Promise<Usage> {
    const kept = new Promise<Kept>((resolve, reject) =>
      this.child.once("message", (answer: Kept | { error: string }) =>
        "error" in answer ? reject(new Error(answer.error)) : resolve(answer),
      ),
    );
    this.child.send("collect");
    return { ...(await kept), descriptors: this.descriptors() };
  }

  descriptors(): number {
    return readdirSync(`/proc/${this.child.pid}/fd`).length;
  }

  /** Waits until nothing is drawn and nothing waits. */
  async idle(): Promise<void> {
    for (;;) {
      const { queue } = (await this.json("/health")).body;
      if (queue.waiting === 0 && queue.running === 0) return;
      await sleep(20);
    }
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill(signal);
    await ended;
  }
}

/** The JSON of an answer, or its text where it is none. */
function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** @returns the exit code */
export async function soakStudio({
  pictures,
  kills,
  steps,
  seed,
  model,
}: {
  pictures: number;
  kills: number;
  steps: number;
  seed: number;
  model: string;
}): Promise<number> {
  const output = mkdtempSync(join(tmpdir(), "miro-soak-studio-"));
  const random = generator(seed);
  const wrong: string[] = [];
  const check = (good: boolean, what: string) => {
    console.log(`${good ? "ok   " : "WRONG"} ${what}`);
    if (!good) wrong.push(what);
  };
  let server = await Server.start(model, output);
  const small = (i: number) => ({ prompt: `a fox ${i}`, steps, guidanceScale: 0, seed: i });
  try {
    const load = await flood(server, small, check);
    const faults = await disturb(server, small, random, check);
    const memory = await drawMany(server, small, pictures, random, check);
    const gallery = await lookAt(server, output, check);
    await server.end("SIGTERM");
    const lost = { kills: 0, jobs: 0, pictures: 0 };
    for (let i = 0; i < kills; i++) {
      server = await Server.start(model, output);
      const ids: string[] = [];
      for (let n = 0; n < 20; n++)
        ids.push((await server.json("/api/jobs", { ...small(n), imagesPerPrompt: 2 })).body.id);
      await sleep(random() * 1500);
      const done = new Set<string>();
      for (const id of ids) if ((await server.json(`/api/jobs/${id}`)).body.status === "done") done.add(id);
      await server.end("SIGKILL");
      lost.pictures += (await broken(output)).length;
      server = await Server.start(model, output);
      for (const id of ids.filter((one) => !done.has(one))) {
        const { body } = await server.json(`/api/jobs/${id}`);
        if (body.status === "queued" || body.status === "running") lost.jobs++;
      }
      const files = pngs(output).length;
      const indexed = await count(server, files);
      if (indexed !== files) check(false, `after a kill the index has ${indexed} of ${files} pictures`);
      lost.kills++;
      await server.end("SIGTERM");
    }
    check(lost.jobs === 0, `${lost.kills} kills: no job is told as waiting that is lost (${lost.jobs})`);
    check(lost.pictures === 0, `${lost.kills} kills: no picture is half-written (${lost.pictures})`);
    const result = {
      benchmark: "studio-soak",
      date: new Date().toISOString(),
      machine: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version },
      pictures,
      kills,
      steps,
      model,
      load,
      faults,
      memory,
      gallery,
      wrong,
    };
    const folder = join(ROOT, "bench", "results");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "studio-soak.json"), `${JSON.stringify(result, null, 2)}\n`);
    console.log(`written: ${join("bench", "results", "studio-soak.json")}`);
    return wrong.length === 0 ? 0 : 1;
  } finally {
    if (server.child.exitCode === null && server.child.signalCode === null) await server.end("SIGKILL");
    rmSync(output, { recursive: true, force: true });
  }
}

type Check = (good: boolean, what: string) => void;
type Small = (i: number) => Record<string, unknown>;

/** A thousand requests at once while one job is drawn. */
async function flood(server: Server, small: Small, check: Check) {
  const blocker = (await server.json("/api/jobs", { ...small(0), steps: 100_000, deterministic: true })).body.id;
  while ((await server.json("/health")).body.queue.running === 0) await sleep(10);
  const started = performance.now();
  const answers = await Promise.all(
    Array.from({ length: REQUESTS }, (_, i) => server.json("/api/jobs", { ...small(i), deterministic: true })),
  );
  const seconds = (performance.now() - started) / 1000;
  const accepted = answers.filter(({ status }) => status === 202);
  const refused = answers.filter(({ status }) => status === 429);
  check(
    accepted.length === QUEUE && refused.length === REQUESTS - QUEUE,
    `${REQUESTS} requests at once: ${accepted.length} accepted, ${refused.length} refused, in ${seconds.toFixed(1)} s`,
  );
  for (const id of [blocker, ...accepted.map(({ body }) => body.id)])
    await server.json(`/api/jobs/${id}`, undefined, "DELETE");
  await server.idle();
  return { requests: REQUESTS, accepted: accepted.length, refused: refused.length, seconds };
}

/** A connection that sends a text and is closed after a while, having read or not. */
async function rude(url: string, text: string, { ms, reads }: { ms: number; reads: boolean }): Promise<void> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  if (reads) socket.resume();
  socket.write(text);
  await sleep(ms);
  socket.destroy();
}

/** Hang-ups, slow readers and half-sent bodies of all families. */
async function disturb(server: Server, small: Small, random: () => number, check: Check) {
  await server.json("/api/jobs", small(0));
  await server.idle();
  const { host } = new URL(server.url);
  const head = (path: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;
  const whole = (path: string, body: object) => {
    const text = JSON.stringify(body);
    return head(path, Buffer.byteLength(text)) + text;
  };
  const before = await server.usage();
  const visits: Promise<void>[] = [];
  for (let i = 0; i < 300; i++) {
    const ms = random() * 800;
    const stream = { ...small(i), steps: 200, stream: true, partial_images: 3 };
    const long = (await server.json("/api/jobs", { ...small(i), steps: 50, previewEvery: 1, cancelOnDisconnect: true }))
      .body;
    const kinds = [
      () => rude(server.url, whole("/v1/images/generations", stream), { ms, reads: true }),
      () => rude(server.url, whole("/v1/images/generations", stream), { ms, reads: false }),
      () => rude(server.url, `${head("/api/jobs", 1000)}{"prompt": "a f`, { ms, reads: true }),
      () => rude(server.url, whole("/sdapi/v1/txt2img", { prompt: "a fox", steps: 200 }), { ms, reads: true }),
      () =>
        rude(server.url, `GET ${long.links?.events ?? "/health"} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, {
          ms,
          reads: false,
        }),
    ];
    visits.push(kinds[i % kinds.length]!());
    if (i % 30 === 29) await Promise.all(visits.splice(0));
  }
  await Promise.all(visits);
  const list = (await server.json("/api/jobs?limit=200")).body.jobs as { id: string; status: string }[];
  for (const { id, status } of list)
    if (status === "queued" || status === "running") await server.json(`/api/jobs/${id}`, undefined, "DELETE");
  await server.idle();
  for (let i = 0; i < 100 && server.descriptors() > before.descriptors + 3; i++) await sleep(100);
  const after = await server.usage();
  check(
    after.descriptors <= before.descriptors + 3,
    `300 hang-ups, slow readers and half-sent bodies: ${before.descriptors} descriptors before, ${after.descriptors} after`,
  );
  check((await server.json("/health")).status === 200, "the server answers afterwards");
  return { visits: 300, before, after };
}

/** Thousands of pictures in one process. */
async function drawMany(server: Server, small: Small, pictures: number, random: () => number, check: Check) {
  const each = 10;
  const samples: ({ pictures: number } & Usage)[] = [];
  const marks = [100, ...Array.from({ length: 10 }, (_, i) => Math.ceil((((i + 1) / 10) * pictures) / each) * each)];
  for (let drawn = 0; drawn < pictures; ) {
    const { status, body } = await server.json("/api/jobs", {
      ...small(drawn),
      imagesPerPrompt: each,
      ...(random() < 0.2 && { previewEvery: 1 }),
    });
    if (status !== 202) throw new Error(`a job was answered with ${status}`);
    const { body: text } = await server.json(`/api/jobs/${body.id}/events`);
    if (!String(text).includes("event: done")) throw new Error(`a job ended with ${String(text).slice(-200)}`);
    drawn += each;
    if (random() < 0.2) await server.json("/api/pictures?limit=60&q=fox");
    if (!marks.includes(drawn)) continue;
    const usage = await server.usage();
    samples.push({ pictures: drawn, ...usage });
    const { residentMiB, heapMiB, externalMiB, tensors, tensorMiB, descriptors } = usage;
    console.log(
      `      ${drawn} pictures: ${residentMiB} MiB, of which JavaScript ${heapMiB} and ${externalMiB} outside of its ` +
        `heap, ${tensors} tensors of ${tensorMiB} MiB; ${descriptors} descriptors`,
    );
  }
  const [first, last] = [samples[0]!, samples.at(-1)!];
  const growth = last.residentMiB - first.residentMiB;
  check(
    growth <= ALLOWED_GROWTH_MIB,
    `from ${first.pictures} to ${last.pictures} pictures the memory grew by ${growth} MiB (at most ${ALLOWED_GROWTH_MIB})`,
  );
  check(last.descriptors <= first.descriptors + 3, `descriptors: ${first.descriptors}, then ${last.descriptors}`);
  return samples;
}

/** The gallery of many pictures: how fast a page of it is answered, and the page in a browser. */
async function lookAt(server: Server, output: string, check: Check) {
  const pictures = await count(server, pngs(output).length);
  const times: number[] = [];
  for (let i = 0; i < 100; i++) {
    const start = performance.now();
    await server.json(`/api/pictures?limit=120${["", "&q=fox", "&favourite=true", `&q=fox+${i}`][i % 4]}`);
    times.push(performance.now() - start);
  }
  const answerMs = Math.round(times.sort((a, b) => a - b)[98]!);
  const page = await measureGallery(server.url, pictures);
  if (page) {
    const { firstPictureMs, frameMs, scrolledSeconds, mostInDocument } = page;
    check(
      mostInDocument < 200,
      `the page shows ${pictures} pictures: the first after ${firstPictureMs} ms, scrolled in ` +
        `${scrolledSeconds.toFixed(0)} s with ${frameMs.p50} ms a frame (p95 ${frameMs.p95} ms), ` +
        `${mostInDocument} of them in the document at once`,
    );
  }
  return { answerMs, page };
}

function pngs(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".png") && !entry.parentPath.includes(".studio"))
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Pictures that cannot be read whole. */
async function broken(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const path of pngs(folder)) {
    try {
      readSettings((await readImageFile(path)).text, path);
    } catch {
      found.push(path);
    }
  }
  return found;
}

/** Pictures of the gallery, as soon as they are as many as wanted, or after a while. */
async function count(server: Server, wanted: number): Promise<number> {
  let found = 0;
  for (let attempt = 0; attempt < 100; attempt++) {
    found = 0;
    let cursor: string | null = "";
    while (cursor !== null) {
      const path: string = `/api/pictures?limit=500${cursor === "" ? "" : `&cursor=${cursor}`}`;
      const { body } = await server.json(path);
      found += body.pictures.length;
      cursor = body.next;
    }
    if (found === wanted) return found;
    await sleep(100);
  }
  return found;
}
