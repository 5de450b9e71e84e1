/** The batches that a recipe trains with, and those that it validates with. */
import type { BatchSpan } from "../../data/shards/order.js";
import { parseRinConfig } from "../../networks/config.js";
import { wholeNumber } from "../../numbers.js";
import type { BatchSource } from "../batches/batches.js";
import { type FrozenNeeds, type SourceContext, sourceOf } from "../batches/sources.js";
import type { DataParallelGroup } from "../process-group/process-group.js";
import { type Recipe, validationBatchSize } from "../recipes/recipe.js";
import { Validation } from "./validation.js";

interface Hooks {
  signal?: AbortSignal | undefined;
  onMessage: (message: string) => void;
}

/**
 * The training batches, of each of which this process gets its rows.
 * @param spans the sizes that the batches of the run have had, that of the recipe last
 * @param warn called with messages that must not get lost
 */
export async function openBatches(
  recipe: Recipe,
  group: DataParallelGroup,
  { spans, warn, ...hooks }: Hooks & { spans?: readonly BatchSpan[]; warn: (message: string) => void },
): Promise<BatchSource> {
  const { batchSize } = recipe.trainer;
  const say = sparsely(hooks.onMessage);
  // While the data are opened, all processes find the same.
  let says = group.isFirst;
  const source = await sourceOf(recipe.data).open(recipe.data, {
    ...contextOf(recipe, group),
    batchSize,
    spans,
    rows: group.rowsOf(batchSize),
    needs: frozenNeeds(recipe, group),
    signal: hooks.signal,
    onMessage: (message) => says && warn(message),
    onProgress: (what, done, all, unit = "shards") =>
      say(`${what}: ${wholeNumber(done)} of ${wholeNumber(all)} ${unit}`),
  });
  says = true;
  return source;
}

/**
 * The validation of a recipe, or null where there is none. Its latents are normalised as those of the training data.
 */
export async function openValidation(
  recipe: Recipe,
  training: BatchSource,
  group: DataParallelGroup,
  hooks: Hooks,
): Promise<Validation | null> {
  const { data, validation } = recipe;
  const source = sourceOf(data);
  const { normalization } = training;
  if (validation.everyNSteps === 0 || validation.root === undefined) return null;
  if (source.openValidation === undefined || normalization === undefined) return null;
  const batchSize = validationBatchSize(recipe);
  const context = { ...contextOf(recipe, group), ...hooks, batchSize, normalization };
  const opened = await source.openValidation(data, validation.root, context);
  const batches = Math.min(validation.batches, opened.batches);
  return new Validation({ recipe, source: opened.source, batches, batchSize, group });
}

function contextOf(
  { seed, network, preconditioning, trainer: { device } }: Recipe,
  group: DataParallelGroup,
): Omit<SourceContext, "batchSize"> {
  const sigmaData = preconditioning.sigma_data as number;
  return { seed, device, network: parseRinConfig(network), sigmaData, makesFiles: group.isFirst };
}

/** What this process needs of the frozen models: the first draws the sheets and writes the release. */
function frozenNeeds({ loss, samples }: Recipe, { isFirst }: DataParallelGroup): FrozenNeeds {
  const draws = isFirst && samples.everyNSteps > 0;
  const sheets = draws && samples.testbed === undefined && samples.prompts.length > 0;
  const always = loss.condDropRate + loss.textDropRate > 0 || sheets || (draws && samples.testbed !== undefined);
  return { emptyPrompt: always ? "always" : isFirst ? "release" : "never", textEncoder: sheets };
}

/** Calls a function first after five seconds, and then at most every fifteen. */
function sparsely(say: (message: string) => void): (message: string) => void {
  let next = performance.now() + 5000;
  return (message) => {
    if (performance.now() < next) return;
    next = performance.now() + 15_000;
    say(message);
  };
}
