/**
 * Training recipes: a YAML file and `key=value` overrides, checked as a whole before anything is allocated.
 *
 * Names are upstream's where upstream has them (`trainer.max_steps`, `loss.cond_drop_rate`, `network.num_latents`, …): snake_case
 * in the file, camelCase in the checked {@link Recipe}; the two network sections stay as `config.json` has them.
 */
import { stringify } from "yaml";
import { z } from "zod";
import { LATENT_DTYPES } from "../../data/dataset/latents.js";
import { trainingSetOptionsSchema } from "../../data/dataset/training-set-options.js";
import { EMOJI_REWARD_KEYS, emojiSceneOptionsSchema } from "../../data/emoji/scenes.js";
import { describe, InvalidInputError } from "../../errors.js";
import { camelCase, snakeCase } from "../../letter-case.js";
import { nearest } from "../../nearest.js";
import {
  parsePrecondConfig,
  parseRinConfig,
  precondConfigToJson,
  type RinConfig,
  rinConfigToJson,
} from "../../networks/config.js";
import { batchPlan } from "./batch-plan.js";
import { PRECISIONS } from "./precision.js";
import { composeRecipe, type Origins } from "./recipe-source.js";

const count = z.int().positive();
const probability = z.number().min(0).max(1);
const object = z.record(z.string(), z.unknown());
const decay = z.number().min(0).lt(1);

/** Scenes of emoji, rendered and encoded once into a cache of latents. */
const emojiData = z.strictObject({
  kind: z.literal("emoji"),
  /** Distinct scenes; a longer run walks through them again, shuffled anew each time. */
  samples: count,
  /** Scenes in one file of the cache. */
  shardSize: count.default(1024),
  /** Scenes to draw: vocabulary, side in pixels, layouts, backgrounds, degradations, seed. */
  scenes: emojiSceneOptionsSchema.prefault({}),
  /** Folder of the latent cache. */
  cache: z.string(),
  /** Threads that render and encode beside the training. */
  workers: count.default(1),
  /** Folder of the frozen autoencoder. */
  autoencoder: z.string(),
  /** Folder of the frozen text encoder with its tokenizer. */
  textEncoder: z.string(),
  /** Captions longer than this are cut. */
  maxTextLen: count,
});

/** Enriched shards, as the published preparation and `miro preprocess` write them. */
const shardData = z.strictObject({
  kind: z.literal("shards"),
  /** Folder that relative roots lie in; by default the working directory. */
  dir: z.string().min(1).optional(),
  ...trainingSetOptionsSchema.shape,
  /** Draw latents as mean + std·noise; false trains on the mean. */
  vaeSample: z.boolean().default(true),
  /** `stored` rounds every step of the draw to the dtype of the files, as the published code does. */
  latentDtype: z.enum(LATENT_DTYPES).default("float32"),
  /**
   * How latents become x: with the statistics of the SDXL autoencoder (`sdxl`: by channel, what every published model uses; `sdxl_plain`: one
   * factor), or with those of the first samples of the shards (`data`), for any other autoencoder.
   */
  latentNormalization: z.enum(["sdxl", "sdxl_plain", "data"]).default("sdxl"),
  /** Texts longer than this are cut. */
  maxTextLen: count.default(256),
  /** `longest`: pad each batch to its longest text; `fixed`: always to max_text_len, as the published code does. */
  textPadding: z.enum(["longest", "fixed"]).default("longest"),
  /** Batches that are read ahead. */
  prefetchFactor: z.int().positive().max(256).default(4),
  /** Text states of the empty prompt, an .npy file (tokens, label_dim) or (1, tokens, label_dim); the text encoder's where one is named. */
  uncondEmbedding: z.string().min(1).optional(),
  /** Folder of the frozen text encoder with its tokenizer: for sample sheets and the release. */
  textEncoder: z.string().min(1).optional(),
  /** Folder of the frozen autoencoder: for sample sheets and the release. */
  autoencoder: z.string().min(1).optional(),
  /** Side of the pictures in pixels, as the release states it; by default 8 for each latent. */
  imgResolution: count.optional(),
});

