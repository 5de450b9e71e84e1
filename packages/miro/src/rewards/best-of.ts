/**
 * Best of N: more pictures are drawn than are wanted, a scorer ranks them, the best is kept (Stiennon et al. 2020 call
 * it rejection sampling; upstream reports its rewards so). Seeds are those of `generate` with N pictures for each
 * prompt.
 */
import type { Tensor } from "@miro-t2i/torch";
import { z } from "zod";
import { invalid } from "../errors.js";
import { callback, field, type OptionsOf, parseOptions } from "../options.js";
import type { GenerateOptions } from "../pipeline/generate-options.js";
import type { GeneratedImage } from "../pipeline/generated-image.js";
import type { MiroPipeline } from "../pipeline/pipeline.js";
import { loadScorerFor, loadScorerSchema } from "./registry.js";
import type { Scorer } from "./scorer.js";
import { checkSelection, defaultScorer, selectionTotals } from "./selection.js";

const isScorer = z.custom<Scorer>((value) => typeof (value as Scorer | null)?.score === "function");
const one = z.union([z.string().min(1), isScorer]);

export const bestOfSchema = z.strictObject({
  /** Pictures to draw for each prompt. Default: 4. */
  n: field(z.int().min(1).max(100_000).default(4), {
    expected: "an integer of at least 1",
    help: "pictures to draw for each prompt; the best is written",
    flag: "--best-of <n>",
  }),
  /**
   * What decides: the key of a scorer, a loaded scorer, or a list of such, of which the first decides and the others
   * are recorded; or keys with weights (`{ image_reward_score: 1, aesthetic_score: 0.5 }`), whose standardised scores
   * are added. Default: `emoji_clip_score` for models that draw emoji scenes, `image_reward_score` for all others.
   */
  scorer: field(z.union([one, z.array(one).min(1), z.record(z.string(), z.number())]).optional(), {
    expected: "the key of a scorer, a loaded scorer, a list of such, or keys with weights",
    help: "what decides; of a list the first decides and the others are recorded",
  }),
  /** Folders or Hub repositories of models by scorer key. */
  weights: loadScorerSchema.shape.weights,
  /** Called after each prompt's pictures are scored. */
  onScore: callback<(progress: ScoreProgress) => void>("called after each prompt's pictures are scored"),
});

/** Where scoring is. */
export interface ScoreProgress {
  /** Pictures that have all their scores, and pictures in all. */
  scored: number;
  /** Pictures in all. */
  imageCount: number;
}

/**
 * Options of {@link bestOf}: its own and those of `MiroPipeline.generate`, without `imagesPerPrompt`, which `n` stands
 * for.
 */
export type BestOfOptions = OptionsOf<typeof bestOfSchema> & Omit<GenerateOptions, "imagesPerPrompt">;

/** A picture with its scores. */
export interface RankedImage {
  image: GeneratedImage;
  /** What decides: the score of the one scorer, or the sum of several. */
  score: number;
  /** All scores by key, that one included. */
  scores: Record<string, number>;
  /** Index of the picture among those of its prompt, in the order in which they were drawn. */
  index: number;
}

/** A scorer and how much it counts. */
export interface WeightedScorer {
  scorer: Scorer;
  /** 0: it is recorded only. */
  weight: number;
}

/** The pictures of one prompt. */
export interface BestOf {
  prompt: string;
  best: GeneratedImage;
  /** All of them, best first; equal scores in the order in which they were drawn. */
  ranked: RankedImage[];
}

/** What {@link bestOf} returns. */
export interface BestOfResult {
  /** One for each prompt, in order. */
  prompts: BestOf[];
  /** With `keepLatents`: (prompts · n, C, r, r) float32 on the CPU, as drawn. The caller owns them. Else null. */
  latents: Tensor | null;
  /** What the caller should know, as `generate` reports it. */
  warnings: string[];
}

/**
 * Draws `n` pictures for each prompt and ranks them.
 *
 * @throws InvalidInputError for wrong options, before anything is drawn; the signal's reason when it is aborted
 *
 * @example
 * ```ts
 * import { bestOf, MiroPipeline } from "miro-t2i";
 *
 * await using pipe = await MiroPipeline.fromPretrained();
 * const { prompts } = await bestOf(pipe, ["a fox", "a snail"], { n: 2, scorer: "sharpness", steps: 4 });
 * for (const { best, ranked } of prompts) {
 *   await best.save(`${best.prompt}.png`);
 *   console.log(ranked.map(({ score }) => score));
 * }
 * ```
 */
