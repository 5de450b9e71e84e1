/** What the optimizers share: parameter groups, state per parameter, saving and loading. */
import { noGrad } from "../autograd.js";
import { zeros, zerosLike } from "../creation.js";
import { shown, TorchError } from "../errors.js";
import { options as known } from "../named-options.js";
import { native } from "../native.js";
import { scope } from "../scope.js";
import { Tensor } from "../tensor.js";
import { handleOrNone } from "../tensor-base.js";
import { TensorList } from "./tensor-list.js";

/** Options of which any may be left out. */
export type Some<Options> = { [K in keyof Options]?: Options[K] | undefined };
/** A group as the caller gives it: its tensors, and the options that differ from the optimizer's. */
export type GroupInput<Options> = { params: Iterable<Tensor> } & Some<Options>;
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
  /** float32 scalar on the parameter's device, as the fused kernels want it: a place in its group's counts. */
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

/** The names of {@link AdamOptions}. */
export const ADAM_OPTIONS: readonly string[] = ["lr", "betas", "eps", "weightDecay"];

/** How a group is updated by the engine. */
export interface Update {
  /** Whose kernels. */
  algorithm: "adamw" | "lamb";
  /** Of LAMB: p ← p·(1 − λ) after the step instead of λp in its direction. */
  decoupled: boolean;
  /** Of LAMB: the step is scaled by the trust ratio. */
  adapted: boolean;
}

/** The state of a group, and the lists that the engine takes; 0 stands for a parameter without state. */
interface GroupState {
  parameters: TensorList;
  firsts: Float64Array;
  seconds: Float64Array;
  steps: Float64Array;
  /** The counts of all parameters one after the other, of which each `step` is one; null on several devices. */
  counts: Tensor | null;
  /** Parameters without state. */
  missing: number;
}

/** The base of the optimizers: parameter groups, moments, saving and loading. PyTorch: `torch.optim.Optimizer`. */
export abstract class Optimizer<Options extends AdamOptions> {
  /** The groups. Their options may be changed between steps, as schedulers do. */
  readonly paramGroups: ParamGroup<Options>[];
  /** Steps taken. */
  stepCount = 0;
  readonly #moments = new Map<Tensor, Moments>();
  readonly #states = new Map<ParamGroup<Options>, GroupState>();
  readonly #settings = new Float64Array(7);
  readonly #all: TensorList;

  /**
   * Optimises a list of tensors, or groups of them with options of their own.
   *
   * @throws TorchError without parameters, when one is given twice or was computed from others, and for options that
   *   there are not or that are out of range
   */
  protected constructor(params: Iterable<Tensor | GroupInput<Options>>, defaults: Options) {
    const { name } = this.constructor;
    if (typeof params?.[Symbol.iterator] !== "function")
      throw new TorchError(`${name}: expected tensors or groups of them, such as model.parameters()`);
    const items = [...params];
    const bare = items.filter((item) => item instanceof Tensor);
    if (bare.length > 0 && bare.length < items.length) {
      throw new TorchError(`${name}: give tensors or groups, not both`);
    }
    const groups = (bare.length > 0 ? [{ params: bare }] : items) as GroupInput<Options>[];
    const names = ["params", ...Object.keys(defaults)];
    this.paramGroups = groups.map((group) => {
      const own = Object.entries(known(name, group, names)).filter(([, value]) => value !== undefined);
      return { ...defaults, ...Object.fromEntries(own), params: [...(group.params ?? [])] };
    });
    const all = this.#parameters();
    if (all.length === 0) throw new TorchError(`${name}: there are no parameters`);
    for (const [i, param] of all.entries()) {
      if (!(param instanceof Tensor)) throw new TorchError(`${name}: parameter ${i} is no Tensor`);
      if (!param.isLeaf)
        throw new TorchError(`${name}: parameter ${i} was computed from others, which have the gradient; give those`);
    }
    if (new Set(all).size < all.length) throw new TorchError(`${name}: a parameter is given twice`);
    for (const group of this.paramGroups) this.check(group);
    this.#all = new TensorList(all);
  }

  /** Refuses options out of range. */
  protected check({ lr, betas, eps, weightDecay }: Options): void {
    const name = this.constructor.name;
    const limits: [string, unknown, (value: number) => boolean][] = [
      ["lr >= 0", lr, (value) => value >= 0],
      ["eps >= 0", eps, (value) => value >= 0],
      ["betas[0] in [0, 1)", betas?.[0], (value) => value >= 0 && value < 1],
      ["betas[1] in [0, 1)", betas?.[1], (value) => value >= 0 && value < 1],
      ["weightDecay to be finite", weightDecay, Number.isFinite],
    ];
    for (const [rule, value, holds] of limits) {
      if (typeof value !== "number" || !holds(value))
        throw new TorchError(`${name}: expected ${rule}, got ${shown(value)}`);
    }
  }

