/**
 * Which scorers a stage runs, and how they are loaded.
 *
 * Without a choice, the published scorers run whose weights are named; where none is named, those that come with the
 * program. The published ones have gigabytes of weights, which are fetched for `published` or a scorer's own name.
 */
import { InvalidInputError } from "../../errors.js";
import { message, option } from "../../message.js";
import { REWARD_KEYS } from "../../networks/config.js";
import { checkMemory } from "../../rewards/memory.js";
import { checkWeightKeys, loadScorer, scorerSpec, scorerSpecs } from "../../rewards/registry.js";
import type { LoadedScorer, LoadScorerOptions, ScorerSpec } from "../../rewards/scorer.js";
import type { ResolvedOptions } from "./options.js";

/** What stands for the published scorers of a stage: six of `rewards`, one of `vqa`. */
const PUBLISHED = "published";

/**
 * The scorers of a stage, or those of them that are asked for.
 * @throws InvalidInputError for keys that are not known, and when a stage that was asked for has none
 */
export function stageScorers(stage: "rewards" | "vqa", options: ResolvedOptions): readonly ScorerSpec[] {
  const { scorers, stage: asked, weights } = options;
  checkWeightKeys(weights);
  const all = scorerSpecs().filter((spec) => spec.stage === stage);
  const published = REWARD_KEYS.flatMap((key) => all.filter((spec) => spec.key === key));
  const named = REWARD_KEYS.some((key) => Object.hasOwn(weights, key));
  const chosen =
    scorers !== undefined
      ? scorers.flatMap((key) => (key === PUBLISHED ? published : [scorerSpec(key, "scorers")]))
      : named
        ? published.filter(({ key }) => Object.hasOwn(weights, key))
        : asked === "vqa"
          ? published
          : all.filter(({ onRequest }) => !onRequest);
  const ofStage = [...new Set(chosen.filter((spec) => spec.stage === stage))];
  if (asked === stage && ofStage.length === 0) {
    const list = scorerSpecs().map((spec) => `${spec.key} (${spec.stage})`);
    const why =
      scorers !== undefined
        ? message`is among ${option("scorers")}`
        : named
          ? message`is among ${option("weights")}`
          : "exists";
    throw new InvalidInputError(
      message`${option("stage", stage)}: no scorer of this stage ${why}; there are ${list.join(", ")}`,
    );
  }
  return ofStage;
}

/** Loads into `scorers`, which the caller frees also when one of them cannot be loaded. */
export async function loadStageScorers(
  specs: readonly ScorerSpec[],
  options: ResolvedOptions,
  scorers: LoadedScorer[],
): Promise<void> {
  const load = loadingOptions(options);
  checkMemory(specs, load);
  for (const { key } of specs) scorers.push(await loadScorer(key, load));
}

/** What scorers are loaded with. */
export function loadingOptions(options: ResolvedOptions): LoadScorerOptions {
  const { device, dtype, precision, cacheDir, weights, hpsVersion, hpsLetterbox, signal, onMessage } = options;
  const loading = { device, dtype, precision, cacheDir, weights, hpsVersion, hpsLetterbox, signal };
  return { ...loading, ...(onMessage && { onMessage: (text: string) => onMessage(text) }) };
}
