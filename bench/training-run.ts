/**
 * Some training steps by a recipe, as `miro train` makes them, in a process of its own, whose memory is then the
 * training's: `node bench/dist/training-run.js '{"recipe": …, "steps": 3}'`. Its last line is JSON.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cuda, getNumThreads } from "@miro-t2i/torch";
import { parseRecipe, runTraining } from "miro-t2i/training";

export interface TrainingRun {
  /** In the form of a file. */
  recipe: unknown;
  /** Measured steps; one more comes first, in which the optimizer's state is made. */
  steps: number;
}

export interface TrainingFigures {
  /** Seconds of each measured step: from the end of the one before to its own. */
  seconds: number[];
  /** Processor seconds of all threads in each. */
  cpuSeconds: number[];
  /** Most memory in use: of the process on the CPU, of tensors on a CUDA device. */
  peakBytes: number;
  threads: number;
  versions?: Record<string, string>;
}

const { recipe: given, steps } = JSON.parse(process.argv[2]!) as TrainingRun;
const { trainer, ...rest } = given as { trainer: object };
// Nothing beside the steps: figures are read for the log of the last one only.
const nothingElse = { log_every_n_steps: steps + 1, checkpoint_every_n_steps: 1_000_000 };
const recipe = parseRecipe({ ...rest, trainer: { ...trainer, ...nothingElse } });
const { device } = recipe.trainer;

/** When each step had ended. */
const ends: { at: number; cpu: number }[] = [];
const folder = mkdtempSync(join(tmpdir(), "miro-bench-training-"));
await runTraining({
  recipe,
  output: join(folder, "run"),
  onProgress({ step }) {
    const { user, system } = process.cpuUsage();
    ends.push({ at: performance.now() / 1000, cpu: (user + system) / 1e6 });
    if (step <= steps) return;
    const each = (pick: (end: (typeof ends)[number]) => number) =>
      ends.slice(1).map((end, i) => pick(end) - pick(ends[i]!));
    const gpu = Number(device.split(":")[1] ?? 0);
    const peakBytes = device === "cpu" ? process.resourceUsage().maxRSS * 1024 : cuda.memory(gpu).peakBytes;
    const seconds = each(({ at }) => at);
    const figures: TrainingFigures = {
      seconds,
      cpuSeconds: each(({ cpu }) => cpu),
      peakBytes,
      threads: getNumThreads(),
    };
    rmSync(folder, { recursive: true, force: true });
    console.log(JSON.stringify(figures));
    process.exit(0); // what comes now, a checkpoint, is measured elsewhere
  },
});