  /**
   * Updates every parameter that has a gradient, without waiting for its device.
   *
   * @param skip float32 scalar: where it is 1, everything stays as it is. Say so with {@link skipped} once it is known.
   * @throws TorchError where an option of a group became NaN or undefined, before anything is changed
   */
  step(skip: Tensor | null = null): void {
    for (const group of this.paramGroups) {
      const { lr, betas, eps, weightDecay } = group;
      if (Number.isNaN(lr + betas[0] + betas[1] + eps + weightDecay)) this.check(group);
    }
    this.stepCount++;
    for (const group of this.paramGroups) this.#update(group, skip);
  }

  /** The last step was skipped: it does not count. */
  skipped(): void {
    this.stepCount--;
  }

  /** How the engine updates a group. */
  protected abstract update(group: ParamGroup<Options>): Update;

  #update(group: ParamGroup<Options>, skip: Tensor | null): void {
    if (group.params.length === 0) return;
    const state = this.#state(group);
    const parameters = state.parameters.handles();
    if (state.missing > 0) this.#addState(group, state);
    const { algorithm, decoupled, adapted } = this.update(group);
    const { lr, betas, eps, weightDecay } = group;
    this.#settings.set([lr, betas[0], betas[1], eps, weightDecay, Number(decoupled), Number(adapted)]);
    native.optimizerStep(
      algorithm,
      this.#settings,
      parameters,
      state.firsts,
      state.seconds,
      state.steps,
      state.missing === 0 && state.counts !== null ? state.counts.handle : 0,
      handleOrNone(skip, `${this.constructor.name}.step: skip`),
    );
  }

  /** The lists of a group, made at its first use: its tensors lie where they stay by then. */
  #state(group: ParamGroup<Options>): GroupState {
    const { params } = group;
    const known = this.#states.get(group);
    if (known !== undefined) {
      if (known.firsts.length === params.length) return known;
      throw new TorchError(`${this.constructor.name}: the tensors of a group cannot be changed once it was used`);
    }
    const devices = new Set(params.map(({ device }) => device));
    const [device] = devices;
    const count = params.length;
    const state: GroupState = {
      parameters: new TensorList(params),
      firsts: new Float64Array(count),
      seconds: new Float64Array(count),
      steps: new Float64Array(count),
      counts: devices.size === 1 ? scope(() => zeros([count], { device: device! }).keep()) : null,
      missing: count,
    };
    this.#states.set(group, state);
    return state;
  }

  /** Gives state to the parameters that have a gradient and no state yet. */
  #addState(group: ParamGroup<Options>, state: GroupState): void {
    const present = scope(() => state.parameters.gradients().map((gradient) => gradient !== null));
    for (const [i, param] of group.params.entries())
      if (present[i] && state.firsts[i] === 0) this.#momentsAt(state, i, param);
  }

  #momentsAt(state: GroupState, i: number, param: Tensor): Moments {
    const known = this.#moments.get(param);
    if (known !== undefined) return known;
    const moments = noGrad(() =>
      scope(() => ({
        expAvg: zerosLike(param).keep(),
        expAvgSq: zerosLike(param).keep(),
        step: (state.counts?.select(0, i) ?? zeros([], { device: param.device })).keep(),
      })),
    );
    this.#moments.set(param, moments);
    state.firsts[i] = moments.expAvg.handle;
    state.seconds[i] = moments.expAvgSq.handle;
    state.steps[i] = moments.step.handle;
    state.missing--;
    return moments;
  }

  /** Drops the gradients. */
  zeroGrad(): void {
    this.#all.clearGradients();
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
  loadStateDict(state: OptimizerState): void {
    const name = this.constructor.name;
    const { step, tensors, groups } = (state ?? {}) as OptimizerState;
    if (typeof tensors !== "object" || tensors === null || !Array.isArray(groups))
      throw new TorchError(`${name}: expected { step, tensors, groups }, as stateDict() gives it, got ${shown(state)}`);
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
        if (!(value instanceof Tensor)) problems.push(`${key}: expected a Tensor, got ${shown(value)}`);
        else if (String(value.shape) !== String(expected))
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
      for (const group of this.paramGroups) {
        const state = this.#state(group);
        for (const [i, param] of group.params.entries()) {
          const values = loaded.get(param);
          if (values === undefined) {
            this.#forget(state, i, param);
            continue;
          }
          const moments = this.#momentsAt(state, i, param);
          for (const moment of Object.keys(MOMENT_NAMES) as MomentName[]) moments[moment].copy_(values[moment]);
        }
      }
    });
  }

  /** Frees the state; the optimizer starts anew if it is used again. */
  dispose(): void {
    for (const [group, state] of this.#states) {
      for (const [i, param] of group.params.entries()) this.#forget(state, i, param);
      state.counts?.dispose();
    }
    this.#states.clear();
    this.stepCount = 0;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #forget(state: GroupState, i: number, param: Tensor): void {
    const moments = this.#moments.get(param);
    if (moments === undefined) return;
    this.#moments.delete(param);
    noGrad(() => moments.step.zero_());
    for (const name of Object.keys(moments) as MomentName[]) moments[name].dispose();
    state.firsts[i] = state.seconds[i] = state.steps[i] = 0;
    state.missing++;
  }

  #parameters(): Tensor[] {
    return this.paramGroups.flatMap((group) => group.params);
  }
}
