/**
 * Training checkpoints of the published code (PyTorch Lightning's `.ckpt`): weights, EMA weights, optimizer state,
 * schedule and step, read by the restricted reader of @miro-t2i/torch.
 *
 *   state_dict         network.*, ema_network.*, ema_network_0_999.*, preconditioning.*, data_preprocessing.*,
 *                      postprocessing.* (with the whole autoencoder below postprocessing.vae.), uncond_conditioning
 *   optimizer_states   one optimizer; its parameters are numbered over both groups, in the order of the network's
 *                      state dict, those of the preconditioning at the end of the first group
 *
 * Names may hold `_orig_mod.` of a compiled wrapper, and old networks an identity vector `output_scaling`, which is
 * left out.
 */
import { full, scope, type Tensor } from "@miro-t2i/torch";
import {
  loadModule,
  type PickleValue,
  type StoredTensor,
  TorchCheckpoint,
  type TorchStateDict,
  TorchTensor,
} from "@miro-t2i/torch/io";
import type { OptimizerState } from "@miro-t2i/torch/optim";
import { MiroError } from "../../errors.js";
import { snakeCase } from "../../letter-case.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { counted } from "../../numbers.js";
import type { Recipe } from "../recipes/recipe.js";
import type { Resumable } from "./resumable.js";

/** Endings of files that `torch.save` writes. */
export const TORCH_FILE = /\.(ckpt|pt|pth|bin)$/i;
const LEGACY_SCALING = /^output_scaling(\.|$)/;
const AVERAGE = /^ema_network(_[\w-]+)?$/;

type Dictionary = Map<PickleValue, PickleValue>;

/** State of one parameter of the optimizer, in the file. */
interface Moments {
  step: number;
  expAvg: TorchTensor;
  expAvgSq: TorchTensor;
}

/** Values that the schedule was saved with. */
export interface PublishedSchedule {
  warmupSteps: number;
  totalSteps: number;
  rate: number;
}

export class PublishedCheckpoint {
  readonly path: string;
  /** Optimizer steps done; null where the file does not say. */
  readonly step: number | null;
  readonly #file: TorchCheckpoint;
  /** Entries of the state dict that are no tensors, each with what it is. */
  readonly #others: ReadonlyMap<string, string>;
  /** By top-level module, tensors by the names they have below it, in the file's order. */
  readonly #modules = new Map<string, Map<string, StoredTensor>>();

  private constructor(path: string) {
    this.path = path;
    this.#file = TorchCheckpoint.open(path);
    const file = this.#stateDict();
    this.#others = file.others;
    for (const key of file.keys()) {
      const [module = "", ...rest] = key.split(".").filter((part) => part !== "_orig_mod");
      const tensors = this.#modules.get(module) ?? new Map<string, StoredTensor>();
      const name = rest.join(".");
      const other = tensors.get(name);
      if (other !== undefined) {
        this.#file.close();
        throw new MiroError(`${path}: state_dict holds both ${other.key} and ${key}, of which one network has one`);
      }
      tensors.set(name, { file, key });
      this.#modules.set(module, tensors);
    }
    const step = this.#entry("global_step");
    this.step = typeof step === "number" ? step : null;
  }

