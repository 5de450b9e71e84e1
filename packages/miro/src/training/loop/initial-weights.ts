/** Whether the weights that a run is to start with are there, and are of its network. */
import { MiroError } from "../../errors.js";
import { parseRinConfig, rinConfigToJson } from "../../networks/config.js";
import { modelOrBundled } from "../../pipeline/loading/bundled.js";
import { openReleaseFiles } from "../../pipeline/loading/checkpoint.js";
import { isRun } from "../../pipeline/loading/run-checkpoint.js";
import { openRunModel } from "../../pipeline/loading/run-model.js";
import { type DataCheck, finding } from "../batches/finding.js";
import type { Recipe } from "../recipes/recipe.js";
import { PublishedCheckpoint, TORCH_FILE } from "../state/published-checkpoint.js";
import { growsInto } from "./grow-patches.js";

/** Arguments of a network that change none of its tensors. */
const WITHOUT_TENSORS = new Set([
  "num_cond_tokens",
  "compute_dropout",
  "rw_stochastic_depth",
  "compute_stochastic_depth",
  "coherence_dropout",
  "dropout_strategy",
]);

/** Looks at the weights that a run starts with, before anything else is opened for it. */
export function checkInitialWeights({ initialization, network }: Recipe): DataCheck[] {
  const { from } = initialization;
  if (from === undefined) return [];
  const check = () => {
    if (TORCH_FILE.test(from)) {
      PublishedCheckpoint.open(from)[Symbol.dispose]();
      return from;
    }
    using files = isRun(from) ? openRunModel(from) : openReleaseFiles(modelOrBundled(from));
    const there = rinConfigToJson(files.config.network);
    const grows = growsInto(files.config.network, parseRinConfig(network));
    const differ = Object.keys(network).filter(
      (key) =>
        !WITHOUT_TENSORS.has(key) &&
        !(key === "patch_size" && grows) &&
        JSON.stringify(there[key]) !== JSON.stringify(network[key]),
    );
    if (differ.length === 0) return from;
    const values = differ.map(
      (key) => `network.${key} is ${JSON.stringify(there[key])} there and ${JSON.stringify(network[key])} here`,
    );
    throw new MiroError(`${from}: is of another network: ${values.join(", ")}`);
  };
  return [finding("initialization.from", check, "name a model with the sizes of the recipe, or leave it out")];
}