/** Random latents, texts and rewards: for benchmarks and tests. */
const randomData = z.strictObject({
  kind: z.literal("random"),
  textLen: count.default(8),
});

const recipeSchema = z.strictObject({
  name: z.string().regex(/^[\w.-]+$/, "letters, digits, '.', '_' and '-'"),
  seed: z.int().nonnegative().default(3407),
  data: z.discriminatedUnion("kind", [emojiData, shardData, randomData]),
  network: object,
  preconditioning: object.default({}),
  scheduler: z
    .strictObject({
      start: z.number().default(1),
      end: z.number().default(0),
      shift: z.number().positive().default(1),
      clipMin: z.number().positive().default(1e-9),
    })
    .prefault({}),
  loss: z
    .strictObject({
      /** Probability that a sample is trained with the latents of a first pass. */
      selfCondRate: probability.default(0.9),
      /** Probability that a sample loses its text and its rewards. */
      condDropRate: probability.default(0),
      /** Probability that a sample loses its text and keeps its rewards. */
      textDropRate: probability.default(0),
      /** Probability that a single reward becomes unknown. */
      rewardDropRate: probability.default(0),
      /** t = sigmoid(mu_t + std_t·N(0,1)), t = 1 is noise; false: t is uniform. */
      logitNormalResample: z.boolean().default(true),
      /** A positive value moves the training towards noisy inputs. */
      muT: z.number().default(0),
      stdT: z.number().positive().default(1),
      /** Upstream's fault: in training an unknown reward is the reward 0, in sampling it is unknown. */
      nanRewardAsZero: z.boolean().default(false),
    })
    .prefault({}),
  initialization: z
    .strictObject({
      /** Learned latents and data positions start far apart instead of nearly alike. */
      distinctTokens: z.boolean().default(false),
      /**
       * Release folder, or training checkpoint of the published code (FILE.ckpt), whose weights the run starts with; its network must have
       * the recipe's sizes.
       */
      from: z.string().optional(),
      /** Of a training checkpoint: the average (`ema_network`, `ema_network_0_999`) whose values the network starts with; by default its own. */
      average: z.string().optional(),
      /** Of a training checkpoint: take over averages, optimiser, loss scale and step too, and go on from there. */
      continue: z.boolean().default(false),
    })
    .prefault({}),
  optimizer: z.strictObject({
    name: z.enum(["lamb", "adamw"]).default("lamb"),
    lr: z.number().positive(),
    betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.999]),
    eps: z.number().positive().default(1e-8),
    weightDecay: z.number().min(0).default(0.01),
    excludeLnAndBiasesFromWeightDecay: z.boolean().default(true),
  }),
  lrScheduler: z.strictObject({
    warmupSteps: z.int().nonnegative(),
    /** Defaults to trainer.max_steps. */
    totalSteps: count.optional(),
    /** Part of the half cosine that is walked until total_steps; 1 ends at zero. */
    rate: z.number().min(0).default(1),
    /** Upstream's behaviour: the first update ignores the schedule. */
    firstUpdateAtFullRate: z.boolean().default(false),
  }),
  ema: z
    .strictObject({
      /** One average, or several. The first is `ema_network`, a later one of decay 0.999 is `ema_network_0_999`. */
      decay: z.union([decay, z.array(decay).min(1)]).default(0.9999),
      /** Which of them draws the samples and is released, from 0. */
      defaultIndex: z.int().nonnegative().default(0),
      /** Begin with a short horizon: decay min(decay, (1 + k) / (10 + k)) at update k. */
      warmup: z.boolean().default(false),
      /** Updates that are made at once, with the decay of all of them: less memory traffic for small steps. */
      everyNSteps: count.default(1),
      /** Upstream's fault: steps that were skipped for their gradients move the averages too. */
      updateOnSkippedSteps: z.boolean().default(false),
    })
    .prefault({}),
  trainer: z.strictObject({
    maxSteps: count,
    /** Samples of one optimiser step, all devices together. */
    batchSize: count,
    /** Processes, one for each device, on each of the nodes. */
    devices: count.default(1),
    numNodes: count.default(1),
    /** Samples that a device computes at once; the rest of its share follows, before the optimiser's step. By default all of it. */
    deviceBatchSize: count.optional(),
    /** The same stated as the number of turns. */
    accumulateGradBatches: count.optional(),
    device: z.string().default("cpu"),
    /** How several processes work together. */
    strategy: z
      .strictObject({
        /** Gradients are averaged in parcels of so many MiB, the first ones while others are still computed. */
        bucketCapMb: z.number().positive().max(65536).default(25),
        /** Look in every step for parameters that the loss does not depend on. */
        findUnusedParameters: z.boolean().default(false),
        /** How long a process waits for the others before it gives up. */
        timeoutSeconds: z.int().positive().default(1800),
      })
      .prefault({}),
    /** `bf16-mixed`, `16-mixed`: matrix products in half precision, weights, sums and optimiser in float32. */
    precision: z.enum(PRECISIONS).default("32-true"),
    /** With `16-mixed`, what the loss is multiplied by so that small gradients do not vanish. */
    lossScale: z
      .strictObject({
        init: z.number().positive().default(65536),
        /** Doubled after so many steps without an overflow; halved by an overflow. */
        growthInterval: count.default(2000),
      })
      .prefault({}),
    /** Upstream's repair: gradients that are not finite become 0 and the step is made (`16-mixed` skips it all the same). */
    zeroNonFiniteGradients: z.boolean().default(false),
    /** Threads of one tensor operation; 0 leaves the engine's choice. */
    threads: z.int().nonnegative().default(0),
    /** Threads that divide each batch's rows among them; for networks whose operations are too small to divide. CPU only. */
    replicas: count.default(1),
    gradientClipVal: z.number().positive().default(2),
    /** A step whose loss or gradients are not finite is skipped, with the name of the first such tensor; after so many in a row the run ends. */
    maxSkippedInARow: count.default(5),
    logEveryNSteps: count.default(10),
    checkpointEveryNSteps: count.default(500),
    keepLast: count.default(2),
    /** Checkpoints whose step is a multiple of this stay; 0: only the newest do. */
    keepEveryNSteps: z.int().nonnegative().default(0),
  }),
  logger: z
    .strictObject({
      /** Event files for TensorBoard in RUN/tensorboard/, beside log.jsonl. */
      tensorboard: z.boolean().default(true),
      /** 10¹² operations a second that speed/mfu is a share of; by default the largest that matrix products reach when the run begins. */
      peakTflops: z.number().positive().optional(),
    })
    .prefault({}),
  validation: z
    .strictObject({
      /** 0: never. */
      everyNSteps: z.int().nonnegative().default(0),
      /** Folders of shards, tar files or index files, below data.dir like those of data.root. */
      root: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]).optional(),
      /** Batches that are looked at; all there are where they are fewer. */
      batches: count.default(16),
      /** Samples of a batch; by default as many as a device computes at once. */
      batchSize: count.optional(),
    })
    .prefault({}),
  samples: z
    .strictObject({
      /** 0: never. */
      everyNSteps: z.int().nonnegative().default(0),
      /** Steps after a multiple of every_n_steps: 1 draws at steps 1, n + 1, …, as upstream does. */
      offset: z.int().nonnegative().default(0),
      prompts: z.array(z.string()).default([]),
      /** Folder of a prompt testbed whose embeddings `miro testbed` has computed; drawn in place of the prompts. */
      testbed: z.string().min(1).optional(),
      /** Prompts that the testbed must have; null for any number. */
      testbedCount: count.nullable().default(80),
      /** The embeddings are in NAME_embeddings/. */
      embeddingsName: z.string().default("flan_t5_xl"),
      /** Samples of each prompt of the testbed, shown as a square. */
      samplesPerPrompt: count.refine((n) => Number.isInteger(Math.sqrt(n)), "expected a square: 1, 4, 9, …").default(4),
      /** Samples of the testbed that are drawn at a time. */
      batchSize: count.default(64),
      steps: count.default(20),
      guidanceScale: z.number().default(3),
      /** Bend of the sampling grid; below 1 spends more steps near the noise. */
      shift: z.number().positive().default(1),
      /** Reward targets; the negative branch of guidance gets 0. */
      rewardTarget: z.number().default(1),
      seed: z.int().nonnegative().default(0),
      columns: count.default(8),
    })
    .prefault({}),
});

