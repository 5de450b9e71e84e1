/**
 * Constructor arguments of the network and of its preconditioning, as they stand in the `network` and `preconditioning`
 * objects of a checkpoint's `config.json`: snake_case there, camelCase here. Unknown arguments are errors.
 */
import { z } from "zod";
import { describe, InvalidInputError } from "../errors.js";
import { expectedAndReceived } from "../expectations.js";
import { camelCase, snakeCase } from "../letter-case.js";
import { readOnly, setting } from "../options.js";

/**
 * The seven rewards of the published main model, in the order that fixes the tokens and the rows of the reward
 * positional embedding.
 */
export const REWARD_KEYS = [
  "clip_score",
  "aesthetic_score",
  "image_reward_score",
  "pick_a_score_score",
  "hpsv2_score",
  "vqa_score",
  "sciscore_score",
] as const;

/** Layers and heads of the conditioning transformer: the same in every configuration. */
export const CONDITIONING_LAYERS = 2;
export const CONDITIONING_HEADS = 16;

const size = z.int().positive();
/** Width of a feed-forward layer over that of its input. */
const multiplier = z.number().positive().max(64);
const probability = z.number().min(0).max(1);
/** A probability of dropping something that must sometimes stay. */
const dropRate = z.number().min(0).lt(1);

export const rinConfigSchema = z
  .strictObject({
    dataSize: setting(size, "side of the latent picture"),
    numInputChannels: setting(size, "channels of the latent picture"),
    labelDim: setting(size, "width of the text encoder's states"),
    numCondTokens: setting(
      size,
      "text length that the number of learned latents allows for; matters only with concat_cond_token_to_latents",
    ),
    dataDim: setting(size, "width D of the data tokens"),
    numLatents: setting(size, "number N of latent tokens"),
    latentsDim: setting(size, `width L of the latent tokens, a multiple of ${CONDITIONING_HEADS}`),
    numProcessingLayers: setting(size, "self-attention layers in each block"),
    numBlocks: setting(size, "blocks, each of which reads the data, computes and writes back"),
    patchSize: setting(size, "side of the square of latents that makes one data token"),
    readWriteHeads: setting(size.default(16), "heads of the cross-attentions between data, conditioning and latents"),
    computeHeads: setting(size.default(16), "heads of the latents' self-attention"),
    latentMlpMultiplier: setting(multiplier.default(4), "width of the latents' feed-forward layers over L"),
    dataMlpMultiplier: setting(multiplier.default(4), "width of the data tokens' feed-forward layers over D"),
    computeDropout: setting(
      probability.default(0),
      "dropout inside the feed-forward layers of the self-attention blocks",
    ),
    rwStochasticDepth: setting(dropRate.default(0), "stochastic depth of the cross-attention blocks"),
    computeStochasticDepth: setting(dropRate.default(0), "stochastic depth of the self-attention blocks"),
    useCondRinBlock: setting(z.boolean().default(false), "each block begins with the latents reading the conditioning"),
    concatCondTokenToLatents: setting(z.boolean().default(true), "the conditioning tokens are part of the latents"),
    useSelfConditioning: setting(z.boolean().default(false), "the latents of an earlier forward pass are fed back"),
    numTextRegisters: setting(z.int().nonnegative().default(16), "learned tokens beside those of the text"),
    coherenceKeys: setting(
      readOnly(z.array(z.string().regex(/^[^.]+$/, "must be a name without dots"))).default([]),
      "the rewards, in the order of their tokens; generate --reward takes these names. Any number in the samples' JSON can be one",
    ),
    coherenceDropout: setting(probability.default(0), "probability of hiding a reward in training"),
    dropoutStrategy: setting(
      z.enum(["binomial", "uniform", "none"]).default("binomial"),
      "which rewards are hidden: each by itself, a random number of them, or none",
    ),
  })
  .superRefine((c, ctx) => {
    const refuse = (key: string, message: string) => ctx.addIssue({ code: "custom", path: [key], message });
    const divides = (part: number, whole: number, key: string, of: string) => {
      if (whole % part !== 0) refuse(key, `must divide ${of} (${whole})`);
    };
    divides(c.patchSize, c.dataSize, "patchSize", "data_size");
    divides(
      c.readWriteHeads,
      Math.min(c.dataDim, c.latentsDim),
      "readWriteHeads",
      "the smaller of data_dim and latents_dim",
    );
    divides(c.readWriteHeads, c.latentsDim, "readWriteHeads", "latents_dim");
    divides(c.computeHeads, c.latentsDim, "computeHeads", "latents_dim");
    if (c.latentsDim % CONDITIONING_HEADS !== 0)
      refuse("latentsDim", `must be a multiple of ${CONDITIONING_HEADS} (the heads of the conditioning transformer)`);
    if (c.coherenceKeys.length === 0) refuse("coherenceKeys", "must be a list of keys");
    if (new Set(c.coherenceKeys).size !== c.coherenceKeys.length)
      refuse("coherenceKeys", "must not name a reward twice");
    if (c.concatCondTokenToLatents && c.numLatents <= c.numCondTokens + 1) {
      refuse(
        "numLatents",
        `must exceed num_cond_tokens + 1 (${c.numCondTokens + 1}) when concat_cond_token_to_latents is true`,
      );
    }
    if (c.concatCondTokenToLatents && c.useSelfConditioning) {
      refuse(
        "useSelfConditioning",
        "cannot be combined with concat_cond_token_to_latents: the latents' number then varies with the text",
      );
    }
  });

