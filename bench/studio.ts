/**
 * `npm run bench -- studio`: the server with the bundled model, beside the library in a process of its own. Seconds of
 * the first picture of a new server and of later ones, of pictures that four clients ask for at once, and of eight
 * waiting jobs together and one by one; and how fast /health answers meanwhile. Both sides leave a PNG file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MiroPipeline } from "miro-t2i";
import { BenchError, type BenchOptions, type Percentiles, percentiles, root, spread, store } from "./harness.js";

const PROMPT = "a red apple";
const JOBS = 8;
/** Clients that ask at once, and pictures that each of them asks for. */
const CLIENTS = 4;
const EACH = 4;
const HEALTH_CHECKS = 500;

export async function studio(options: BenchOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-"));
  const model = join(root(), "models", "miro-emoji");
  let server: Server | null = null;
  let library: MiroPipeline | null = null;
  try {
    const first: number[] = [];
    const ready: number[] = [];
    for (let i = 0; i < options.rounds; i++) {
      server = await Server.start(join(folder, `first-${i}`));
      ready.push(await timed(() => server!.loaded()));
      first.push(await timed(() => server!.draw(i)));
      if (i < options.rounds - 1) await server.end();
    }
    const own = server!;
    library = await MiroPipeline.fromPretrained(model);
    let files = 0;
    const alone = async (seed: number) => {
      const { images } = await library!.generate(PROMPT, { seed, deterministic: true });
      await images[0]!.save(join(folder, `library-${files++}.png`));
    };
    await alone(0);
    await own.draw(0);
    const [overHttp, ofLibrary]: [Cost[], Cost[]] = [[], []];
    const [underLoad, ofLibraryLong]: [Cost[], Cost[]] = [[], []];
    const count = CLIENTS * EACH;
    for (let round = 0; round < options.rounds; round++) {
      overHttp.push(await own.cost(() => own.draw(round)));
      ofLibrary.push(await costHere(() => alone(round)));
      underLoad.push(
        each(
          count,
          await own.cost(() => atOnce(CLIENTS, () => inTurn(EACH, (i) => own.draw(i, { deterministic: true })))),
        ),
      );
      ofLibraryLong.push(each(count, await costHere(() => inTurn(count, alone))));
    }
    const [oneByOne, together]: [Cost[], Cost[]] = [[], []];
    for (let round = 0; round < options.rounds; round++) {
      oneByOne.push(await own.cost(() => inTurn(JOBS, (i) => own.draw(i, { deterministic: true }))));
      together.push(await own.waiting(JOBS));
    }
    const health = await own.healthWhileDrawing();
    const results = {
      secondsUntilLoaded: spread(ready),
      secondsOfFirstPicture: spread(first),
      secondsPerPicture: { studio: spreadOf(overHttp), library: spreadOf(ofLibrary) },
      secondsPerPictureUnderLoad: { studio: spreadOf(underLoad), library: spreadOf(ofLibraryLong) },
      secondsOfEightJobs: { oneByOne: spreadOf(oneByOne), together: spreadOf(together) },
      healthMilliseconds: health,
    };
    const { secondsPerPicture: calm, secondsPerPictureUnderLoad: busy, secondsOfEightJobs: eight } = results;
    const beside = (label: string, [a, left]: [string, Spreads], [b, right]: [string, Spreads], quotient: number[]) =>
      console.log(
        `${label}: ${a} ${left.wall.median.toFixed(3)} s, ${b} ${right.wall.median.toFixed(3)} s ` +
          `(${quotient[0]!.toFixed(2)}x; processor time ${quotient[1]!.toFixed(2)}x)`,
      );
    console.log(`first picture of a loaded server: ${results.secondsOfFirstPicture.median.toFixed(3)} s`);
    beside("one picture", ["over HTTP", calm.studio], ["library", calm.library], ratio(calm.studio, calm.library));
    beside(
      `a picture for ${CLIENTS} clients at once`,
      ["over HTTP", busy.studio],
      ["library", busy.library],
      ratio(busy.studio, busy.library),
    );
    beside(
      `${JOBS} jobs`,
      ["one by one", eight.oneByOne],
      ["waiting together", eight.together],
      ratio(eight.oneByOne, eight.together),
    );
    console.log(`/health while drawing: median ${health.p50.toFixed(1)} ms, p99 ${health.p99.toFixed(1)} ms`);
    console.log(`written: ${store(options, { command: "miro studio", prompt: PROMPT, clients: CLIENTS }, results)}`);
  } finally {
    await library?.dispose();
    await server?.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Seconds of the clock, and of the processor. */
interface Cost {
  wall: number;
  processor: number;
}

interface Spreads {
  wall: ReturnType<typeof spread>;
  processor: ReturnType<typeof spread>;
}

function spreadOf(costs: readonly Cost[]): Spreads {
  return { wall: spread(costs.map(({ wall }) => wall)), processor: spread(costs.map(({ processor }) => processor)) };
}

function ratio(a: Spreads, b: Spreads): number[] {
  return [a.wall.median / b.wall.median, a.processor.median / b.processor.median];
}

function each(count: number, { wall, processor }: Cost): Cost {
  return { wall: wall / count, processor: processor / count };
}

async function costHere(work: () => Promise<unknown>): Promise<Cost> {
  const before = process.cpuUsage();
  const wall = await timed(work);
  const { user, system } = process.cpuUsage(before);
  return { wall, processor: (user + system) / 1e6 };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function inTurn(count: number, work: (i: number) => Promise<void>): Promise<void> {
  for (let i = 0; i < count; i++) await work(i);
}

async function atOnce(count: number, work: () => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: count }, work));
}

