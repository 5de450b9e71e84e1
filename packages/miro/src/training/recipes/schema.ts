/**
 * What a training recipe holds. Names are upstream's where upstream has them (`trainer.max_steps`,
 * `loss.cond_drop_rate`, …): snake_case in the file, camelCase here; the two network sections stay as `config.json` has
 * them. `data` is whatever the registered sources of batches say.
 */
import { z } from "zod";
import { setting } from "../../options.js";
import { deviceName } from "../../pipeline/loading/device.js";
import { type SourceData, sourceCount, sourceDataSchema } from "../batches/sources.js";
import "../batches/built-in.js";
import { PRECISIONS } from "./precision.js";

const count = z.int().positive();
const countFromZero = z.int().nonnegative();
const probability = z.number().min(0).max(1);
const object = z.record(z.string(), z.unknown());
const decay = z.number().min(0).lt(1);

const schedulerSchema = z.strictObject({
  start: setting(z.number().default(1), "γ at t = 0, the data", "model.train_noise_scheduler.start"),
  end: setting(z.number().default(0), "γ at t = 1, the noise", "model.train_noise_scheduler.end"),
  shift: setting(
    z.number().positive().default(1),
    "shift of the schedule: above 1 trains more near the data, 1 is none",
    "model.train_noise_scheduler.shift",
  ),
  clipMin: setting(z.number().positive().default(1e-9), "smallest γ", "model.train_noise_scheduler.clip_min"),
});

const lossSchema = z.strictObject({
  selfCondRate: setting(
    probability.default(0.9),
    "probability that a sample is trained with the latents of a first pass",
    "model.loss.self_cond_rate",
  ),
  condDropRate: setting(
    probability.default(0),
    "probability that a sample loses its text and its rewards",
    "model.loss.cond_drop_rate",
  ),
  textDropRate: setting(probability.default(0), "probability that a sample loses its text and keeps its rewards"),
  rewardDropRate: setting(probability.default(0), "probability that a single reward becomes unknown"),
  logitNormalResample: setting(
    z.boolean().default(true),
    "t = sigmoid(mu_t + std_t·N(0,1)), where t = 1 is noise; false: t is uniform",
    "model.loss.logit_normal_resample",
  ),
  muT: setting(z.number().default(0), "a positive value moves the training towards noisy inputs", "model.loss.mu_t"),
  stdT: setting(z.number().positive().default(1), "spread of the times around mu_t", "model.loss.std_t"),
  nanRewardAsZero: setting(
    z.boolean().default(false),
    "upstream's fault: in training an unknown reward is the reward 0, in sampling it is unknown",
  ),
});

const initializationSchema = z.strictObject({
  distinctTokens: setting(
    z.boolean().default(false),
    "learned latents and data positions start far apart instead of nearly alike",
  ),
  from: setting(
    z.string().optional(),
    "release folder, run (its EMA weights), miro-emoji (the bundled model), or training checkpoint of the published code (FILE.ckpt), whose weights the run starts with; its network must have the recipe's sizes, but a model's patches may be larger: its weights are then grown",
  ),
  average: setting(
    z.string().optional(),
    "of a training checkpoint: the EMA weights (ema_network, ema_network_0_999) that the network starts with; by default its own weights",
  ),
  continue: setting(
    z.boolean().default(false),
    "of a training checkpoint: also restore the EMA weights, optimizer state, loss scale and step, and continue from there",
  ),
});

const optimizerSchema = z.strictObject({
  name: setting(z.enum(["lamb", "adamw"]).default("lamb"), "which optimizer", "model.optimizer"),
  lr: setting(z.number().positive(), "learning rate after the warm-up", "model.optimizer.lr"),
  betas: setting(
    z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.999]),
    "decay of the first and of the second moment",
    "model.optimizer.betas",
  ),
  eps: setting(
    z.number().positive().default(1e-8),
    "what is added to the root of the second moment",
    "model.optimizer.eps",
  ),
  weightDecay: setting(
    z.number().min(0).default(0.01),
    "decay of the weights in each step",
    "model.optimizer.weight_decay",
  ),
  excludeLnAndBiasesFromWeightDecay: setting(
    z.boolean().default(true),
    "norms and biases do not decay",
    "model.optimizer.exclude_ln_and_biases_from_weight_decay",
  ),
});

const lrSchedulerSchema = z.strictObject({
  warmupSteps: setting(
    countFromZero,
    "steps over which the learning rate rises from 0",
    "model.lr_scheduler.warmup_steps",
  ),
  totalSteps: setting(
    count.optional(),
    "steps that the schedule is made for; by default trainer.max_steps. Beyond them the cosine goes on, and the learning rate rises again",
    "model.lr_scheduler.total_steps",
  ),
  rate: setting(
    z.number().min(0).default(1),
    "part of the half cosine that is walked until total_steps; 1 ends at zero",
    "model.lr_scheduler.rate",
  ),
  firstUpdateAtFullRate: setting(
    z.boolean().default(false),
    "upstream's behaviour: the first update ignores the schedule",
  ),
});

