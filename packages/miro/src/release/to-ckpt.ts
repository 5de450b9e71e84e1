/**
 * A run, or a release, as a training checkpoint of the published code (PyTorch Lightning's layout), which it resumes
 * from.
 *
 * Of a run everything goes over: weights, EMA weights, moments, schedule, loss scale and step. A release has one set of
 * weights: they are the network's and its EMA's, the optimizer has no moments and the step is 0. The autoencoder, which
 * the published code keeps below `postprocessing.vae.`, is left out: it loads checkpoints without it.
 */
import { join } from "node:path";
import { nn, scope, type Tensor } from "@miro-t2i/torch";
import {
  type Picklable,
  PythonFloat,
  PythonTuple,
  type SafetensorsFile,
  writeTorchCheckpointInPieces,
} from "@miro-t2i/torch/io";
import { MiroError } from "../errors.js";
import { FlowPrecond } from "../networks/precond.js";
import { Rin } from "../networks/rin.js";
import { inPieces } from "../pieces.js";
import { emaName } from "../training/loop/ema.js";
import { scheduleOf, type WarmupCosineOptions, warmupCosine } from "../training/loop/lr-schedule.js";
import { parameterGroups } from "../training/loop/parameter-groups.js";
import type { Recipe } from "../training/recipes/recipe.js";
import { emaFile, type TrainingState } from "../training/state/checkpoint.js";
import type { ReleaseSource } from "./source.js";
import { checkWeights, deferred, expectedTensors, infoOf, type OnBytes, ReadMeter, type Weight } from "./weights.js";

/** The framework's version whose layout this is. */
const LIGHTNING = "2.6.0";
/** What the published configuration trains with; a release does not say it. */
const PUBLISHED = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 } as const;
const SCHEDULE: WarmupCosineOptions = { warmupSteps: 5000, totalSteps: 500_000, rate: 0.8 };

/** How {@link writeCkpt} tells what it does, and hears that it shall stop. */
export interface WriteCkptOptions {
  /** Told how much is written. */
  onBytes?: OnBytes;
  /** Stops between two tensors; `path` is as it was then. */
  signal?: AbortSignal;
}

/**
 * Writes the checkpoint.
 * @throws MiroError when the tensors do not fit the configuration; the signal's reason
 */
export async function writeCkpt(
  path: string,
  source: ReleaseSource,
  { onBytes, signal }: WriteCkptOptions = {},
): Promise<{ tensors: number; step: number }> {
  checkWeights(source.path, source.weights, expectedTensors(source.config));
  const run = runStateOf(source);
  const meter = new ReadMeter(onBytes);
  const state = stateDict(source, run, meter);
  const step = run?.state.step ?? 0;
  const checkpoint: Picklable = {
    epoch: 0,
    global_step: step,
    "pytorch-lightning_version": LIGHTNING,
    state_dict: state,
    loops: loops(step),
    callbacks: {},
    optimizer_states: [scope(() => optimizerState(source, run, meter))],
    lr_schedulers: [schedule(source.recipe)],
    ...(run?.state.scaler && {
      MixedPrecision: {
        scale: new PythonFloat(run.state.scaler.scale),
        growth_factor: new PythonFloat(2),
        backoff_factor: new PythonFloat(0.5),
        growth_interval: source.recipe!.trainer.lossScale.growthInterval,
        _growth_tracker: run.state.scaler.growthTracker,
      },
    }),
  };
  await inPieces(writeTorchCheckpointInPieces(path, checkpoint), signal);
  return { tensors: state.size, step };
}

/** The parts of a run's checkpoint that a release does not hold. */
interface RunState {
  state: TrainingState;
  recipe: Recipe;
  network: SafetensorsFile;
  optimizer: SafetensorsFile;
  /** By their published names. */
  averages: Map<string, SafetensorsFile>;
}

function runStateOf({ path, recipe, checkpoint }: ReleaseSource): RunState | null {
  if (recipe === null || checkpoint === null) return null;
  const { state, files } = checkpoint;
  const file = (name: string): SafetensorsFile => {
    const found = files.get(name);
    if (found === undefined) throw new MiroError(`${join(path, name)}: is missing`);
    return found;
  };
  const averages = [recipe.ema.decay].flat().map((decay, i) => {
    const name = emaName(decay, i);
    return [name, file(emaFile(name))] as const;
  });
  return {
    state,
    recipe,
    network: file("network.safetensors"),
    optimizer: file("optimizer.safetensors"),
    averages: new Map(averages),
  };
}

/** In the order of the published code's modules, and each of them in the order of its network. */
function stateDict(source: ReleaseSource, run: RunState | null, meter: ReadMeter): Map<string, Picklable> {
  const state = new Map<string, Picklable>();
  const { weights } = source;
  const names = [...expectedTensors(source.config).keys()];
  const add = (name: string, weight: Weight): void => {
    const { dtype } = infoOf(weight);
    state.set(name, meter.track(deferred(weight, dtype === "bool" ? "bool" : "float32")));
  };
  const copy = (module: string, as: string, weightOf: (name: string) => Weight): void => {
    for (const name of names)
      if (name.startsWith(`${module}.`)) add(`${as}${name.slice(module.length)}`, weightOf(name));
  };
  const released = (name: string): Weight => weights.get(name)!;
  copy("network", "network", run === null ? released : (key) => ({ file: run.network, key }));
  copy("data_preprocessing", "data_preprocessing", released);
  copy("preconditioning", "preconditioning", released);
  if (run === null) copy("network", "ema_network", released);
  for (const [name, file] of run?.averages ?? [])
    copy("network", name, (key) => ({ file, key: key.slice("network.".length) }));
  copy("postprocessing", "postprocessing", released);
  add("uncond_conditioning", source.uncondEmbedding);
  return state;
}

