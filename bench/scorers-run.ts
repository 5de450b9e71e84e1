/** One measurement of bench/scorers.ts in a process of its own, so that its peak of memory is that of its scorers. */
import { readFileSync } from "node:fs";
import { decodeImage } from "miro-t2i/data";
import { type LoadedScorer, loadScorer } from "miro-t2i/rewards";

const { keys, weights, dtype, batches } = JSON.parse(process.argv[2]!) as {
  keys: string[];
  weights: Record<string, string>;
  dtype: "auto" | "float32" | "bfloat16";
  batches: { files: string[]; prompts: string[] }[];
};

const scorers: LoadedScorer[] = [];
for (const key of keys) scorers.push(await loadScorer(key, { weights, dtype }));
const seconds: number[] = [];
const processorSeconds: number[] = [];
const scores: Record<string, number[]> = {};
for (const { files, prompts } of batches) {
  const start = performance.now();
  const used = process.cpuUsage();
  const images = await Promise.all(files.map((file) => decodeImage(readFileSync(file))));
  for (const scorer of scorers) scores[scorer.key] = await scorer.score(images, prompts);
  seconds.push((performance.now() - start) / 1000);
  const { user, system } = process.cpuUsage(used);
  processorSeconds.push((user + system) / 1e6);
}
const [scorer] = scorers;
console.log(
  JSON.stringify({
    seconds: seconds.slice(1), // the first one warms up
    processorSeconds: processorSeconds.slice(1),
    scores,
    peakBytes: process.resourceUsage().maxRSS * 1024,
    dtype: scorer!.dtype ?? "float32",
  }),
);
for (const one of scorers) one.dispose();
