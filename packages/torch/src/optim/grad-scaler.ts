/**
 * Dynamic loss scaling for float16 training (Micikevicius et al., 2018), as `torch.amp.GradScaler`: the loss is
 * multiplied by a scale so that small gradients do not vanish, the gradients are divided by it again. An overflow
 * halves the scale, and the step is to be left out; after `growthInterval` steps without one it is doubled.
 */
import { noGrad } from "../autograd.js";
import { full, zeros } from "../creation.js";
import { aten } from "../ops.generated.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** Options of {@link GradScaler}. */
export interface GradScalerOptions {
  /** First scale, default 65536; a power of two divides without rounding. */
  initScale?: number;
  /** What the scale is multiplied by when it grows; default 2. */
  growthFactor?: number;
  /** What the scale is multiplied by after an overflow; default 0.5. */
  backoffFactor?: number;
  /** Steps without an overflow after which the scale grows; default 2000. */
  growthInterval?: number;
}

/** What a checkpoint keeps of it. */
export interface GradScalerState {
  /** What the loss is to be multiplied by. */
  scale: number;
  /** Steps without an overflow since the scale last changed. */
  growthTracker: number;
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
 */
export class GradScaler {
  /** What the scale is multiplied by when it grows. */
  readonly growthFactor: number;
  /** What the scale is multiplied by after an overflow. */
  readonly backoffFactor: number;
  /** Steps without an overflow after which the scale grows. */
  readonly growthInterval: number;
  #state: GradScalerState;
  #overflow = false;

  constructor({
    initScale = 65536,
    growthFactor = 2,
    backoffFactor = 0.5,
    growthInterval = 2000,
  }: GradScalerOptions = {}) {
    this.growthFactor = growthFactor;
    this.backoffFactor = backoffFactor;
    this.growthInterval = growthInterval;
    this.#state = { scale: initScale, growthTracker: 0 };
  }

  /** What the loss is to be multiplied by. */
  get scale(): number {
    return this.#state.scale;
  }

  /**
   * Divides the gradients by the scale, in place. Waits for the device.
   * @returns whether all of them are finite; where not, leave the step out
   */
  unscale(params: Iterable<Tensor>): boolean {
    this.#overflow = noGrad(() =>
      scope(() => {
        const lists = new Map<string, Tensor[]>();
        for (const { grad } of params) {
          if (grad === null) continue;
          const list = lists.get(grad.device) ?? [];
          list.push(grad);
          lists.set(grad.device, list);
        }
        let found = 0;
        for (const [device, list] of lists) {
          const foundInf = zeros([1], { device });
          aten._amp_foreach_non_finite_check_and_unscale_(list, foundInf, full([1], 1 / this.scale, { device }));
          found += foundInf.item();
        }
        return found > 0;
      }),
    );
    return !this.#overflow;
  }

  /** Chooses the next scale. Call it after each step, made or left out. */
  update(): void {
    this.#state = scope(() => {
      const scale = full([1], this.scale);
      const tracker = full([1], this.#state.growthTracker, { dtype: "int32" });
      const overflow = full([1], this.#overflow ? 1 : 0);
      const { growthFactor, backoffFactor, growthInterval } = this;
      noGrad(() => aten._amp_update_scale_(scale, tracker, overflow, growthFactor, backoffFactor, growthInterval));
      return { scale: scale.item(), growthTracker: tracker.item() };
    });
    this.#overflow = false;
  }

  /** What a checkpoint keeps. */
  stateDict(): GradScalerState {
    return { ...this.#state };
  }

  /** Takes over what {@link stateDict} gave. */
  loadStateDict(state: GradScalerState): void {
    this.#state = { ...state };
  }
}
