/**
 * The network's constructor arguments, told from the shapes of its tensors: a checkpoint of the published code holds no
 * configuration. What shapes cannot tell (dropout rates, the text length that some networks allow for) comes from the
 * configuration file beside it; what both say must agree.
 */
import { InvalidInputError, MiroError } from "../errors.js";
import { type FlowPrecondConfig, parsePrecondConfig, parseRinConfig, type RinConfig } from "../networks/config.js";
import { ofFile } from "../pipeline/loading/release-config.js";
import { infoOf, type Weight } from "./weights.js";

/** Arguments as `config.json` has them, as far as they are known. */
export type GivenArguments = Readonly<Record<string, unknown>>;

/** What tensors are looked at, by their names below the module. */
export type Tensors = ReadonlyMap<string, Weight>;

const DEFAULT_MULTIPLIER = 4;
const REWARD = /^coherence_embedder\.(.+)_coherence\.encode_time\.freqs$/;
const MATTERS_LITTLE = { num_cond_tokens: 77 };

/**
 * @param source path of the checkpoint, and the module in it that the tensors lie below, for errors
 * @param channels of the latents
 * @param given arguments that a configuration file states
 * @throws MiroError when the tensors are of no such network; InvalidInputError when the file contradicts them
 */
export function inferNetwork(
  source: { path: string; module: string },
  tensors: Tensors,
  channels: number,
  given: GivenArguments,
): RinConfig {
  const { path, module } = source;
  const shape = (name: string): readonly number[] => {
    const weight = tensors.get(name);
    if (weight === undefined)
      throw new MiroError(`${path}: is no network of MIRO: the tensor ${module}.${name} is missing`);
    return infoOf(weight).shape;
  };
  const size = (name: string, dimension: number): number => {
    const found = shape(name)[dimension];
    if (found === undefined)
      throw new MiroError(
        `${path}: is no network of MIRO: the tensor ${module}.${name} has the shape [${shape(name)}]`,
      );
    return found;
  };
  const count = (pattern: RegExp): number =>
    new Set([...tensors.keys()].flatMap((key) => pattern.exec(key)?.[1] ?? [])).size;
  const has = (name: string): boolean => tensors.has(name);

  const block = "rin_blocks.0";
  const [learned, latentsDim] = [size("latents", 0), size("latents", 1)];
  const dataDim = size("data_pos_embedding", 1);
  const patchSize = Math.sqrt(size("patch_extractor.weight", 1) / channels);
  const useCond = has(`${block}.retrieve_cond.ca.q.weight`);
  const useSelf = has("ln_previous_1.weight");
  const concat = useSelf ? false : (given.concat_cond_token_to_latents ?? (useCond ? false : undefined));
  if (typeof concat !== "boolean")
    throw new InvalidInputError(
      `${path}: the tensors do not tell whether the latents include the conditioning (concat_cond_token_to_latents); put the run's config.yaml or a config.json beside the checkpoint`,
    );
  if (concat && typeof given.num_cond_tokens !== "number")
    throw new InvalidInputError(
      `${path}: the tensors do not tell num_cond_tokens of a network whose latents include the conditioning; put the run's config.yaml or a config.json beside the checkpoint`,
    );
  const told = {
    data_size: patchSize * Math.sqrt(size("data_pos_embedding", 0)),
    num_input_channels: channels,
    label_dim: size("map_text_tokens.weight", 1),
    data_dim: dataDim,
    num_latents: concat ? learned + Number(given.num_cond_tokens) + 1 : learned,
    latents_dim: latentsDim,
    num_processing_layers: count(/^rin_blocks\.0\.processer_sa\.(\d+)\./),
    num_blocks: count(/^rin_blocks\.(\d+)\./),
    patch_size: patchSize,
    read_write_heads: size(`${block}.retriever_ca.ca.q.weight`, 0) / size(`${block}.retriever_ca.ca.q_norm.weight`, 0),
    compute_heads: latentsDim / size(`${block}.processer_sa.0.sa.q_norm.weight`, 0),
    // The layer of self-conditioning tells it exactly; SwiGLU's width is rounded.
    latent_mlp_multiplier: useSelf
      ? size("linear_previous.linear_1.weight", 0) / latentsDim
      : multiplier(size(`${block}.retriever_ca.ffn.linear_out.weight`, 1), latentsDim, given.latent_mlp_multiplier),
    data_mlp_multiplier: multiplier(
      size(`${block}.writer_ca.ffn.linear_out.weight`, 1),
      dataDim,
      given.data_mlp_multiplier,
    ),
    use_cond_rin_block: useCond,
    concat_cond_token_to_latents: concat,
    use_self_conditioning: useSelf,
    num_text_registers: size("text_registers", 0),
    coherence_keys: rewardsOf(path, [...tensors.keys()], given.coherence_keys),
  };
  // Published configurations leave use_self_conditioning out, and their converter then takes it for true.
  for (const [key, value] of Object.entries(told)) {
    const stated = given[key];
    if (stated === undefined || String(stated) === String(value)) continue;
    throw new InvalidInputError(
      `${path}: the configuration states network.${key} = ${JSON.stringify(stated)}, the tensors are of a network with ${JSON.stringify(value)}`,
    );
  }
  return named(path, () => parseRinConfig({ ...MATTERS_LITTLE, ...given, ...told }));
}

