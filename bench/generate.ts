/**
 * `npm run bench -- generate`: seconds from the start of a process to a finished picture, `miro generate` with the
 * bundled model and its defaults, of each further picture of one process, and of pictures drawn four at a time:
 * together, and with `deterministic`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiroPipeline } from "miro-t2i";
import { type BenchOptions, root, runProcess, spread, store } from "./harness.js";

export async function generate(options: BenchOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-"));
  const args = ["generate", "a red apple on a light blue background", "--seed", "0", "--output"];
  const times: number[] = [];
  try {
    for (let i = 0; i <= options.rounds; i++) {
      const start = performance.now();
      runProcess(process.execPath, [
        join(root(), "packages", "miro", "bin", "miro.mjs"),
        ...args,
        join(folder, String(i)),
      ]);
      if (i > 0) times.push((performance.now() - start) / 1000); // the first one reads the files into memory
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const seconds = spread(times);
  const later = spread(await laterPictures(options.rounds));
  console.log(
    `one picture, from process start: ${seconds.median.toFixed(2)} s (${seconds.min.toFixed(2)} - ${seconds.max.toFixed(2)}, ${seconds.samples} runs)`,
  );
  console.log(
    `each picture after the first in a process: ${later.median.toFixed(2)} s (${later.min.toFixed(2)} - ${later.max.toFixed(2)}, ${later.samples} pictures)`,
  );
  const together = spread(await fourAtATime(options.rounds, false));
  const alone = spread(await fourAtATime(options.rounds, true));
  console.log(
    `each of four in a call: ${together.median.toFixed(2)} s with batchSize 4, ${alone.median.toFixed(2)} s with deterministic (${together.samples} calls each)`,
  );
  const results = {
    secondsPerPicture: seconds,
    secondsPerLaterPicture: later,
    secondsPerPictureOfFour: { batchSize4: together, deterministic: alone },
  };
  console.log(`written: ${store(options, { command: `miro ${args.join(" ")} DIR` }, results)}`);
}

/** Pictures of different texts from one pipeline, the first one not counted. */
async function laterPictures(count: number): Promise<number[]> {
  const pipe = await MiroPipeline.fromPretrained(join(root(), "models", "miro-emoji"));
  const times: number[] = [];
  try {
    for (const text of ["a red apple", "a fox", "a cat", "a yellow bird", "a house", "a green car"].slice(
      0,
      count + 1,
    )) {
      const start = performance.now();
      await pipe.generate(text, { seed: 0 });
      times.push((performance.now() - start) / 1000);
    }
  } finally {
    await pipe.dispose();
  }
  return times.slice(1);
}

/** Seconds for each picture of calls of four, the first call not counted. */
async function fourAtATime(count: number, deterministic: boolean): Promise<number[]> {
  const pipe = await MiroPipeline.fromPretrained(join(root(), "models", "miro-emoji"));
  const times: number[] = [];
  try {
    for (let i = 0; i <= count; i++) {
      const start = performance.now();
      await pipe.generate("a fox", { imagesPerPrompt: 4, batchSize: 4, deterministic });
      times.push((performance.now() - start) / 4000);
    }
  } finally {
    await pipe.dispose();
  }
  return times.slice(1);
}