/** A checked recipe with every default filled in. */
export type Recipe = z.output<typeof recipeSchema>;

/**
 * Checks a recipe in the form of its file.
 * @param origins where values come from: the errors then say so
 * @throws InvalidInputError with one line for each unknown key (and the nearest valid names), wrong type or value.
 */
export function parseRecipe(json: unknown, source = "recipe", origins?: Origins): Recipe {
  const recipe = checkRecipe(recipeSchema, json, source, origins);
  const refuse = (lines: string[]) => {
    if (lines.length > 0) refuseRecipe(source, lines, origins);
  };
  const unknown = Object.keys(recipe.network).filter((key) => !networkKeys.includes(key));
  if (unknown.length > 0) refuse(unknown.map((key) => unknownKey(["network", key], networkKeys)));
  refuse(initializationFaults(recipe.initialization));
  const { warmupSteps, totalSteps = recipe.trainer.maxSteps } = recipe.lrScheduler;
  if (totalSteps <= warmupSteps)
    refuse([
      `lr_scheduler.warmup_steps: expected fewer than the ${totalSteps} steps of the schedule (received ${warmupSteps})`,
    ]);
  const { replicas, device, devices, numNodes } = recipe.trainer;
  const plan = batchPlan(recipe.trainer);
  if (typeof plan === "string") refuse([plan]);
  else if (replicas > plan.deviceBatchSize)
    refuse([
      `trainer.replicas: expected at most the ${plan.deviceBatchSize} samples that are computed at once (received ${replicas})`,
    ]);
  if (replicas > 1 && device !== "cpu") refuse([`trainer.replicas: expected 1 on ${device} (received ${replicas})`]);
  const processes = devices * numNodes;
  if (processes > 1 && replicas > 1)
    refuse([
      `trainer.replicas: expected 1 with ${processes} processes, which divide the batch already (received ${replicas})`,
    ]);
  if (processes > 1 && /^cuda:/.test(device))
    refuse([
      `trainer.device: expected cuda with ${processes} processes; each takes a GPU of its own (received ${device})`,
    ]);
  refuse(emaFaults(recipe.ema));
  if (recipe.validation.everyNSteps > 0 && recipe.validation.root === undefined)
    refuse(["validation.root: expected the folder of the validation shards, or validation.every_n_steps: 0"]);
  if (recipe.validation.everyNSteps > 0 && recipe.data.kind !== "shards")
    refuse([`validation.every_n_steps: expected 0 with data.kind ${recipe.data.kind}; only shards are validated with`]);
  const network = parseNetwork(recipe.network, refuse);
  if (recipe.data.kind === "emoji") {
    const unknownRewards = network.coherenceKeys.filter(
      (key) => !(EMOJI_REWARD_KEYS as readonly string[]).includes(key),
    );
    if (unknownRewards.length > 0)
      refuse([
        `network.coherence_keys: emoji scenes have no ${unknownRewards.join(", ")}; they have ${EMOJI_REWARD_KEYS.join(", ")}`,
      ]);
  }
  if (recipe.data.kind === "shards") refuse(shardFaults(recipe.data, network.coherenceKeys, recipe.loss));
  recipe.network = rinConfigToJson(network);
  recipe.preconditioning = precondConfigToJson(
    parsePrecondConfig({ ...recipe.preconditioning, num_latents: network.numLatents, latents_dim: network.latentsDim }),
  );
  return recipe;
}

