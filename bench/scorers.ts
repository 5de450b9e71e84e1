/**
 * `npm run bench -- scorers`: pictures per second and peak memory of the scorers on a CPU, 16 pictures of 512 x 512
 * with a text each, in the default dtype and in float32; then all of them over the same pictures. Ours against
 * transformers, open_clip and timm in PyTorch eager, both from the files of the pictures to the scores, each
 * measurement in a process of its own. Weights are random, in the published layouts: those of
 * bench/reference/scorer_weights.py, or a recording of tests/reference/make_scorer_reference.py.
 *
 * Both sides score the same pictures, so that the table also says how far the scores are apart.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeImage } from "miro-t2i";
import { scorerSpec } from "miro-t2i/rewards";
import {
  BenchError,
  type BenchOptions,
  columns,
  root,
  runOurs,
  runProcess,
  runReference,
  type Spread,
  spread,
  store,
} from "./harness.js";

/** Folders of a recording by scorer; the aesthetic predictor looks with OpenAI's CLIP. */
const CASES: Readonly<Record<string, string>> = {
  clip_openai: "clip_openai",
  aesthetic_score: "aesthetic",
  pick_a_score_score: "pick_score",
  hpsv2_score: "hpsv2",
  sciscore_score: "sciscore",
  image_reward_score: "image_reward",
  clip_score: "clip_jina",
  vqa_score: "vqa",
};
/** Those that a machine of 16 GB can load in float32, one at a time. */
const DEFAULT_KEYS = Object.keys(CASES).filter((key) => key !== "vqa_score");
const SIDE = 512;

/** What one process measured: seconds for a batch, those of all processors, and the most memory that it had. */
interface Measured {
  seconds: number[];
  processorSeconds: number[];
  peakBytes: number;
  dtype: string;
  /** Of the last batch, by scorer. */
  scores: Record<string, number[]>;
}

interface Row {
  scorer: string;
  dtype: string;
  ours: Spread;
  oursProcessor: Spread;
  oursPeakBytes: number;
  python: Spread | null;
  pythonProcessor: Spread | null;
  pythonPeakBytes: number | null;
  /** Largest difference of a score from Python's, by the spread of the scores. */
  difference: number | null;
}

