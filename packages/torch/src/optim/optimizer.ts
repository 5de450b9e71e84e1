/** What the optimizers share: parameter groups, state per parameter, saving and loading. */
import { noGrad } from "../autograd.js";
import { full, zerosLike } from "../creation.js";
import { TorchError } from "../errors.js";
import { scope } from "../scope.js";
import type { Tensor } from "../tensor.js";

/** A group as the caller gives it: its tensors, and the options that differ from the optimizer's. */
export type GroupInput<Options> = { params: Iterable<Tensor> } & Partial<Options>;
/** A group with every option spelt out. Options may be changed between steps. */
export type ParamGroup<Options> = { params: Tensor[] } & Options;

/** What a checkpoint keeps of an optimizer. */
export interface OptimizerState {
  /** Steps taken. */
  step: number;
  /** `<position of the parameter over all groups>.<name of the value>`; the optimizer's own tensors, not copies. */
  tensors: Record<string, Tensor>;
  /** Options of each group, without its tensors. */
  groups: Record<string, unknown>[];
}

/** First and second moment of the gradient and the number of steps, for one parameter. */
export interface Moments {
  /** Running mean of the gradient, in the parameter's shape. */
  expAvg: Tensor;
  /** Running mean of the squared gradient, in the parameter's shape. */
  expAvgSq: Tensor;
  /** float32 scalar on the parameter's device, as the fused kernels want it. */
  step: Tensor;
}

/** State-dict names of the moments, PyTorch's. */
const MOMENT_NAMES = { expAvg: "exp_avg", expAvgSq: "exp_avg_sq", step: "step" } as const;
type MomentName = keyof typeof MOMENT_NAMES;

/** Options every optimizer here has. */
export interface AdamOptions {
  /** Learning rate, at least 0. */
  lr: number;
  /** Decay of the first and of the second moment, each in [0, 1). */
  betas: readonly [number, number];
  /** Added to the root of the second moment, at least 0. */
  eps: number;
  /** Factor λ of the weight decay. */
  weightDecay: number;
}

/** A parameter that has a gradient, with its state. */
export interface Entry extends Moments {
  /** The parameter. */
  param: Tensor;
  /** Its gradient, in its shape. */
  grad: Tensor;
  /** Steps taken before this one. */
  stepsTaken: number;
}

/** The base of the optimizers: parameter groups, moments, saving and loading. PyTorch: `torch.optim.Optimizer`. */
export abstract class Optimizer<Options extends AdamOptions> {
  /** The groups. Their options may be changed between steps, as schedulers do. */
  readonly paramGroups: ParamGroup<Options>[];
  /** Steps taken. */
  stepCount = 0;
  readonly #moments = new Map<Tensor, Moments>();
  /** Mirrors each `step` tensor on the host: reading it back would wait for the device. */
  readonly #stepsTaken = new Map<Tensor, number>();

  /**
   * Optimises a list of tensors, or groups of them with options of their own.
   *
   * @throws TorchError without parameters, when one is given twice, and for options out of range
   */
  protected constructor(params: Iterable<Tensor | GroupInput<Options>>, defaults: Options) {
    const items = [...params];
    const bare = items.filter(isTensor);
    if (bare.length > 0 && bare.length < items.length) {
      throw new TorchError(`${this.constructor.name}: give tensors or groups, not both`);
    }
    const groups = (bare.length > 0 ? [{ params: bare }] : items) as GroupInput<Options>[];
    this.paramGroups = groups.map((group) => ({ ...defaults, ...group, params: [...group.params] }));
    const all = this.#parameters();
    if (all.length === 0) throw new TorchError(`${this.constructor.name}: there are no parameters`);
    if (new Set(all).size < all.length) throw new TorchError(`${this.constructor.name}: a parameter is given twice`);
    for (const group of this.paramGroups) this.check(group);
  }

  /** Refuses options out of range. */
  protected check({ lr, betas, eps, weightDecay }: Options): void {
    const name = this.constructor.name;
    const limits: [string, number, boolean][] = [
      ["lr >= 0", lr, lr >= 0],
      ["eps >= 0", eps, eps >= 0],
      ["betas[0] in [0, 1)", betas[0], betas[0] >= 0 && betas[0] < 1],
      ["betas[1] in [0, 1)", betas[1], betas[1] >= 0 && betas[1] < 1],
      ["weightDecay to be finite", weightDecay, Number.isFinite(weightDecay)],
    ];
    for (const [rule, value, holds] of limits) {
      if (!holds) throw new TorchError(`${name}: expected ${rule}, got ${value}`);
    }
  }

  /** Updates every parameter that has a gradient. */
  step(): void {
    this.stepCount++;
    noGrad(() =>
      scope(() => {
        for (const group of this.paramGroups) {
          const entries = this.#entries(group);
          if (entries.length > 0) this.update(group, entries);
        }
      }),
    );
  }

  /** Updates one group; called without gradient recording, inside a scope. */
  protected abstract update(group: ParamGroup<Options>, entries: Entry[]): void;