/** The network's arguments; its errors in the words of a recipe. */
function parseNetwork(network: Record<string, unknown>, refuse: (lines: string[]) => void): RinConfig {
  try {
    return parseRinConfig(network);
  } catch (error) {
    if (error instanceof InvalidInputError) refuse(error.message.split("\n"));
    throw error;
  }
}

/** What in a recipe's averages does not fit together, one line each. */
function emaFaults({ decay, defaultIndex }: Recipe["ema"]): string[] {
  const decays = [decay].flat();
  const lines: string[] = [];
  if (new Set(decays).size < decays.length)
    lines.push(`ema.decay: expected different values (received ${decays.join(", ")})`);
  if (defaultIndex >= decays.length)
    lines.push(
      `ema.default_index: expected at most ${decays.length - 1}, the last of ema.decay (received ${defaultIndex})`,
    );
  return lines;
}

/** Settings that need a training checkpoint to start from, or exclude each other. */
function initializationFaults({
  from,
  average,
  continue: goOn,
}: z.output<typeof recipeSchema>["initialization"]): string[] {
  const ofCheckpoint = from !== undefined && /\.ckpt$/i.test(from);
  if (goOn && average !== undefined)
    return [
      "initialization.average: a run that continues takes the network as it was; leave one of average and continue out",
    ];
  if ((goOn || average !== undefined) && !ofCheckpoint)
    return [
      `initialization.${goOn ? "continue" : "average"}: needs a training checkpoint (FILE.ckpt) as initialization.from (received ${describe(from ?? null)})`,
    ];
  return [];
}

