/**
 * `npm run bench -- generate`: seconds from the start of a process to a finished picture, `miro generate` with the bundled model
 * and its defaults, and of each further picture of one process.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiroPipeline } from "miro-t2i";
import { BenchError, type BenchOptions, root, spread, store } from "./harness.js";

export async function generate(options: BenchOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "miro-bench-"));
  const args = ["generate", "a red apple on a light blue background", "--seed", "0", "--output"];
  const times: number[] = [];
  try {
    for (let i = 0; i <= options.rounds; i++) {
      const start = performance.now();
      const result = spawnSync(
        process.execPath,
        [join(root(), "packages", "miro", "bin", "miro.mjs"), ...args, join(folder, String(i))],
        { encoding: "utf8" },
      );
      if (result.status !== 0) throw new BenchError(`miro generate failed:\n${result.stderr}`);
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
  console.log(
    `written: ${store(options, { command: `miro ${args.join(" ")} DIR` }, { secondsPerPicture: seconds, secondsPerLaterPicture: later })}`,
  );
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
      const { latents } = await pipe.generate(text, { seed: 0 });
      latents.dispose();
      times.push((performance.now() - start) / 1000);
    }
  } finally {
    await pipe.dispose();
  }
  return times.slice(1);
}