/** All constructor arguments of {@link Rin}, defaults filled in. */
export type RinConfig = z.output<typeof rinConfigSchema>;
/** Those that must be given, and those that may be. */
export type RinConfigInput = z.input<typeof rinConfigSchema>;

export const precondConfigSchema = z.strictObject({
  numLatents: setting(size.default(256), "that of the network, which fills it in"),
  latentsDim: setting(size.default(512), "that of the network, which fills it in"),
  doNormalization: setting(
    z.union([z.string(), z.boolean()]).default("noise_driven"),
    "noise_driven or true: scale input and output; anything else: leave both alone",
  ),
  sigmaData: setting(z.number().positive().default(0.5), "standard deviation of the data that the scaling assumes"),
  doGradnormReweighting: setting(
    z.boolean().default(true),
    "weight the loss by a learned log-variance of each noise level",
  ),
  logvarChannels: setting(size.default(128), "number of Fourier features of the log-variance"),
  logvarMlpLayers: setting(z.int().nonnegative().max(64).default(0), "hidden layers of the log-variance"),
});

/** All constructor arguments of {@link FlowPrecond}, defaults filled in. */
export type FlowPrecondConfig = z.output<typeof precondConfigSchema>;
/** Those that may be given. */
export type FlowPrecondConfigInput = z.input<typeof precondConfigSchema>;

/**
 * Reads the `network` object of a `config.json`.
 * @throws InvalidInputError naming every unknown, missing or impossible argument.
 */
export function parseRinConfig(json: unknown): RinConfig {
  return parse("network", rinConfigSchema, json);
}

/** Reads the `preconditioning` object of a `config.json`. @throws InvalidInputError */
export function parsePrecondConfig(json: unknown): FlowPrecondConfig {
  return parse("preconditioning", precondConfigSchema, json);
}

/** The `network` object of a `config.json`: every argument, in snake_case. */
export function rinConfigToJson(config: RinConfig): Record<string, unknown> {
  return toSnakeCase(config);
}

/** The `preconditioning` object of a `config.json`. */
export function precondConfigToJson(config: FlowPrecondConfig): Record<string, unknown> {
  return toSnakeCase(config);
}

/** One argument that is unknown, missing or impossible. */
export interface ConfigProblem {
  /** `network.num_latents` */
  key: string;
  problem: string;
}

/** As {@link parseRinConfig}, with the problems as data where there are some. */
export function checkRinConfig(json: unknown): { config: RinConfig } | { problems: ConfigProblem[] } {
  return check("network", rinConfigSchema, json);
}

function parse<S extends z.ZodType>(name: string, schema: S, json: unknown): z.output<S> {
  const checked = check(name, schema, json);
  if ("config" in checked) return checked.config;
  throw new InvalidInputError(checked.problems.map(({ key, problem }) => `${key}: ${problem}`).join("\n"));
}

function check<S extends z.ZodType>(
  name: string,
  schema: S,
  json: unknown,
): { config: z.output<S> } | { problems: ConfigProblem[] } {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    return {
      problems: [{ key: name, problem: `expected an object of constructor arguments, received ${describe(json)}` }],
    };
  }
  const entries = Object.entries(json);
  const misspelt = entries.map(([key]) => key).filter((key) => snakeCase(camelCase(key)) !== key);
  const values = Object.fromEntries(entries.map(([key, value]) => [camelCase(key), value]));
  const result = schema.safeParse(values, { error: expectedAndReceived });
  if (result.success && misspelt.length === 0) return { config: result.data };
  const unknown = (key: string): ConfigProblem => ({ key: `${name}.${key}`, problem: "unknown argument" });
  const problems = misspelt.map(unknown);
  for (const issue of result.error?.issues ?? []) {
    if (issue.code === "unrecognized_keys") problems.push(...issue.keys.map((key) => unknown(snakeCase(key))));
    else {
      const path = issue.path.map((p) => snakeCase(String(p))).join(".");
      problems.push({ key: `${name}.${path}`, problem: issue.message });
    }
  }
  return { problems: [...new Map(problems.map((found) => [`${found.key}: ${found.problem}`, found])).values()] };
}

function toSnakeCase(config: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [snakeCase(key), value]));
}
