/**
 * Some training steps by a recipe on random data, in a process of its own, whose memory is then the training's:
 * `node bench/dist/training-run.js '{"recipe": …, "steps": 3}'`. Its last line is JSON.
 */
import { cuda, Generator, getNumThreads, manualSeed, nn, scope, zeros } from "@miro-t2i/torch";
import { clipGradNorm_, GradScaler, Lamb } from "@miro-t2i/torch/optim";
import { parseRinConfig, Rin } from "miro-t2i/networks";
import {
  createLoss,
  createNetworks,
  Ema,
  inPrecision,
  parameterGroups,
  parseRecipe,
  RandomBatches,
  WarmupCosine,
} from "miro-t2i/training";

export interface TrainingRun {
  /** In the form of a file, with `data.kind: random`. */
  recipe: unknown;
  /** Measured steps; one more comes first. */
  steps: number;
}

export interface TrainingFigures {
  /** Seconds of each measured step, by part. */
  seconds: { gradients: number[]; clip: number[]; optimizer: number[]; ema: number[] };
  /** Most memory in use: of the process on the CPU, of tensors on a CUDA device. */
  peakBytes: number;
  threads: number;
  versions?: Record<string, string>;
}

const given = JSON.parse(process.argv[2]!) as TrainingRun;
const recipe = parseRecipe(given.recipe);
const { device, precision, batchSize, gradientClipVal } = recipe.trainer;
const config = parseRinConfig(recipe.network);
const { name: _n, excludeLnAndBiasesFromWeightDecay: _e, ...settings } = recipe.optimizer;

manualSeed(0);
const { network, preconditioning } = createNetworks(recipe);
network.to({ device });
preconditioning.to({ device });
const copy = nn.init.skipped(() => new Rin(config)).to({ device });
const ema = new Ema(network, copy, { decay: [recipe.ema.decay].flat()[0]! });
const loss = createLoss(
  recipe,
  scope(() => zeros([1, config.labelDim], { device }).keep()),
);
const optimizer = new Lamb(parameterGroups(network, preconditioning, settings.weightDecay), {
  ...settings,
  decouple: false,
});
const { totalSteps = recipe.trainer.maxSteps, ...warmupCosine } = recipe.lrScheduler;
const schedule = new WarmupCosine(optimizer, { ...warmupCosine, totalSteps });
const trained = optimizer.paramGroups.flatMap(({ params }) => params);
const scaler = precision === "16-mixed" ? new GradScaler({ initScale: recipe.trainer.lossScale.init }) : null;
const source = new RandomBatches({
  seed: 0,
  batchSize,
  channels: config.numInputChannels,
  size: config.dataSize,
  textLength: Number(recipe.data.textLen ?? 0),
  textWidth: config.labelDim,
  rewardKeys: config.coherenceKeys,
});
const generator = new Generator().manualSeed(0);

const seconds: TrainingFigures["seconds"] = { gradients: [], clip: [], optimizer: [], ema: [] };
for (let step = 0; step <= given.steps; step++) {
  scope(() => {
    const { rewards, ...rest } = source.batch(step);
    const onDevice = <T extends object>(tensors: T) =>
      Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [key, tensor.to({ device })])) as T;
    const batch = { ...onDevice(rest), rewards: onDevice(rewards) };
    const measure = (part: keyof typeof seconds, work: () => void) => {
      if (device !== "cpu") cuda.synchronize();
      const start = performance.now();
      scope(work);
      if (device !== "cpu") cuda.synchronize();
      if (step > 0) seconds[part].push((performance.now() - start) / 1000);
    };
    measure("gradients", () => {
      const terms = loss.call(preconditioning, network, batch, {
        generator,
        precision: inPrecision(precision, device),
      });
      terms.loss.mul(scaler?.scale ?? 1).backward();
    });
    measure("clip", () => {
      scaler?.unscale(trained);
      const norm = clipGradNorm_(trained, gradientClipVal).item(); // the training loop reads it in every step
      if (!Number.isFinite(norm)) throw new Error(`step ${step}: the gradient norm is ${norm}`);
    });
    measure("optimizer", () => {
      schedule.apply(step + 1);
      optimizer.step();
      scaler?.update();
      optimizer.zeroGrad();
    });
    measure("ema", () => ema.update());
  });
}
const peakBytes =
  device === "cpu" ? process.resourceUsage().maxRSS * 1024 : cuda.memory(Number(device.split(":")[1] ?? 0)).peakBytes;
const figures: TrainingFigures = { seconds, peakBytes, threads: getNumThreads() };
console.log(JSON.stringify(figures));