const emaSchema = z.strictObject({
  decay: setting(
    z.union([decay, z.array(decay).min(1)]).default(0.9999),
    "decay of the EMA weights, or a list for several sets of them; the first is ema_network, a later one of decay 0.999 is ema_network_0_999",
    "model.ema_decay",
  ),
  defaultIndex: setting(
    countFromZero.default(0),
    "which of them draws the samples and is released, from 0",
    "model.default_ema_index",
  ),
  warmup: setting(
    z.boolean().default(false),
    "begin with a short horizon: decay min(decay, (1 + k) / (10 + k)) at update k",
  ),
  everyNSteps: setting(
    count.default(1),
    "steps that are averaged at once, with the decay of all of them: less memory traffic for small steps",
  ),
  updateOnSkippedSteps: setting(
    z.boolean().default(false),
    "upstream's fault: steps that were skipped for their gradients update the EMA weights too",
  ),
});

const strategySchema = z.strictObject({
  bucketCapMb: setting(
    z.number().positive().max(65536).default(25),
    "gradients are all-reduced in buckets of so many MiB, overlapped with the backward pass",
    "trainer.strategy.bucket_cap_mb",
  ),
  findUnusedParameters: setting(
    z.boolean().default(false),
    "look in every step for parameters that the loss does not depend on",
    "trainer.strategy.find_unused_parameters",
  ),
  timeoutSeconds: setting(
    z.int().positive().default(1800),
    "how long a process waits for the others before it gives up",
  ),
});

const trainerSchema = z.strictObject({
  maxSteps: setting(count, "optimizer steps of the whole run", "trainer.max_steps"),
  maxMinutes: setting(
    z.number().positive().optional(),
    "after so many minutes the run stops as at its end, with a checkpoint and a release, however many steps are done; counted anew by each start. The schedule stays that of max_steps, so that the run can go on",
  ),
  batchSize: setting(count, "samples of one optimizer step, all devices together", "data.full_batch_size"),
  devices: setting(count.default(1), "processes on each node, one for each device", "computer.devices"),
  numNodes: setting(count.default(1), "machines", "computer.num_nodes"),
  deviceBatchSize: setting(
    count.optional(),
    "samples of a micro-batch, which a device computes at once; the rest of its share follows in further accumulation steps; by default all of it",
  ),
  accumulateGradBatches: setting(count.optional(), "the same, stated as the number of accumulation steps"),
  device: setting(deviceName.default("cpu"), "cpu, cuda or cuda:N", "computer.accelerator"),
  strategy: setting(strategySchema.prefault({}), "how several processes work together", "trainer.strategy"),
  precision: setting(
    z.enum(PRECISIONS).default("32-true"),
    "bf16-mixed, 16-mixed: matrix products in half precision; weights, sums and optimizer in float32",
    "computer.precision",
  ),
  lossScale: setting(
    z
      .strictObject({
        init: setting(z.number().positive().default(65536), "the first loss scale"),
        growthInterval: setting(
          count.default(2000),
          "it is doubled after so many steps without an overflow, and halved by an overflow",
        ),
      })
      .prefault({}),
    "with 16-mixed: what the loss is multiplied by, so that small gradients do not vanish",
  ),
  zeroNonFiniteGradients: setting(
    z.boolean().default(false),
    "upstream's repair: gradients that are not finite become 0 and the step is made (16-mixed skips it all the same)",
  ),
  cudaGraphs: setting(
    z.boolean().default(false),
    "on a GPU: loss and gradients are recorded once and replayed by one launch, which is faster for small batches",
  ),
  threads: setting(countFromZero.default(0), "threads of one tensor operation; 0 leaves libtorch's choice"),
  replicas: setting(
    count.optional(),
    "threads that divide each batch's rows among them, by default one; for networks whose operations are too small to divide. For one process on the CPU: where a GPU or several processes are chosen, a recipe's value is left out",
  ),
  gradientClipVal: setting(
    z.number().min(0).nullable().default(2),
    "largest norm of all gradients together; larger ones are scaled down to it. 0 or null: none are",
    "trainer.gradient_clip_val",
  ),
  maxSkippedInARow: setting(
    count.default(5),
    "a step whose loss or gradients are not finite is skipped, with the name of the first such tensor; after so many in a row the run ends",
  ),
  logEveryNSteps: setting(count.default(10), "steps from one line of the log to the next", "trainer.log_every_n_steps"),
  checkpointEveryNSteps: setting(
    count.default(500),
    "steps from one checkpoint to the next",
    "checkpoints.every_n_train_steps",
  ),
  keepLast: setting(count.default(2), "how many of the newest checkpoints stay"),
  keepEveryNSteps: setting(
    countFromZero.default(0),
    "checkpoints whose step is a multiple of this stay; 0: only the newest do",
  ),
});