/**
 * Both groups of the published configuration. Masks are parameters there that are never trained: the first group lists
 * them, and they have no moments.
 */
function optimizerState({ config }: ReleaseSource, run: RunState | null, meter: ReadMeter): Picklable {
  const settings = run?.recipe.optimizer ?? PUBLISHED;
  const network = nn.init.skipped(() => new Rin(config.network));
  const preconditioning = nn.init.skipped(() => new FlowPrecond(config.preconditioning));
  const split = run?.recipe.optimizer.excludeLnAndBiasesFromWeightDecay ?? true;
  const groups = parameterGroups(network, preconditioning, settings.weightDecay, split);
  const places = new Map<Tensor, number>(groups.flatMap(({ params }) => params).map((param, i) => [param, i]));
  const plain = new Set(split ? groups[1]!.params : []);
  const everything = [...parametersAndMasks(network), ...parametersAndMasks(preconditioning)];
  const listed = groups.map(({ params }, i) => (i === 0 ? everything.filter((param) => !plain.has(param)) : params));
  const state = new Map<number, Picklable>();
  let number = 0;
  const lr = run === null ? settings.lr : settings.lr * warmupCosine(run.state.step, scheduleOf(run.recipe));
  const paramGroups = groups.map(({ weightDecay, layerAdaptation }, i) => {
    const params = listed[i]!.map((param) => {
      const place = places.get(param);
      const moments = place === undefined ? null : momentsOf(run, place, meter);
      if (moments !== null) state.set(number, moments);
      return number++;
    });
    return {
      weight_decay: new PythonFloat(weightDecay),
      ...(run?.recipe.optimizer.name === "adamw" ? {} : { layer_adaptation: layerAdaptation }),
      lr: new PythonFloat(lr),
      betas: new PythonTuple(settings.betas.map((beta) => new PythonFloat(beta))),
      eps: new PythonFloat(settings.eps),
      params,
    };
  });
  network.dispose();
  preconditioning.dispose();
  return { state, param_groups: paramGroups };
}

/** In the order of the state dict, which is that of the published network's parameters. */
function parametersAndMasks(module: nn.Module): Tensor[] {
  const parameters = new Set(module.parameters());
  return [...module.stateDict().values()].filter((tensor) => parameters.has(tensor) || tensor.dtype === "bool");
}

function momentsOf(run: RunState | null, place: number, meter: ReadMeter): Picklable | null {
  if (run === null || !run.optimizer.has(`${place}.exp_avg`)) return null;
  const { optimizer, recipe } = run;
  const part = (name: string) => deferred({ file: optimizer, key: `${place}.${name}` }, "float32");
  const step = part("step");
  return {
    step: recipe.optimizer.name === "adamw" ? meter.track(step) : scope(() => step.read().item()),
    exp_avg: meter.track(part("exp_avg")),
    exp_avg_sq: meter.track(part("exp_avg_sq")),
  };
}

function schedule(recipe: Recipe | null): Picklable {
  const { warmupSteps, totalSteps, rate = 1 } = recipe === null ? SCHEDULE : scheduleOf(recipe);
  const { lr, excludeLnAndBiasesFromWeightDecay: split = true } = recipe?.optimizer ?? {
    ...PUBLISHED,
    excludeLnAndBiasesFromWeightDecay: true,
  };
  return {
    warmup_steps: warmupSteps,
    base_lr: Array.from({ length: split ? 2 : 1 }, () => new PythonFloat(lr)),
    total_steps: totalSteps,
    rate: new PythonFloat(rate),
  };
}

/** Progress of the framework's loops after so many optimizer steps of one batch each, as between two epochs. */
function loops(step: number): Picklable {
  const counts = (names: readonly string[], value: number) => Object.fromEntries(names.map((name) => [name, value]));
  const progress = (names: readonly string[], total: number, current = 0) => ({
    total: counts(names, total),
    current: counts(names, current),
  });
  const DONE = ["ready", "completed"];
  const PHASES = ["ready", "started", "completed"];
  const ALL = ["ready", "started", "processed", "completed"];
  const batches = (total: number) => ({ ...progress(ALL, total), is_last_batch: false });
  const evaluation = { state_dict: {}, batch_progress: batches(0) };
  const epochs = step === 0 ? 0 : 1;
  return {
    fit_loop: {
      state_dict: {},
      "epoch_loop.state_dict": { _batches_that_stepped: step },
      "epoch_loop.batch_progress": batches(step),
      "epoch_loop.scheduler_progress": progress(DONE, step),
      "epoch_loop.automatic_optimization.state_dict": {},
      "epoch_loop.automatic_optimization.optim_progress": {
        optimizer: { step: progress(DONE, step), zero_grad: progress(PHASES, step) },
      },
      "epoch_loop.manual_optimization.state_dict": {},
      "epoch_loop.manual_optimization.optim_step_progress": progress(DONE, 0),
      "epoch_loop.val_loop.state_dict": {},
      "epoch_loop.val_loop.batch_progress": batches(0),
      epoch_progress: progress(ALL, epochs, epochs),
    },
    validate_loop: evaluation,
    test_loop: evaluation,
    predict_loop: { state_dict: {}, batch_progress: progress(ALL, 0) },
  };
}