  #entries(group: ParamGroup<Options>): Entry[] {
    const entries: Entry[] = [];
    for (const param of group.params) {
      const grad = param.requiresGrad ? param.grad : null;
      if (grad === null) continue;
      const stepsTaken = this.#stepsTaken.get(param) ?? 0;
      this.#stepsTaken.set(param, stepsTaken + 1);
      entries.push({ param, grad, stepsTaken, ...this.#momentsOf(param) });
    }
    return entries;
  }

  #momentsOf(param: Tensor): Moments {
    let moments = this.#moments.get(param);
    if (moments === undefined) {
      moments = {
        expAvg: zerosLike(param).keep(),
        expAvgSq: zerosLike(param).keep(),
        step: full([], 0, { dtype: "float32", device: param.device }).keep(),
      };
      this.#moments.set(param, moments);
    }
    return moments;
  }

  /** Drops the gradients. */
  zeroGrad(): void {
    for (const param of this.#parameters()) param.grad = null;
  }

  /** Steps, moments and options, for a checkpoint. The tensors are the optimizer's own, not copies. */
  stateDict(): OptimizerState {
    const tensors: Record<string, Tensor> = {};
    for (const [i, param] of this.#parameters().entries()) {
      const moments = this.#moments.get(param);
      if (moments === undefined) continue;
      for (const name of Object.keys(MOMENT_NAMES) as MomentName[]) {
        tensors[`${i}.${MOMENT_NAMES[name]}`] = moments[name];
      }
    }
    const groups = this.paramGroups.map(({ params: _, ...options }) => options as Record<string, unknown>);
    return { step: this.stepCount, tensors, groups };
  }

  /**
   * Takes over a state saved by {@link stateDict} (values are copied). Everything is checked before anything is
   * changed.
   * @throws TorchError that lists every group and tensor that does not fit.
   */
  loadStateDict({ step, tensors, groups }: OptimizerState): void {
    const name = this.constructor.name;
    const problems: string[] = [];
    if (!Number.isSafeInteger(step) || step < 0) problems.push(`step must be a count, got ${step}`);
    if (groups.length !== this.paramGroups.length) {
      problems.push(`expected ${this.paramGroups.length} groups, got ${groups.length}`);
    }
    const params = this.#parameters();
    const known = new Set<string>();
    const loaded = new Map<Tensor, Record<MomentName, Tensor>>();
    for (const [i, param] of params.entries()) {
      const found: Partial<Record<MomentName, Tensor>> = {};
      for (const moment of Object.keys(MOMENT_NAMES) as MomentName[]) {
        const key = `${i}.${MOMENT_NAMES[moment]}`;
        known.add(key);
        const value = tensors[key];
        if (value === undefined) continue;
        const expected = moment === "step" ? [] : param.shape;
        if (String(value.shape) !== String(expected))
          problems.push(`${key}: expected [${expected}], got [${value.shape}]`);
        found[moment] = value;
      }
      const count = Object.keys(found).length;
      if (count === 3) loaded.set(param, found as Record<MomentName, Tensor>);
      else if (count > 0) problems.push(`${i}: only ${Object.keys(found).join(", ")} given`);
    }
    for (const key of Object.keys(tensors)) if (!known.has(key)) problems.push(`${key}: unexpected`);
    if (problems.length > 0) throw new TorchError(`${name}: the state does not fit.\n  ${problems.join("\n  ")}`);

    const merged = this.paramGroups.map((group, i) => ({ ...group, ...groups[i], params: group.params }));
    for (const group of merged) this.check(group);
    this.stepCount = step;
    for (const [i, group] of merged.entries()) Object.assign(this.paramGroups[i]!, group);
    noGrad(() => {
      for (const param of params) {
        const values = loaded.get(param);
        if (values === undefined) {
          this.#forget(param);
          continue;
        }
        const moments = this.#momentsOf(param);
        for (const moment of Object.keys(MOMENT_NAMES) as MomentName[]) moments[moment].copy_(values[moment]);
        this.#stepsTaken.set(param, Number(values.step.item()));
      }
    });
  }

  /** Frees the state; the optimizer starts anew if it is used again. */
  dispose(): void {
    for (const param of this.#parameters()) this.#forget(param);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #forget(param: Tensor): void {
    const moments = this.#moments.get(param);
    this.#moments.delete(param);
    this.#stepsTaken.delete(param);
    for (const name of Object.keys(moments ?? {}) as MomentName[]) moments![name].dispose();
  }

  #parameters(): Tensor[] {
    return this.paramGroups.flatMap((group) => group.params);
  }
}

function isTensor(value: object): value is Tensor {
  return !("params" in value);
}

/** Sorts entries into lists that one foreach or fused call can take: one device, one dtype, one count of steps. */
export function byKind(entries: Entry[]): Entry[][] {
  const lists = new Map<string, Entry[]>();
  for (const entry of entries) {
    const kind = `${entry.param.device} ${entry.param.dtype} ${entry.grad.dtype} ${entry.stepsTaken}`;
    const list = lists.get(kind);
    if (list === undefined) lists.set(kind, [entry]);
    else list.push(entry);
  }
  return [...lists.values()];
}