const loggerSchema = z.strictObject({
  tensorboard: setting(z.boolean().default(true), "event files for TensorBoard in RUN/tensorboard, beside log.jsonl"),
  peakTflops: setting(
    z.number().positive().optional(),
    "10¹² operations a second that speed/mfu is a share of; by default the most that matrix products reach when the run begins",
  ),
});

const validationSchema = z.strictObject({
  everyNSteps: setting(
    countFromZero.default(0),
    "steps from one validation to the next; 0: never",
    "trainer.val_check_interval",
  ),
  root: setting(
    z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]).optional(),
    "folders of shards, tar files or index files, below data.dir like those of data.root",
    "data.val_instance.root",
  ),
  batches: setting(count.default(16), "batches that are looked at; all there are where they are fewer"),
  batchSize: setting(count.optional(), "samples of a batch; by default as many as a device computes at once"),
});

const samplesSchema = z.strictObject({
  everyNSteps: setting(countFromZero.default(0), "steps from one sheet of samples to the next; 0: never"),
  offset: setting(
    countFromZero.default(0),
    "steps behind a multiple of every_n_steps: 1 draws at steps 1, n + 1, …, as upstream does",
  ),
  prompts: setting(z.array(z.string()).default([]), "what to draw, a picture each"),
  testbed: setting(
    z.string().min(1).optional(),
    "folder of a prompt testbed whose embeddings miro testbed has computed; drawn in place of the prompts",
  ),
  testbedCount: setting(count.nullable().default(80), "prompts that the testbed must have; null for any number"),
  embeddingsName: setting(z.string().default("flan_t5_xl"), "the embeddings are in NAME_embeddings/"),
  samplesPerPrompt: setting(
    count.refine((n) => Number.isInteger(Math.sqrt(n)), "expected a square: 1, 4, 9, …").default(4),
    "samples of each prompt of the testbed, shown as a square: 1, 4, 9, …",
  ),
  batchSize: setting(count.default(64), "samples of the testbed that are drawn at a time"),
  steps: setting(count.default(20), "steps of the sampler", "model.val_sampler"),
  guidanceScale: setting(z.number().default(3), "guidance weight ω", "model.cfg_rate"),
  shift: setting(
    z.number().positive().default(1),
    "shift of the sampling schedule; below 1 spends more steps near the noise",
    "model.inference_noise_scheduler.shift",
  ),
  rewardTarget: setting(
    z.number().default(1),
    "target of every reward; the negative branch of guidance gets 0",
    "model.coherence_values",
  ),
  seed: setting(countFromZero.default(0), "seed of the samples"),
  columns: setting(count.default(8), "samples in a row of the sheet"),
  scorers: setting(
    z.array(z.string().min(1)).default([]),
    "keys of scorers; the mean score of the samples is logged as samples/KEY",
  ),
  scorerWeights: setting(
    z.array(z.string().regex(/^[a-z][a-z0-9_]*=.+$/, "expected SCORER=DIR")).default([]),
    "folders or Hub repositories of scorers' models, KEY=DIR each",
  ),
});

const withData = (data: z.ZodType<SourceData>) =>
  z.strictObject({
    name: setting(
      z.string().regex(/^[\w.-]+$/, "expected letters, digits, '.', '_' and '-'"),
      "names the folder of the run, runs/NAME",
      "experiment_name_suffix",
    ),
    seed: setting(countFromZero.default(3407), "seed of everything random"),
    data: setting(data, "where the training batches come from", "data.train_instance"),
    network: setting(object, "sizes of the network, as in config.json", "model.network.instance"),
    preconditioning: setting(object.default({}), "scaling of the loss, as in config.json", "model.preconditioning"),
    scheduler: setting(
      schedulerSchema.prefault({}),
      "the schedule γ(t) from data to noise",
      "model.train_noise_scheduler",
    ),
    loss: setting(lossSchema.prefault({}), "what is learnt", "model.loss"),
    initialization: setting(initializationSchema.prefault({}), "what the run starts with"),
    optimizer: setting(optimizerSchema, "how weights change", "model.optimizer"),
    lrScheduler: setting(lrSchedulerSchema, "how the learning rate changes", "model.lr_scheduler"),
    ema: setting(
      emaSchema.prefault({}),
      "exponential moving averages of the weights, which draw the samples and are released",
    ),
    trainer: setting(trainerSchema, "steps, batch, devices and what is stored", "trainer"),
    logger: setting(loggerSchema.prefault({}), "what is logged", "logger"),
    validation: setting(validationSchema.prefault({}), "the loss on other samples"),
    samples: setting(samplesSchema.prefault({}), "pictures that the run draws on its way"),
  });

/** A checked recipe with every default filled in. */
export type Recipe = z.output<ReturnType<typeof withData>>;

let built: { sources: number; schema: ReturnType<typeof withData> } | null = null;

/** The schema of recipes, with the sources of data that are known now. */
export function recipeSchema(): ReturnType<typeof withData> {
  const sources = sourceCount();
  if (built?.sources !== sources) built = { sources, schema: withData(sourceDataSchema()) };
  return built.schema;
}
