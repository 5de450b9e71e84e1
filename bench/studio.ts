/**
 * `npm run bench -- studio`: the server with the bundled model, beside the library in a process of its own. Seconds of
 * the first and later pictures over HTTP, eight waiting jobs together and one by one, and how fast /health answers
 * while pictures are drawn.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MiroPipeline } from "miro-t2i";
import { BenchError, type BenchOptions, root, spread, store } from "./harness.js";

const JOBS = 8;
const HEALTH_CHECKS = 500;

export async function studio(options: BenchOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-"));
  const args = ["studio", "--port", "0", "--output", folder];
  const child = spawn(process.execPath, [join(root(), "packages", "miro", "bin", "miro.mjs"), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const url = await listening(child);
    await draw(url, 0); // loads the model
    const library = await MiroPipeline.fromPretrained(join(root(), "models", "miro-emoji"));
    const overHttp: number[] = [];
    const alone: number[] = [];
    try {
      await library.generate("a red apple", { seed: 0 });
      for (let i = 1; i <= options.rounds; i++) {
        overHttp.push(await timed(() => draw(url, i)));
        alone.push(await timed(() => library.generate("a red apple", { seed: i })));
      }
    } finally {
      await library.dispose();
    }
    const oneByOne: number[] = [];
    const together: number[] = [];
    for (let round = 0; round < options.rounds; round++) {
      oneByOne.push(
        await timed(async () => {
          for (let i = 0; i < JOBS; i++) await draw(url, i);
        }),
      );
      together.push(await timed(() => Promise.all(Array.from({ length: JOBS }, (_, i) => draw(url, i)))));
    }
    const health = await healthWhileDrawing(url);
    const results = {
      secondsPerPicture: { studio: spread(overHttp), library: spread(alone) },
      secondsOfEightJobs: { oneByOne: spread(oneByOne), together: spread(together) },
      healthMilliseconds: health,
    };
    const ratio = spread(overHttp).median / spread(alone).median;
    const gain = spread(oneByOne).median / spread(together).median;
    console.log(
      `a picture over HTTP: ${spread(overHttp).median.toFixed(3)} s, of the library: ${spread(alone).median.toFixed(3)} s (${ratio.toFixed(2)}x)`,
    );
    console.log(
      `${JOBS} jobs one by one: ${spread(oneByOne).median.toFixed(2)} s, waiting together: ${spread(together).median.toFixed(2)} s (${gain.toFixed(2)}x sooner)`,
    );
    console.log(`/health while drawing: median ${health.p50.toFixed(1)} ms, p99 ${health.p99.toFixed(1)} ms`);
    console.log(`written: ${store(options, { command: `miro ${args.slice(0, 3).join(" ")}` }, results)}`);
  } finally {
    child.kill("SIGTERM");
    rmSync(folder, { recursive: true, force: true });
  }
}

function listening(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    child.stdout!.once("data", (bytes: Buffer) => resolve(bytes.toString().trim()));
    child.once("exit", (code) => reject(new BenchError(`miro studio ended with ${code}`)));
  });
}

/** Draws a picture with the defaults of the model, over the route that answers when it is finished. */
async function draw(url: string, seed: number): Promise<void> {
  const answer = await fetch(`${url}/v1/images/generations`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "a red apple", seed }),
  });
  if (answer.status !== 200) throw new BenchError(`the server answered ${answer.status}: ${await answer.text()}`);
  await answer.arrayBuffer();
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function healthWhileDrawing(url: string): Promise<{ p50: number; p99: number; max: number; samples: number }> {
  let drawing = true;
  const pictures = (async () => {
    for (let i = 0; drawing; i++) await draw(url, i);
  })();
  const times: number[] = [];
  for (let i = 0; i < HEALTH_CHECKS; i++) {
    times.push(1000 * (await timed(async () => (await fetch(`${url}/health`)).text())));
    await sleep(10);
  }
  drawing = false;
  await pictures;
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(share * times.length))]!;
  return { p50: at(0.5), p99: at(0.99), max: times.at(-1)!, samples: times.length };
}
