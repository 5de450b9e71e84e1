/**
 * `config.json` of a T5 encoder as transformers writes it. Read are the T5 1.1 family's members (T5 1.1, FLAN-T5):
 * gated GELU, no biases; the first T5 with its plain ReLU is refused.
 */
import { z } from "zod";
import { describe, InvalidInputError } from "../errors.js";
import { expectedAndReceived } from "../expectations.js";
import { snakeCase } from "../letter-case.js";

const size = (most: number) => z.int().positive().max(most);

const schema = z
  .object({
    /** Number of rows of the embedding; may exceed the tokenizer's number of ids. */
    vocabSize: size(4_000_000),
    /** Width d of the states. */
    dModel: size(65_536),
    /** Width of a head; heads · dKv need not equal dModel. */
    dKv: size(65_536),
    /** Width inside the feed-forward layers. */
    dFf: size(1_048_576),
    numLayers: size(1024),
    numHeads: size(4096),
    /** Buckets of the relative position bias, half of them for each direction. */
    relativeAttentionNumBuckets: z.int().min(4).max(4096).multipleOf(2).default(32),
    /** Distance from which on all are in one bucket. */
    relativeAttentionMaxDistance: size(1_000_000).default(128),
    layerNormEpsilon: z.number().positive().lt(1).default(1e-6),
    /** In training only. */
    dropoutRate: z.number().min(0).lt(1).default(0),
    /** Scales the random initial weights. */
    initializerFactor: z.number().positive().default(1),
  })
  .superRefine(({ relativeAttentionNumBuckets: buckets, relativeAttentionMaxDistance: furthest }, ctx) => {
    // A quarter of the buckets are exact distances; the logarithm of the others divides by log(furthest / quarter).
    if (furthest <= buckets / 4)
      ctx.addIssue({
        code: "custom",
        path: ["relativeAttentionMaxDistance"],
        message: `expected more than a quarter of the ${buckets} buckets, received ${furthest}`,
      });
  });

/** Measures of a T5 encoder. */
export type T5Config = z.output<typeof schema>;
/** What must be given, and what may be. */
export type T5ConfigInput = z.input<typeof schema>;

const FIELDS = Object.keys(schema.shape) as (keyof T5Config)[];

/**
 * Checks measures given in code.
 *
 * @throws InvalidInputError that names every wrong one
 */
export function checkT5Config(config: T5ConfigInput): T5Config {
  return check(config, "T5 configuration", (name) => name);
}

/**
 * Reads the parsed content of a `config.json`; fields that do not concern the encoder are ignored.
 *
 * @param source the file's name, for messages
 * @param modelType what the file calls the architecture, for models that have a T5 in them
 * @throws InvalidInputError if it is of another architecture, or naming every missing or wrong field
 */
export function t5ConfigFromJson(json: unknown, source = "config.json", modelType = "t5"): T5Config {
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new InvalidInputError(`${source}: expected a JSON object, received ${describe(json)}`);
  const file = json as Record<string, unknown>;
  const fixed: [field: string, wanted: unknown, optional: boolean][] = [
    ["model_type", modelType, false],
    ["feed_forward_proj", "gated-gelu", false],
    ["dense_act_fn", "gelu_new", true],
    ["is_gated_act", true, true],
  ];
  for (const [field, wanted, optional] of fixed) {
    if (file[field] === wanted || (optional && file[field] === undefined)) continue;
    throw new InvalidInputError(
      `${source}: ${field}: expected ${describe(wanted)} (an encoder of the T5 1.1 or FLAN-T5 family), received ${describe(file[field])}`,
    );
  }
  return check(Object.fromEntries(FIELDS.map((name) => [name, file[snakeCase(name)]])), source, snakeCase);
}

/** The text of a `config.json` that transformers' `T5EncoderModel` reads. */
export function t5ConfigText(config: T5Config): string {
  const json = {
    architectures: ["T5EncoderModel"],
    model_type: "t5",
    feed_forward_proj: "gated-gelu",
    dense_act_fn: "gelu_new",
    is_gated_act: true,
    is_encoder_decoder: false,
    use_cache: false,
    tie_word_embeddings: false,
    pad_token_id: 0,
    eos_token_id: 1,
    ...Object.fromEntries(FIELDS.map((name) => [snakeCase(name), config[name]])),
  };
  // transformers insists on a decimal point in these.
  const floats = /("(?:dropout_rate|initializer_factor)": \d+)(?=[,\n])/g;
  return `${JSON.stringify(json, null, 2).replace(floats, "$1.0")}\n`;
}

/** Number of weights of an encoder, so that nothing is allocated before the weights' file is known to fit. */
export function countT5Parameters(c: T5Config): number {
  const attention = 4 * c.dModel * c.numHeads * c.dKv;
  const feedForward = 3 * c.dModel * c.dFf;
  const bias = c.relativeAttentionNumBuckets * c.numHeads;
  return (c.vocabSize + 1) * c.dModel + bias + c.numLayers * (attention + feedForward + 2 * c.dModel);
}

function check(values: unknown, source: string, nameOf: (field: string) => string): T5Config {
  const parsed = schema.safeParse(values, { error: expectedAndReceived });
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${nameOf(issue.path.join("."))}: ${issue.message}`);
  throw new InvalidInputError(`${source}: ${problems.join("; ")}`);
}