/** What in a recipe's shards does not fit the rest of it, one line each. */
function shardFaults(
  data: z.output<typeof shardData>,
  keys: readonly string[],
  { condDropRate, textDropRate }: { condDropRate: number; textDropRate: number },
): string[] {
  const lines: string[] = [];
  const unknown = keys.filter((key) => data.coherenceScores !== undefined && !data.coherenceScores.includes(key));
  if (unknown.length > 0) lines.push(`data.coherence_scores: lacks ${unknown.join(", ")} of network.coherence_keys`);
  if (condDropRate + textDropRate > 0 && data.uncondEmbedding === undefined && data.textEncoder === undefined)
    lines.push(
      "data.uncond_embedding: dropping texts (loss.cond_drop_rate, loss.text_drop_rate) needs the empty prompt; name its file, or data.text_encoder",
    );
  if (data.vaeSample && data.vaeEmbeddingNameStd === null)
    lines.push("data.vae_sample: expected false without data.vae_embedding_name_std (received true)");
  if (data.binStrategy === "refined_quantile" && data.refineLastNBins >= data.numBins)
    lines.push(
      `data.refine_last_n_bins: expected fewer than the ${data.numBins} bins (received ${data.refineLastNBins})`,
    );
  return lines;
}

/**
 * Checks a recipe against the schema of its kind; keys become camelCase.
 * @throws InvalidInputError with one line for each unknown key, wrong type or value
 */
export function checkRecipe<S extends z.ZodType>(
  schema: S,
  json: unknown,
  source = "recipe",
  origins?: Origins,
): z.output<S> {
  const camel = renameKeys(json, camelCase, openSections(schema));
  const result = schema.safeParse(camel);
  if (!result.success)
    refuseRecipe(
      source,
      result.error.issues.flatMap((issue) => explain(issue, camel, schema)),
      origins,
    );
  return result.data as z.output<S>;
}

function refuseRecipe(source: string, lines: string[], origins?: Origins): never {
  throw new InvalidInputError(lines.map((line) => `${originOf(line, origins) ?? source}: ${line}`).join("\n"));
}