export async function scorers(options: BenchOptions): Promise<void> {
  const keys = options.by.length > 0 ? options.by : DEFAULT_KEYS;
  if (options.together && keys.length === 1)
    throw new BenchError(`--together: expected --by with at least two scorers, found ${keys[0]}`);
  for (const key of keys) {
    scorerSpec(key);
    if (!(key in CASES)) throw new BenchError(`${key}: has no published weights to be measured with`);
  }
  const scratch = mkdtempSync(join(tmpdir(), "miro-bench-scorers-"));
  try {
    const recording = options.recording ?? makeWeights(options, keys, join(scratch, "weights"));
    const weights = Object.fromEntries(
      [...new Set([...keys, ...(keys.includes("aesthetic_score") ? ["clip_openai"] : [])])].map((key) => [
        key,
        join(recording, CASES[key]!),
      ]),
    );
    const { pictures } = options;
    // The first batch warms up; one picture is enough for that.
    const batches = await drawPictures(scratch, [1, ...new Array<number>(options.rounds).fill(pictures)]);
    const rows: Row[] = [];
    const write = () => store(options, { size: options.size, keys, batch: pictures, side: SIDE }, { rows });
    let file = "";
    const alone = options.together ? [] : keys.map((key) => [key]);
    for (const group of [...alone, ...(keys.length > 1 ? [keys] : [])]) {
      const job = { keys: group, weights, batches };
      const measured = new Set<string>();
      for (const asked of options.dtypes) {
        const ours = runOurs<Measured>("scorers", { ...job, dtype: asked });
        if (measured.has(ours.dtype)) continue; // auto is float32 here
        measured.add(ours.dtype);
        const python = options.python
          ? runReference<Measured>(options.python, "scorers.py", [JSON.stringify({ ...job, dtype: ours.dtype })])
          : null;
        rows.push({
          scorer: group.length > 1 ? `all ${group.length} together` : group[0]!,
          dtype: ours.dtype,
          ours: spread(ours.seconds),
          oursProcessor: spread(ours.processorSeconds),
          oursPeakBytes: ours.peakBytes,
          python: python && spread(python.seconds),
          pythonProcessor: python && spread(python.processorSeconds),
          pythonPeakBytes: python?.peakBytes ?? null,
          difference: python && farthest(ours.scores, python.scores),
        });
        file = write(); // what was measured stays, should a later one fail
      }
    }
    const rate = (s: Spread) => (pictures / s.median).toFixed(2);
    const each = (s: Spread | null) => (s === null ? "" : (s.median / pictures).toFixed(2));
    const gigabytes = (bytes: number | null) => (bytes === null ? "" : (bytes / 1e9).toFixed(1));
    const times = (a: Spread | null, b: Spread) => (a === null ? "" : `${(a.median / b.median).toFixed(2)}x`);
    console.log(
      columns([
        [
          ...["pictures a second", "dtype", "ours", "Python", "speed"],
          ...["CPU s a picture", "Python", "speed", "GB", "Python", "difference"],
        ],
        ...rows.map((row) => [
          row.scorer,
          row.dtype,
          rate(row.ours),
          row.python ? rate(row.python) : "",
          times(row.python, row.ours),
          each(row.oursProcessor),
          each(row.pythonProcessor),
          times(row.pythonProcessor, row.oursProcessor),
          gigabytes(row.oursPeakBytes),
          gigabytes(row.pythonPeakBytes),
          row.difference === null ? "" : row.difference.toExponential(1),
        ]),
      ]),
    );
    console.log(`written: ${file}`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** The largest difference of two lists of scores, in parts of their own spread. */
function farthest(ours: Measured["scores"], theirs: Measured["scores"]): number {
  const each = Object.entries(ours).map(([key, values]) => {
    const others = theirs[key]!;
    const spread = Math.max(...others) - Math.min(...others);
    return Math.max(...values.map((value, i) => Math.abs(value - others[i]!))) / (spread || 1);
  });
  return Math.max(...each);
}

/** Random weights in the published layouts. */
function makeWeights({ python, size }: BenchOptions, keys: readonly string[], out: string): string {
  if (python === null)
    throw new BenchError("give --python, which makes random weights, or --recording with a folder that has them");
  const cases = new Set(keys.map((key) => CASES[key]!));
  if (cases.has("aesthetic")) cases.add("clip_openai");
  const script = join(root(), "bench", "reference", "scorer_weights.py");
  runProcess(python, [script, out, [...cases].join(","), "--size", size]);
  return out;
}

/** Files of pictures that are all different, so that nothing is remembered from one batch to the next. */
async function drawPictures(
  scratch: string,
  sizes: readonly number[],
): Promise<{ files: string[]; prompts: string[] }[]> {
  const folder = join(scratch, "pictures");
  mkdirSync(folder);
  const batches: { files: string[]; prompts: string[] }[] = [];
  let drawn = 0;
  for (const size of sizes) {
    const numbers = Array.from({ length: size }, (_, i) => drawn + i);
    drawn += size;
    const files: string[] = [];
    for (const n of numbers) {
      const data = Uint8Array.from({ length: SIDE * SIDE * 3 }, (_, at) => {
        const [x, y] = [((at / 3) | 0) % SIDE, (at / 3 / SIDE) | 0];
        return 128 + 80 * Math.sin((x * (n + 3)) / 97 + (at % 3)) + 40 * Math.cos((y * (n + 5)) / 61);
      });
      const path = join(folder, `${n}.png`);
      writeFileSync(path, await encodeImage({ width: SIDE, height: SIDE, data }, []));
      files.push(path);
    }
    batches.push({ files, prompts: numbers.map((n) => `a photo of a red bench number ${n} beside a tree`) });
  }
  return batches;
}