  #stateDict(): TorchStateDict {
    try {
      return this.#file.stateDict();
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /** @throws FormatError or TorchError naming the file and what is wrong with it */
  static open(path: string): PublishedCheckpoint {
    return new PublishedCheckpoint(path);
  }

  /** Names of the averaged networks: `ema_network` first, the others in the file's order. */
  get averages(): string[] {
    const names = [...this.#modules.keys()].filter((name) => AVERAGE.test(name));
    return names.sort((a, b) => Number(b === "ema_network") - Number(a === "ema_network"));
  }

  /** Names of everything that the state dict holds, up to the first dot. */
  get modules(): string[] {
    return [...this.#modules.keys()];
  }

  /**
   * Tensors below a name, in the file's order: `network`, one of {@link averages}, `preconditioning`,
   * `data_preprocessing`, …; a tensor of that very name is under "".
   */
  tensors(name: string): Map<string, StoredTensor> {
    return new Map([...(this.#modules.get(name) ?? [])].filter(([key]) => !LEGACY_SCALING.test(key)));
  }

  /**
   * Copies a network's values into a module.
   * @param name `network`, one of {@link averages}, or `preconditioning`
   * @throws MiroError or TorchError listing what is missing, unexpected or of another shape
   */
  load(name: string, module: Rin | FlowPrecond): void {
    if (!this.#modules.has(name))
      throw new MiroError(
        `${this.path}: holds no ${name}; it holds ${[...this.#modules.keys()].join(", ") || "nothing"}`,
      );
    try {
      loadModule(module, this.tensors(name));
    } catch (error) {
      const unread = [...this.#others].filter(([key]) => key.split(".")[0] === name);
      const [first] = unread;
      const note =
        first === undefined ? "" : `; not read, since they are no tensors (${unread.length}): ${first[0]}, ${first[1]}`;
      throw new MiroError(`${this.path}: ${name}: ${(error as Error).message}${note}`, { cause: error });
    }
  }

  /**
   * The optimizer's state in the form that an optimizer over `params` takes, in its order. The caller owns the tensors.
   * @param groups names (`network.…`, `preconditioning.…`) of the parameters, by the groups of the published
   *   configuration
   * @throws MiroError when there is none, or it belongs to other parameters
   */
  optimizerState(groups: readonly (readonly { name: string; param: Tensor }[])[]): Omit<OptimizerState, "groups"> {
    const states = this.#entry("optimizer_states");
    const [state] = Array.isArray(states) ? states : [];
    const fail = (message: string): never => {
      throw new MiroError(
        `${this.path}: the optimizer's state does not fit: ${message}; start with its weights alone (initialization.continue=false)`,
      );
    };
    if (!(state instanceof Map)) return fail("the file holds none");
    const stored = state.get("param_groups");
    const moments = state.get("state");
    if (!Array.isArray(stored) || !(moments instanceof Map)) return fail("it is no optimizer of PyTorch");
    if (stored.length !== groups.length)
      return fail(`it has ${counted(stored.length, "group")}, this recipe ${groups.length}`);
    const tensors: Record<string, Tensor> = {};
    let index = 0;
    let steps = 0;
    for (const [i, group] of groups.entries()) {
      const numbers = (stored[i] as Dictionary).get?.("params");
      if (!Array.isArray(numbers)) return fail(`group ${i + 1} names no parameters`);
      // Tensors that were never trained are listed without a state.
      const trained = numbers.filter((number) => moments.has(number));
      const names = this.#order(
        group.map(({ name }) => name),
        i === 0,
      );
      if (trained.length !== names.length)
        return fail(`group ${i + 1} has ${trained.length} trained tensors, this recipe ${names.length}`);
      const byName = new Map(names.map((name, at) => [name, readMoments(this.#file, moments.get(trained[at]!))]));
      for (const { name, param } of group) {
        const found = byName.get(name);
        if (!found) return fail(`${name} has no moments`);
        for (const [part, tensor] of [
          ["exp_avg", found.expAvg],
          ["exp_avg_sq", found.expAvgSq],
        ] as const) {
          if (String(tensor.shape) !== String(param.shape))
            return fail(`${name}: ${part} of shape [${tensor.shape}], expected [${param.shape}]`);
          tensors[`${index}.${part}`] = this.#file.read(tensor, `${part} of ${name}`);
        }
        tensors[`${index}.step`] = full([], found.step, { dtype: "float32" });
        steps = Math.max(steps, found.step);
        index++;
      }
    }
    return { step: steps, tensors };
  }

  /**
   * The trained names of a group in the file's order; what is not in the recipe's network (`output_scaling`) included.
   */
  #order(names: readonly string[], first: boolean): string[] {
    const wanted = new Set(names);
    const ordered: string[] = [];
    for (const module of ["network", "preconditioning"])
      for (const key of this.#modules.get(module)?.keys() ?? []) {
        const name = `${module}.${key}`;
        if (wanted.has(name) || (first && module === "network" && LEGACY_SCALING.test(key))) ordered.push(name);
      }
    return ordered;
  }

  /** The schedule it was trained with, null where the file does not say. */
  get schedule(): PublishedSchedule | null {
    const schedules = this.#entry("lr_schedulers");
    const [state] = Array.isArray(schedules) ? schedules : [];
    if (!(state instanceof Map)) return null;
    const [warmupSteps, totalSteps, rate] = ["warmup_steps", "total_steps", "rate"].map((key) => state.get(key));
    if (typeof warmupSteps !== "number" || typeof totalSteps !== "number" || typeof rate !== "number") return null;
    return { warmupSteps, totalSteps, rate };
  }

  /** State of the loss scaling of `16-mixed`, null where there is none. */
  get scaler(): { scale: number; growthTracker: number } | null {
    const state = this.#entry("MixedPrecision");
    if (!(state instanceof Map)) return null;
    const [scale, growthTracker] = [state.get("scale"), state.get("_growth_tracker")];
    return typeof scale === "number" && typeof growthTracker === "number" ? { scale, growthTracker } : null;
  }

  #entry(key: string): PickleValue | undefined {
    const { root } = this.#file;
    return root instanceof Map ? root.get(key) : undefined;
  }

  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The moments of a parameter; null where there are none. */
export function readMoments(file: TorchCheckpoint, value: PickleValue | undefined): Moments | null {
  if (!(value instanceof Map)) return null;
  const [step, expAvg, expAvgSq] = ["step", "exp_avg", "exp_avg_sq"].map((key) => value.get(key));
  const steps = readStep(file, step);
  if (steps === null || !isTensor(expAvg) || !isTensor(expAvgSq)) return null;
  return { step: steps, expAvg, expAvgSq };
}

/** The step of a parameter: a number, or, since PyTorch 1.12, a tensor of one. */
function readStep(file: TorchCheckpoint, value: PickleValue | undefined): number | null {
  if (!isTensor(value)) return typeof value === "number" ? value : null;
  if (value.numel !== 1 || value.dtype === null) return null;
  const step = Number(scope(() => file.read(value, "step").item()));
  return Number.isSafeInteger(step) && step >= 0 ? step : null;
}

/** Whether a value is a tensor, whose values are not read. */
export function isTensor(value: PickleValue | undefined): value is TorchTensor {
  return value instanceof TorchTensor;
}

/**
 * Continues where a published run stopped: its EMA weights, optimizer state, loss scale and step. The weights are the
 * network's already. The learning rate follows the recipe's schedule.
 * @returns what differs from the recipe, in words
 * @throws MiroError when a part is missing or does not fit
 */
export function continuePublished(checkpoint: PublishedCheckpoint, training: Resumable, recipe: Recipe): string[] {
  const { path, step, schedule, scaler } = checkpoint;
  const { network, preconditioning, optimizer, scaler: ownScaler } = training.parts;
  if (step === null) throw new MiroError(`${path}: holds no global_step, so a run cannot continue from it`);
  for (const [name, ema] of training.emas()) {
    checkpoint.load(name, ema.module);
    ema.updates = step;
  }
  const names = new Map<Tensor, string>();
  for (const [prefix, module] of [
    ["network", network],
    ["preconditioning", preconditioning],
  ] as const)
    for (const [name, parameter] of module.namedParameters(prefix)) names.set(parameter, name);
  const groups = optimizer.paramGroups.map(({ params }) => params.map((param) => ({ name: names.get(param)!, param })));
  scope(() => {
    const state = checkpoint.optimizerState(groups);
    optimizer.loadStateDict({ ...state, groups: optimizer.stateDict().groups });
  });
  if (scaler) ownScaler?.loadStateDict(scaler);
  training.step = step;
  const { warmupSteps, rate, totalSteps = recipe.trainer.maxSteps } = recipe.lrScheduler;
  return Object.entries({ warmupSteps, totalSteps, rate }).flatMap(([key, value]) => {
    const theirs = schedule?.[key as keyof PublishedSchedule];
    return theirs === undefined || theirs === value
      ? []
      : [`lr_scheduler.${snakeCase(key)}: ${theirs} in ${path}, ${value} now`];
  });
}