/** Where the value comes from that an error's line is about. */
function originOf(line: string, origins?: Origins): string | undefined {
  const place = /^(?:unknown key )?([\w.-]*\w)/.exec(line)?.[1];
  if (place === undefined || origins === undefined) return undefined;
  return origins.get(place) ?? [...origins].find(([known]) => known.startsWith(`${place}.`))?.[1];
}

/** A recipe as its file would state it, every value included; by default one of the diffusion network. */
export function recipeToJson(recipe: object, schema: z.ZodType = recipeSchema): unknown {
  return renameKeys(recipe, snakeCase, openSections(schema));
}

/** The text of such a file. */
export function recipeToYaml(recipe: Recipe): string {
  return stringify(recipeToJson(recipe));
}

/** Reads a recipe with overrides and checks it; see recipe-source.ts for names, parts and overrides. */
export function loadRecipe(name: string, overrides: readonly string[] = []): Recipe {
  const composed = composeRecipe(name, overrides);
  return parseRecipe(composed.json, composed.path, composed.origins);
}

/** A recipe with its overrides, not checked yet. */
export function readRecipe(name: string, overrides: readonly string[] = []): Record<string, unknown> {
  return composeRecipe(name, overrides).json;
}

const networkKeys = Object.keys(
  rinConfigToJson(
    parseRinConfig({
      data_size: 2,
      num_input_channels: 1,
      label_dim: 1,
      num_cond_tokens: 1,
      data_dim: 16,
      num_latents: 8,
      latents_dim: 16,
      num_processing_layers: 1,
      num_blocks: 1,
      patch_size: 1,
      coherence_keys: ["clip_score"],
    }),
  ),
);

function explain(issue: z.core.$ZodIssue, json: unknown, schema: z.ZodType): string[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => unknownKey([...path, key], knownKeys(path, json, schema)));
  const value = path.reduce<unknown>(
    (place, key) => (isObject(place) || Array.isArray(place) ? Reflect.get(place, key) : undefined),
    json,
  );
  const name = path.map(snakeCase).join(".");
  return [value === undefined ? `${name} is missing` : `${name}: ${issue.message} (received ${describe(value)})`];
}

function unknownKey(path: string[], known: string[]): string {
  const names = known.map(snakeCase);
  const near = nearest(snakeCase(path.at(-1)!), names);
  const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : `; valid here: ${names.join(", ")}`;
  return `unknown key ${path.map(snakeCase).join(".")}${hint}`;
}

/** The keys that the schema knows at a place of the recipe. */
function knownKeys(path: string[], json: unknown, root: z.ZodType): string[] {
  let schema: unknown = root;
  let value = json;
  for (const key of [...path, null]) {
    schema = unwrap(schema, value);
    if (key === null) break;
    schema = schema instanceof z.ZodObject ? schema.shape[key] : undefined;
    value = isObject(value) ? value[key] : undefined;
  }
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

/** The object schema behind defaults and unions (`data` is chosen by its `kind`). */
function unwrap(schema: unknown, value: unknown): unknown {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodOptional)
    return unwrap(schema.unwrap(), value);
  if (schema instanceof z.ZodDiscriminatedUnion)
    return schema.options.find(
      (option) => option instanceof z.ZodObject && isObject(value) && option.shape.kind?.safeParse(value.kind).success,
    );
  return schema;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Sections that hold whatever their reader knows; their keys stay as the file has them. */
function openSections(schema: z.ZodType): string[] {
  if (!(schema instanceof z.ZodObject)) return [];
  return Object.keys(schema.shape).filter((key) => unwrap(schema.shape[key], undefined) instanceof z.ZodRecord);
}

/** Renames the keys of objects at every depth, except inside the `kept` sections. */
function renameKeys(value: unknown, rename: (key: string) => string, kept: readonly string[] = []): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      rename(key),
      kept.includes(rename(key)) ? item : renameKeys(item, rename),
    ]),
  );
}
