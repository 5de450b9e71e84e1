/**
 * The figures of a training run between two lines of its log: means of the loss, speed, use of the machine, memory. The
 * names are the published code's where it has them (`train/loss`, `train/raw_loss`, `train/loss_gradnorm_reweighted`,
 * `train/logvar`, `lr-Lamb/pg1`).
 */
import { aten, cuda, memory, noGrad, scope, stack, type Tensor, zeros } from "@miro-t2i/torch";
import { TensorList } from "@miro-t2i/torch/optim";
import { cudaIndex } from "../../pipeline/loading/device.js";
import { SmoothMean } from "./smooth-mean.js";

/** Weight of the past in what the progress shows. */
const ABOUT_20_STEPS = 0.95;

/** Means over some rows of a batch. */
export interface StepTerms {
  loss: number;
  rawLoss: number;
  logvar?: number;
}

/** What a step has found. */
export interface StepReport extends StepTerms {
  /** Norm of all gradients before clipping; NaN or infinite in a step that was skipped. */
  gradNorm: number;
  /** The same for each group of the optimizer; only of steps that are logged. */
  groupNorms?: number[];
}

/** How long a step took. */
export interface StepTimes {
  /** Milliseconds that it waited for its batch. */
  waitMs: number;
  /** Milliseconds in all. */
  totalMs: number;
  /** Samples of the step. */
  images: number;
  /** Floating-point operations that the step's samples need, see `trainingFlops`. */
  flops?: number | undefined;
}

/** Means over the steps since the last log line, and the current speed. */
export class Meter {
  readonly #smoothLoss = new SmoothMean(ABOUT_20_STEPS);
  readonly #smoothMs = new SmoothMean(ABOUT_20_STEPS);
  #reports: StepReport[];
  #times: StepTimes[] = [];
  readonly #peakFlops: number | null;

  /**
   * @param peakFlops operations a second that the machine can do; without it there is no `speed/mfu`
   * @param unlogged what an earlier meter of the run had not logged
   */
  constructor(peakFlops: number | null = null, unlogged: readonly StepReport[] = []) {
    this.#peakFlops = peakFlops;
    this.#reports = [...unlogged];
  }

  /** The raw loss of late. */
  get smoothLoss(): number {
    return this.#smoothLoss.value;
  }

  /** Of late. */
  get stepsPerSecond(): number {
    return 1000 / this.#smoothMs.value;
  }

  /** What the steps since the last log line have found. */
  get unlogged(): readonly StepReport[] {
    return this.#reports;
  }

  /** What a step has found, which may be known later than how long it took. */
  report(report: StepReport): void {
    this.#reports.push(report);
    this.#smoothLoss.add(report.rawLoss);
  }

  /** How long a step took. */
  time(times: StepTimes): void {
    this.#times.push(times);
    this.#smoothMs.add(times.totalMs);
  }

  /** Figures since the last call. Means leave out what is not finite; null where nothing was. */
  flush(): Record<string, number | null> {
    const reports = this.#reports;
    const times = this.#times;
    this.#reports = [];
    this.#times = [];
    const mean = (pick: (report: StepReport) => number) => {
      const values = reports.map(pick).filter(Number.isFinite);
      return significant(values.reduce((sum, value) => sum + value, 0) / values.length);
    };
    const sum = (pick: (times: StepTimes) => number) => times.reduce((total, time) => total + pick(time), 0);
    const ms = sum(({ totalMs }) => totalMs);
    const waitMs = sum(({ waitMs }) => waitMs);
    const flops = times.every((time) => time.flops !== undefined) ? sum((time) => time.flops!) / (ms / 1000) : null;
    const reweighted = reports.some(({ logvar }) => logvar !== undefined);
    return {
      "train/loss": mean(({ loss }) => loss),
      "train/raw_loss": mean(({ rawLoss }) => rawLoss),
      ...(reweighted && {
        "train/loss_gradnorm_reweighted": mean(({ loss }) => loss),
        "train/logvar": mean(({ logvar = Number.NaN }) => logvar),
      }),
      "train/grad_norm": mean(({ gradNorm }) => gradNorm),
      ...Object.fromEntries(
        (reports.at(-1)?.groupNorms ?? []).map((norm, i) => [`train/grad_norm_pg${i + 1}`, significant(norm)]),
      ),
      "speed/images_per_second": significant(sum(({ images }) => images) / (ms / 1000)),
      "speed/step_ms": significant(ms / times.length),
      "speed/data_wait_ms": significant(waitMs / times.length),
      "speed/data_wait_share": significant(waitMs / ms),
      ...(flops !== null && { "speed/tflops": significant(flops / 1e12) }),
      ...(flops !== null && this.#peakFlops !== null && { "speed/mfu": significant(flops / this.#peakFlops) }),
    };
  }
}

/** `lr-Lamb/pg1`, …: the learning rate of each group of an optimizer, as Lightning's monitor names them. */
export function learningRates(optimizer: { paramGroups: readonly { lr: number }[] }): Record<string, number> {
  const name = optimizer.constructor.name;
  return Object.fromEntries(optimizer.paramGroups.map(({ lr }, i) => [`lr-${name}/pg${i + 1}`, lr]));
}

/** Bytes in use: of the process, of tensors on the CPU, and of the CUDA device that a run is on. */
export function memoryFigures(device: string): Record<string, number> {
  const { liveBytes, peakBytes } = memory.stats();
  const gpu = cudaIndex(device);
  const onDevice = gpu === null ? null : cuda.memory(gpu);
  return {
    "memory/rss_bytes": process.memoryUsage.rss(),
    "memory/tensor_bytes": liveBytes,
    "memory/peak_tensor_bytes": peakBytes,
    ...(onDevice && {
      "memory/cuda_bytes": onDevice.allocatedBytes,
      "memory/cuda_reserved_bytes": onDevice.reservedBytes,
      "memory/peak_cuda_bytes": onDevice.peakBytes,
    }),
  };
}

/** The norm of the gradients of each group, (groups) on their device; 0 for a group without. Waits for nothing. */
export function groupGradientNorms(groups: readonly { params: readonly Tensor[] }[]): Tensor {
  return noGrad(() =>
    scope(() => {
      const device = groups[0]?.params[0]?.device ?? "cpu";
      return stack(
        groups.map(({ params }) => {
          const gradients = new TensorList(params).gradients().filter((gradient) => gradient !== null);
          if (gradients.length === 0) return zeros([], { device });
          return aten.linalg_vector_norm(stack(aten._foreach_norm_Scalar(gradients, 2)), 2);
        }),
      );
    }),
  );
}

/** Six digits; JSON has no NaN. */
function significant(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(6)) : null;
}
