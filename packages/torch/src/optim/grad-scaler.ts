/**
 * Dynamic loss scaling for float16 training (Micikevicius et al., 2018), as `torch.amp.GradScaler`: the loss is
 * multiplied by a scale so that small gradients do not vanish, the gradients are divided by it again. An overflow
 * halves the scale, and the step is to be left out; after `growthInterval` steps without one it is doubled.
 *
 * The scale lies on the device of the gradients, so that a step need not wait for it.
 */
import { noGrad } from "../autograd.js";
import { full, zeros } from "../creation.js";
import { options as known } from "../named-options.js";
import { native } from "../native.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";
import { TensorList } from "./tensor-list.js";

/** Options of {@link GradScaler}. */
export interface GradScalerOptions {
  /** First scale, default 65536; a power of two divides without rounding. */
  initScale?: number | undefined;
  /** What the scale is multiplied by when it grows; default 2. */
  growthFactor?: number | undefined;
  /** What the scale is multiplied by after an overflow; default 0.5. */
  backoffFactor?: number | undefined;
  /** Steps without an overflow after which the scale grows; default 2000. */
  growthInterval?: number | undefined;
}

/** What a checkpoint keeps of it. */
export interface GradScalerState {
  /** What the loss is to be multiplied by. */
  scale: number;
  /** Steps without an overflow since the scale last changed. */
  growthTracker: number;
}

/** The state on a device. */
interface OnDevice {
  /** float32, (1). */
  scale: Tensor;
  /** int32, (1). */
  tracker: Tensor;
  /** float32, (1): 1 after an overflow, else 0. */
  found: Tensor;
}

/**
 * Dynamic loss scaling for float16. PyTorch: `torch.amp.GradScaler`.
 *
 * @example
 * ```ts
 * loss.mul(scaler.scale).backward();
 * if (scaler.unscale(model.parameters())) optimizer.step();
 * scaler.update();
 * ```
 *
 * Without waiting for the device:
 *
 * @example
 * ```ts
 * loss.mul(scaler.scaleOn(device)).backward();
 * optimizer.step(scaler.unscale_(model.parameters()));
 * scaler.update();
 * ```
 */
export class GradScaler {
  /** What the scale is multiplied by when it grows. */
  readonly growthFactor: number;
  /** What the scale is multiplied by after an overflow. */
  readonly backoffFactor: number;
  /** Steps without an overflow after which the scale grows. */
  readonly growthInterval: number;
  /** Before it lies on a device. */
  #initial: GradScalerState;
  #state: OnDevice | null = null;

  constructor(options: GradScalerOptions = {}) {
    const names = ["initScale", "growthFactor", "backoffFactor", "growthInterval"];
    const {
      initScale = 65536,
      growthFactor = 2,
      backoffFactor = 0.5,
      growthInterval = 2000,
    } = known("GradScaler", options, names);
    this.growthFactor = growthFactor;
    this.backoffFactor = backoffFactor;
    this.growthInterval = growthInterval;
    this.#initial = { scale: initScale, growthTracker: 0 };
  }

  /** What the loss is to be multiplied by. Waits for the device. */
  get scale(): number {
    return this.#state === null ? this.#initial.scale : this.#state.scale.item();
  }

  /** The same as a float32 tensor (1) on a device, which is the scaler's own and changes with {@link update}. */
  scaleOn(device: string): Tensor {
    return this.#on(device).scale;
  }

  #on(device: string): OnDevice {
    this.#state ??= scope(() => ({
      scale: full([1], this.#initial.scale, { device }).keep(),
      tracker: full([1], this.#initial.growthTracker, { dtype: "int32", device }).keep(),
      found: zeros([1], { device }).keep(),
    }));
    return this.#state;
  }

  /**
   * Divides the gradients by the scale, in place. Waits for the device.
   * @returns whether all of them are finite; where not, leave the step out
   */
  unscale(params: Iterable<Tensor> | TensorList): boolean {
    return this.unscale_(params).item() === 0;
  }

  /**
   * Divides the gradients by the scale, in place and without waiting for the device.
   * @returns float32 (1), the scaler's own: 1 where a gradient is not finite, else 0; for an optimizer's `step`
   */
  unscale_(params: Iterable<Tensor> | TensorList): Tensor {
    const list = TensorList.of(params);
    const { scale, found } = this.#on(list.tensors[0]?.device ?? "cpu");
    noGrad(() =>
      scope(() => {
        found.zero_();
        native.unscaleGradients(list.handles(), scale.double().reciprocal().float().handle, found.handle);
      }),
    );
    return found;
  }

  /** Chooses the next scale. Call it after each step, made or left out. */
  update(): void {
    const { growthFactor, backoffFactor, growthInterval } = this;
    const { scale, tracker, found } = this.#on("cpu");
    noGrad(() => {
      aten._amp_update_scale_(scale, tracker, found, growthFactor, backoffFactor, growthInterval);
      found.zero_();
    });
  }

  /** What a checkpoint keeps. Waits for the device. */
  stateDict(): GradScalerState {
    const state = this.#state;
    if (state === null) return { ...this.#initial };
    return { scale: state.scale.item(), growthTracker: state.tracker.item() };
  }

  /** Takes over what {@link stateDict} gave. */
  loadStateDict(state: GradScalerState): void {
    this.#initial = { ...state };
    if (this.#state === null) return;
    const { scale, tracker } = this.#state;
    noGrad(() => {
      scale.fill_(state.scale);
      tracker.fill_(state.growthTracker);
    });
  }
}
