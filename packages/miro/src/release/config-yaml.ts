/**
 * `config.yaml` beside a checkpoint of the published code: the composed configuration of its run, whose values may
 * refer to others (`${data.label_dim}`). References to the environment or to the launcher stay open; what they stand
 * for is not needed here.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { isObject } from "../arguments.js";
import { readYamlFile } from "../files/yaml-file.js";

/** What the configuration of a run says that a release needs; absent where it does not say it. */
export interface RunConfiguration {
  path: string;
  /** Arguments of the network and of its preconditioning. */
  network: Record<string, unknown>;
  preconditioning: Record<string, unknown>;
  imgResolution?: number;
  textTokens?: number;
  cfgRate?: number;
  channelWise?: boolean;
  defaultEma?: number;
  scheduler: Record<string, number>;
}

/** Names of arguments of the network. Everything else in its section is of the launcher. */
const NETWORK =
  /^(data_size|num_input_channels|label_dim|num_cond_tokens|data_dim|num_latents|latents_dim|num_processing_layers|num_blocks|patch_size|read_write_heads|compute_heads|latent_mlp_multiplier|data_mlp_multiplier|compute_dropout|rw_stochastic_depth|compute_stochastic_depth|use_cond_rin_block|concat_cond_token_to_latents|use_self_conditioning|num_text_registers|coherence_keys|coherence_dropout|dropout_strategy)$/;
const PRECONDITIONING = /^(do_normalization|sigma_data|do_gradnorm_reweighting)$/;
const MAX_REFERENCES = 16;

/** Reads the configuration beside a checkpoint; null where there is none. @throws MiroError naming the file */
export function readRunConfiguration(folder: string): RunConfiguration | null {
  const path = join(folder, "config.yaml");
  return existsSync(path) ? configurationIn(readYamlFile(path, "settings of a run").json, path) : null;
}

function configurationIn(root: Record<string, unknown>, path: string): RunConfiguration {
  const value = (place: string): unknown => resolve(root, at(root, place));
  const number = (place: string): number | undefined => {
    const found = value(place);
    return typeof found === "number" ? found : undefined;
  };
  const section = (place: string, keys: RegExp): Record<string, unknown> => {
    const found = value(place);
    if (!isObject(found)) return {};
    return Object.fromEntries(
      Object.entries(found)
        .filter(([key]) => keys.test(key))
        .map(([key, item]) => [key, resolve(root, item)] as const)
        .filter(([, item]) => item !== undefined && item !== null),
    );
  };
  const keys = value("model.network.coherence_keys");
  const channelWise = value("model.channel_wise_normalisation");
  const optional = {
    imgResolution: number("data.img_resolution"),
    textTokens: number("data.num_cond_tokens"),
    cfgRate: number("model.cfg_rate"),
    defaultEma: number("model.default_ema_index"),
    ...(typeof channelWise === "boolean" && { channelWise }),
  };
  return {
    path,
    network: {
      ...section("model.network.instance", NETWORK),
      ...(Array.isArray(keys) && keys.length > 0 && { coherence_keys: keys }),
    },
    preconditioning: {
      ...(number("model.sigma_data") !== undefined && { sigma_data: number("model.sigma_data") }),
      ...section("model.preconditioning", PRECONDITIONING),
      ...section("model.preconditioning.instance", PRECONDITIONING),
    },
    scheduler: section("model.inference_noise_scheduler", /^(start|end|shift|clip_min)$/) as Record<string, number>,
    ...Object.fromEntries(Object.entries(optional).filter(([, item]) => item !== undefined)),
  };
}

function at(root: unknown, place: string): unknown {
  return place
    .split(".")
    .reduce<unknown>((value, key) => (isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined), root);
}

/** A value with its references followed; undefined where one leads nowhere. */
function resolve(root: unknown, value: unknown, depth = 0): unknown {
  if (Array.isArray(value)) return value.map((item) => resolve(root, item, depth));
  if (typeof value !== "string") return value;
  const reference = /^\$\{([\w.]+)\}$/.exec(value.trim())?.[1];
  if (reference !== undefined) {
    if (depth >= MAX_REFERENCES) return undefined;
    return resolve(root, at(root, reference), depth + 1);
  }
  if (value.includes("${")) return undefined;
  // PyYAML takes 1e-9 for a text.
  return /^[-+]?\d+(\.\d*)?[eE][-+]?\d+$/.test(value) ? Number(value) : value;
}
