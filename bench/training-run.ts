/**
 * Some training steps by a recipe, as `miro train` makes them, in a process of its own, whose memory is then the
 * training's: `node bench/dist/training-run.js '{"recipe": …, "steps": 3}'`. Its last line is JSON.
 *
 * On a CPU each step is measured. On a device, where the host runs ahead, it is the time from when the device had done
 * the unmeasured steps to when it had done the last one, divided by the number of steps: the host waits for the device
 * at these two moments and at no other that `miro train` does not have.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cuda, getNumThreads } from "@miro-t2i/torch";
import { parseRecipe, runTraining } from "miro-t2i/training";
import { gpuOf, waitForDevice } from "./harness.js";
import { stepTimes } from "./step-times.js";

export interface TrainingRun {
  /** In the form of a file. */
  recipe: unknown;
  /** Measured steps; a few others come first. */
  steps: number;
}

export interface TrainingFigures {
  /** Seconds of each measured step, from the end of the one before to its own; on a device their mean alone. */
  seconds: number[];
  /** Processor seconds of all threads, likewise. */
  cpuSeconds: number[];
  /** Most memory in use: of the process on the CPU, of tensors on a CUDA device. */
  peakBytes: number;
  threads: number;
  versions?: Record<string, string>;
}

const { recipe: given, steps } = JSON.parse(process.argv[2]!) as TrainingRun;
const { trainer, ...rest } = given as { trainer: object };
// Nothing beside the steps.
const nothingElse = { log_every_n_steps: 1_000_000, checkpoint_every_n_steps: 1_000_000 };
const recipe = parseRecipe({ ...rest, trainer: { ...trainer, ...nothingElse } });
const { device } = recipe.trainer;
const queued = device !== "cpu";
/** In the first step the optimizer's state is made, and on a device the next ones still reserve memory. */
const unmeasured = queued ? 3 : 1;

/** When each step had ended, from the last unmeasured one on. */
const ends: { at: number; cpu: number }[] = [];
const folder = mkdtempSync(join(tmpdir(), "miro-bench-training-"));
await runTraining({
  recipe,
  output: join(folder, "run"),
  onWarning(warning) {
    // Steps that are not recorded would be measured as if they were.
    if (warning.includes("trainer.cuda_graphs")) throw new Error(warning);
    console.error(warning);
  },
  onProgress({ step }) {
    if (step < unmeasured) return;
    const isLast = step === unmeasured + steps;
    if (queued && (step === unmeasured || isLast)) waitForDevice(device);
    const { user, system } = process.cpuUsage();
    ends.push({ at: performance.now() / 1000, cpu: (user + system) / 1e6 });
    if (!isLast) return;
    const figures: TrainingFigures = {
      seconds: stepTimes(
        ends.map(({ at }) => at),
        queued,
      ),
      cpuSeconds: stepTimes(
        ends.map(({ cpu }) => cpu),
        queued,
      ),
      peakBytes: queued ? cuda.memory(gpuOf(device)!).peakBytes : process.resourceUsage().maxRSS * 1024,
      threads: getNumThreads(),
    };
    rmSync(folder, { recursive: true, force: true });
    console.log(JSON.stringify(figures));
    process.exit(0); // what comes now, a checkpoint, is measured elsewhere
  },
});