/**
 * The rewards in the order of their tokens, which is that of their modules. A file whose tensors were sorted has lost
 * it: biases then stand before their weights.
 */
function rewardsOf(path: string, names: readonly string[], stated: unknown): string[] {
  const rewards = names.flatMap((name) => REWARD.exec(name)?.[1] ?? []);
  const places = new Map(names.map((name, i) => [name, i]));
  const placeOfWeight = (bias: string) => places.get(bias.replace(/bias$/, "weight")) ?? -1;
  const isOrdered = names.every((name, i) => !name.endsWith(".bias") || placeOfWeight(name) < i);
  if (isOrdered || rewards.length < 2) return rewards;
  if (!Array.isArray(stated)) {
    const found = "are not in the order of the network, so they do not tell the order of its rewards (coherence_keys)";
    const remedy = "put the run's config.yaml or a config.json beside the checkpoint";
    throw new InvalidInputError(`${path}: the tensors ${found}; ${remedy}`);
  }
  return String([...stated].sort()) === String([...rewards].sort()) ? stated : rewards;
}

/** Reads a configuration; what is wrong with it is said of the file. */
function named<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw ofFile(path, error);
  }
}

/** A multiplier that gives the width of a SwiGLU layer, which is rounded up to a multiple of 256. */
function multiplier(hidden: number, width: number, given: unknown): number {
  const fits = (value: number) => Math.ceil(Math.trunc((value * width * 2) / 3) / 256) * 256 === hidden;
  const whole = Array.from({ length: 64 }, (_, i) => i + 1);
  const found = [given, DEFAULT_MULTIPLIER, ...whole].find((value) => typeof value === "number" && fits(value));
  return typeof found === "number" ? found : (hidden * 3) / (2 * width);
}

/** The same for the preconditioning. */
export function inferPreconditioning(
  path: string,
  tensors: Tensors,
  network: RinConfig,
  given: GivenArguments,
): FlowPrecondConfig {
  const features = tensors.get("logvar_proj.0.freqs");
  const sizes = { num_latents: network.numLatents, latents_dim: network.latentsDim };
  if (features === undefined) {
    if (given.do_gradnorm_reweighting === true)
      throw new MiroError(`${path}: the tensor preconditioning.logvar_proj.0.freqs is missing`);
    return named(path, () => parsePrecondConfig({ ...given, ...sizes, do_gradnorm_reweighting: false }));
  }
  const linears = [...tensors.keys()].filter((key) => /^logvar_proj\.\d+\.weight$/.test(key)).length;
  if (linears === 0) throw new MiroError(`${path}: the tensor preconditioning.logvar_proj.1.weight is missing`);
  return named(path, () =>
    parsePrecondConfig({
      ...given,
      ...sizes,
      logvar_channels: infoOf(features).shape[0],
      logvar_mlp_layers: linears - 1,
    }),
  );
}
