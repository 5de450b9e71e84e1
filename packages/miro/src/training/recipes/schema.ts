/**
 * What a training recipe holds. Names are upstream's where upstream has them (`trainer.max_steps`,
 * `loss.cond_drop_rate`, …): snake_case in the file, camelCase here; the two network sections stay as `config.json` has
 * them. `data` is whatever the registered sources of batches say.
 */
import { z } from "zod";
import { type SourceData, sourceCount, sourceDataSchema } from "../batches/sources.js";
import "../batches/built-in.js";
import { PRECISIONS } from "./precision.js";

const count = z.int().positive();
const probability = z.number().min(0).max(1);
const object = z.record(z.string(), z.unknown());
const decay = z.number().min(0).lt(1);

const withData = (data: z.ZodType<SourceData>) =>
  z.strictObject({
    name: z.string().regex(/^[\w.-]+$/, "letters, digits, '.', '_' and '-'"),
    seed: z.int().nonnegative().default(3407),
    data,
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
         * Release folder, run (its EMA weights), or training checkpoint of the published code (FILE.ckpt), whose
         * weights
         * the run starts with; its network must have the recipe's sizes.
         */
        from: z.string().optional(),
        /**
         * Of a training checkpoint: the average (`ema_network`, `ema_network_0_999`) whose values the network starts
         * with; by default its own.
         */
        average: z.string().optional(),
        /**
         * Of a training checkpoint: also restore the EMA weights, optimizer state, loss scale and step, and continue
         * from there.
         */
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
        /** Upstream's fault: steps that were skipped for their gradients update the EMA weights too. */
        updateOnSkippedSteps: z.boolean().default(false),
      })
      .prefault({}),
    trainer: z.strictObject({
      maxSteps: count,
      /**
       * After so many minutes the run stops as at its end, with a checkpoint and a release, however many steps are
       * done; counted anew by each start. The schedule stays that of max_steps, so that the run can go on.
       */
      maxMinutes: z.number().positive().optional(),
      /** Samples of one optimizer step, all devices together. */
      batchSize: count,
      /** Processes, one for each device, on each of the nodes. */
      devices: count.default(1),
      numNodes: count.default(1),
      /**
       * Samples that a device computes at once; the rest of its share follows, before the optimizer's step. By default
       * all of it.
       */
      deviceBatchSize: count.optional(),
      /** The same stated as the number of accumulation steps. */
      accumulateGradBatches: count.optional(),
      device: z.string().default("cpu"),
      /** How several processes work together. */
      strategy: z
        .strictObject({
          /** Gradients are all-reduced in buckets of so many MiB, overlapped with the backward pass. */
          bucketCapMb: z.number().positive().max(65536).default(25),
          /** Look in every step for parameters that the loss does not depend on. */
          findUnusedParameters: z.boolean().default(false),
          /** How long a process waits for the others before it gives up. */
          timeoutSeconds: z.int().positive().default(1800),
        })
        .prefault({}),
      /** `bf16-mixed`, `16-mixed`: matrix products in half precision, weights, sums and optimizer in float32. */
      precision: z.enum(PRECISIONS).default("32-true"),
      /** With `16-mixed`, what the loss is multiplied by so that small gradients do not vanish. */
      lossScale: z
        .strictObject({
          init: z.number().positive().default(65536),
          /** Doubled after so many steps without an overflow; halved by an overflow. */
          growthInterval: count.default(2000),
        })
        .prefault({}),
      /**
       * Upstream's repair: gradients that are not finite become 0 and the step is made (`16-mixed` skips it all the
       * same).
       */
      zeroNonFiniteGradients: z.boolean().default(false),
      /** Threads of one tensor operation; 0 leaves the engine's choice. */
      threads: z.int().nonnegative().default(0),
      /**
       * Threads that divide each batch's rows among them, by default one; for networks whose operations are too small
       * to divide. For one process on the CPU: where a GPU or several processes are chosen, a recipe's value is left
       * out.
       */
      replicas: count.optional(),
      gradientClipVal: z.number().positive().default(2),
      /**
       * A step whose loss or gradients are not finite is skipped, with the name of the first such tensor; after so many
       * in a row the run ends.
       */
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
        /**
         * 10¹² operations a second that speed/mfu is a share of; by default the largest that matrix products reach when
         * the run begins.
         */
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
        samplesPerPrompt: count
          .refine((n) => Number.isInteger(Math.sqrt(n)), "expected a square: 1, 4, 9, …")
          .default(4),
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
        /** Keys of scorers; the mean score of the samples is logged as `samples/KEY`. */
        scorers: z.array(z.string().min(1)).default([]),
        /** Folders or Hub repositories of scorers' models, `KEY=DIR` each. */
        scorerWeights: z.array(z.string().regex(/^[a-z][a-z0-9_]*=.+$/, "expected SCORER=DIR")).default([]),
      })
      .prefault({}),
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
