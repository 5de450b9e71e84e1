/** The scorers that exist, by key. */
import { z } from "zod";
import { InvalidInputError, invalid } from "../errors.js";
import { about, message } from "../message.js";
import { editDistance } from "../nearest.js";
import { abortSignal, field, parseOptions } from "../options.js";
import { checkDevice } from "../pipeline/loading/device.js";
import { loadSchema } from "../pipeline/loading/load-options.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import { colorfulnessSpec, sharpnessSpec } from "./measured.js";
import { checkedScorer, type LoadScorerOptions, type Scorer, type ScorerSpec } from "./scorer.js";

const specs = new Map<string, ScorerSpec>();

/** The scorer that is used where nobody says which. */
export const DEFAULT_SCORER = "emoji_clip_score";

/** Options of {@link loadScorer}. */
export const loadScorerSchema = z.strictObject({
  /** Folder of the scorer's model. Default: the included one. */
  model: field(z.string().min(1).optional(), {
    expected: "a folder",
    help: "folder of the scorer's model instead of the included one",
    flag: "--model <dir>",
  }),
  /** `cpu`, `cuda`, `cuda:1`, … */
  device: loadSchema.shape.device,
  /** Stops loading. */
  signal: abortSignal("stops loading"),
});

/**
 * Makes a scorer known.
 * @throws InvalidInputError when the key is taken or could not be a column's name
 *
 * @example
 * ```ts
 * import { registerScorer, scorerSpecs } from "miro-t2i";
 *
 * registerScorer({
 *   key: "brightness",
 *   name: "mean of all values",
 *   description: "how bright a picture is, 0 to 1",
 *   stage: "rewards",
 *   usesText: false,
 *   load: async () => ({
 *     name: "mean of all values",
 *     batchSize: 16,
 *     score: (images) => images.map(({ data }) => data.reduce((sum, value) => sum + value, 0) / data.length / 255),
 *     dispose() {},
 *   }),
 * });
 * console.log(scorerSpecs().map(({ key }) => key));
 * ```
 */
export function registerScorer(spec: ScorerSpec): void {
  if (!/^[a-z][a-z0-9_]*$/.test(spec.key)) throw invalid("key", "lower-case letters, digits and _", spec.key);
  if (specs.has(spec.key)) throw invalid("key", "one that no scorer has", spec.key);
  specs.set(spec.key, spec);
}

/**
 * All scorers, in the order in which they were registered.
 *
 * @example
 * ```ts
 * import { scorerSpecs } from "miro-t2i";
 *
 * for (const { key, description } of scorerSpecs()) console.log(key, description);
 * ```
 */
export function scorerSpecs(): readonly ScorerSpec[] {
  return [...specs.values()];
}

/** The spec of a key. @throws InvalidInputError naming the keys that there are, the nearest first */
export function scorerSpec(key: string): ScorerSpec {
  const spec = specs.get(key);
  if (spec) return spec;
  const byDistance = [...specs.keys()]
    .map((name) => ({ name, distance: editDistance(key, name) }))
    .sort((a, b) => a.distance - b.distance);
  throw new InvalidInputError(
    message`${about("scorer")}: ${JSON.stringify(key)} is not known; there are ${byDistance.map(({ name }) => name).join(", ")}`,
  );
}

/**
 * Loads a scorer. The caller disposes of it.
 *
 * @throws InvalidInputError for an unknown key or device; MiroError naming the file that is missing or broken
 *
 * @example
 * ```ts
 * import { loadScorer, MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const scorer = await loadScorer("sharpness");
 * const { images } = await pipe.generate("a cactus", { steps: 4, imagesPerPrompt: 2 });
 * console.log(await scorer.score(images, ["a cactus", "a cactus"])); // two numbers
 * scorer.dispose();
 * ```
 */
export async function loadScorer(key: string, options: LoadScorerOptions = {}): Promise<Scorer> {
  const spec = scorerSpec(key);
  const { device, model, signal } = parseOptions(loadScorerSchema, options);
  signal?.throwIfAborted();
  return checkedScorer(spec, await spec.load({ device: checkDevice(device), model, signal }));
}

/**
 * Loads a scorer for the pictures of a model.
 *
 * @throws InvalidInputError as {@link loadScorer}, and when the scorer has nothing to say about what the model draws
 */
export async function loadScorerFor(
  pipe: MiroPipeline,
  key: string,
  { signal }: Pick<LoadScorerOptions, "signal">,
): Promise<Scorer> {
  const refusal = scorerSpec(key).refusal?.(pipe) ?? null;
  if (refusal !== null) throw new InvalidInputError(message`${about("scorer")}: ${refusal}`);
  return loadScorer(key, { device: pipe.device, signal });
}

for (const spec of [sharpnessSpec, colorfulnessSpec]) registerScorer(spec);