export async function bestOf(
  pipe: MiroPipeline,
  prompt: string | readonly string[],
  options: BestOfOptions = {},
): Promise<BestOfResult> {
  if (typeof pipe?.generate !== "function") throw invalid("pipe", "a MiroPipeline", pipe);
  if (typeof prompt !== "string" && !Array.isArray(prompt))
    throw invalid("prompt", "a text or a list of texts", prompt);
  if (typeof options !== "object" || options === null) throw invalid("options", "an object of options", options);
  const { n: givenN, scorer: givenScorer, weights: givenWeights, onScore: givenOnScore, ...generate } = options;
  const own = Object.entries({ n: givenN, scorer: givenScorer, weights: givenWeights, onScore: givenOnScore });
  const { n, scorer, weights, onScore } = parseOptions(
    bestOfSchema,
    Object.fromEntries(own.filter(([, value]) => value !== undefined)),
  );
  if ("imagesPerPrompt" in generate)
    throw invalid("imagesPerPrompt", "no value, n says how many are drawn", generate.imagesPerPrompt);
  const { signal } = generate;
  const prompts = typeof prompt === "string" ? [prompt] : [...prompt];
  const scorers: WeightedScorer[] = [];
  const loaded: Scorer[] = [];
  try {
    const chosen = chosenScorers(scorer ?? defaultScorer(pipe));
    checkSelection(chosen.map(({ one, weight }) => ({ key: typeof one === "string" ? one : one.key, weight })));
    for (const { one, weight } of chosen) {
      const ready = typeof one === "string" ? await loadScorerFor(pipe, one, { weights, signal }) : one;
      if (ready !== one) loaded.push(ready);
      scorers.push({ scorer: ready, weight });
    }
    const { images, latents, warnings } = await pipe.generate(prompts, { ...generate, imagesPerPrompt: n });
    try {
      const results: BestOf[] = [];
      for (const [p, text] of prompts.entries()) {
        const drawn = images.slice(p * n, (p + 1) * n);
        const ranked = await rank(drawn, text, scorers, signal);
        results.push({ prompt: text, best: ranked[0]!.image, ranked });
        onScore?.({ scored: (p + 1) * n, imageCount: images.length });
      }
      return { prompts: results, latents, warnings };
    } catch (error) {
      latents?.dispose();
      throw error;
    }
  } finally {
    for (const one of loaded) one.dispose();
  }
}

function chosenScorers(
  scorer: string | Scorer | readonly (string | Scorer)[] | Readonly<Record<string, number>>,
): { one: string | Scorer; weight: number }[] {
  if (Array.isArray(scorer)) return scorer.map((one: string | Scorer, i) => ({ one, weight: i === 0 ? 1 : 0 }));
  const alone = typeof scorer === "string" ? scorer : isScorer.safeParse(scorer).data;
  if (alone !== undefined) return [{ one: alone, weight: 1 }];
  return Object.entries(scorer as Record<string, number>).map(([one, weight]) => ({ one, weight }));
}

/**
 * Pictures of one prompt, best first (selection.ts), equal ones in the order in which they were drawn.
 * @throws the signal's reason when it is aborted
 */
export async function rank(
  images: readonly GeneratedImage[],
  prompt: string,
  scorers: readonly WeightedScorer[],
  signal: AbortSignal | undefined,
): Promise<RankedImage[]> {
  const captions = images.map(() => prompt);
  const columns: number[][] = [];
  for (const { scorer } of scorers) columns.push(await scorer.score(images, captions, { signal }));
  const totals = selectionTotals(
    columns,
    scorers.map(({ weight }) => weight),
  );
  return images
    .map(
      (image, index): RankedImage => ({
        image,
        score: totals[index]!,
        scores: Object.fromEntries(scorers.map(({ scorer }, s) => [scorer.key, columns[s]![index]!])),
        index,
      }),
    )
    .sort((a, b) => b.score - a.score || a.index - b.index);
}