/** A `miro studio` of its own. */
class Server {
  private constructor(
    readonly child: ChildProcess,
    readonly url: string,
  ) {}

  static async start(output: string): Promise<Server> {
    const args = ["studio", "--port", "0", "--output", output];
    const child = spawn(process.execPath, [join(root(), "packages", "miro", "bin", "miro.mjs"), ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const url = await new Promise<string>((resolve, reject) => {
      child.stdout!.once("data", (bytes: Buffer) => resolve(bytes.toString().trim()));
      child.once("exit", (code) => reject(new BenchError(`miro studio ended with ${code}`)));
    });
    return new Server(child, url);
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGTERM");
    await ended;
  }

  /** Waits until the model is loaded and nothing goes on any more. */
  async loaded(): Promise<void> {
    for (;;) {
      const [{ loaded }] = (await this.json("/api/models")) as [{ loaded: boolean }];
      const before = await this.processorSeconds();
      await sleep(200);
      if (loaded && (await this.processorSeconds()) - before < 0.05) return;
    }
  }

  async json(path: string, body?: object): Promise<any> {
    const init = body && {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    };
    const answer = await fetch(this.url + path, init);
    if (!answer.ok) throw new BenchError(`the server answered ${answer.status}: ${await answer.text()}`);
    return answer.json();
  }

  /** Draws a picture with the defaults of the model, over the route that answers when it is finished. */
  async draw(seed: number, more: object = {}): Promise<void> {
    await this.json("/v1/images/generations", { prompt: PROMPT, seed, ...more });
  }

  async processorSeconds(): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return Number(/^process_cpu_seconds_total (\S+)/m.exec(text)![1]);
  }

  async cost(work: () => Promise<unknown>): Promise<Cost> {
    const before = await this.processorSeconds();
    const wall = await timed(work);
    return { wall, processor: (await this.processorSeconds()) - before };
  }

  /** Jobs of one picture that wait behind another one, from its end to theirs. */
  async waiting(count: number): Promise<Cost> {
    const last = { prompt: PROMPT, steps: 100_000, deterministic: true };
    const blocker = (await this.json("/api/jobs", last)).id as string;
    while ((await this.json("/health")).queue.running === 0) await sleep(5);
    const jobs: string[] = [];
    for (let i = 0; i < count; i++)
      jobs.push((await this.json("/api/jobs", { prompt: PROMPT, seed: i, deterministic: true })).id);
    return this.cost(async () => {
      await fetch(`${this.url}/api/jobs/${blocker}`, { method: "DELETE" });
      // An event stream ends with its job.
      await Promise.all(jobs.map(async (id) => (await fetch(`${this.url}/api/jobs/${id}/events`)).text()));
    });
  }

  async healthWhileDrawing(): Promise<Percentiles> {
    let drawing = true;
    const pictures = (async () => {
      for (let i = 0; drawing; i++) await this.draw(i);
    })();
    const times: number[] = [];
    for (let i = 0; i < HEALTH_CHECKS; i++) {
      times.push(1000 * (await timed(async () => (await fetch(`${this.url}/health`)).text())));
      await sleep(10);
    }
    drawing = false;
    await pictures;
    return percentiles(times);
  }
}
