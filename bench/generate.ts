/**
 * `npm run bench -- generate`: seconds from the start of a process to a finished picture, `miro generate` with the bundled model
 * and its defaults.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BenchError, type BenchOptions, root, spread, store } from "./harness.js";

export function generate(options: BenchOptions): void {
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
  console.log(
    `one picture, from process start: ${seconds.median.toFixed(2)} s (${seconds.min.toFixed(2)} - ${seconds.max.toFixed(2)}, ${seconds.samples} runs)`,
  );
  console.log(`written: ${store(options, { command: `miro ${args.join(" ")} DIR` }, { secondsPerPicture: seconds })}`);
}
