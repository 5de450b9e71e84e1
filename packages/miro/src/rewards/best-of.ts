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
import { DEFAULT_SCORER, loadScorerFor } from "./registry.js";
import type { Scorer } from "./scorer.js";

const isScorer = z.custom<Scorer>((value) => typeof (value as Scorer | null)?.score === "function");
const one = z.union([z.string().min(1), isScorer]);

export const bestOfSchema = z.strictObject({
  /** Pictures to draw for each prompt. */
  n: field(z.int().min(1).max(100_000).default(4), {
    expected: "an integer of at least 1",
    help: "pictures to draw for each prompt; the best is written",
    flag: "--best-of <n>",
  }),
  /**
   * What decides: the key of a scorer, a loaded scorer, or a list of such; of several the first decides and the others
   * are recorded.
   */
  scorer: field(z.union([one, z.array(one).min(1)]).default(DEFAULT_SCORER), {
    expected: "the key of a scorer, a loaded scorer, or a list of such",
    help: "what decides; of several the first decides and the others are recorded",
  }),
  /** Called after each prompt's pictures are scored. */
  onScore: callback<(progress: ScoreProgress) => void>("called after each prompt's pictures are scored"),
});

/** Where scoring is. */
export interface ScoreProgress {
  /** Pictures that have all their scores, and pictures in all. */
  scored: number;
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
  /** The score that decides. */
  score: number;
  /** All scores by key, that one included. */
  scores: Record<string, number>;
  /** Index of the picture among those of its prompt, in the order in which they were drawn. */
  index: number;
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
  const { n: givenN, scorer: givenScorer, onScore: givenOnScore, ...generate } = options;
  const own = Object.entries({ n: givenN, scorer: givenScorer, onScore: givenOnScore });
  const { n, scorer, onScore } = parseOptions(
    bestOfSchema,
    Object.fromEntries(own.filter(([, value]) => value !== undefined)),
  );
  if ("imagesPerPrompt" in generate)
    throw invalid("imagesPerPrompt", "no value, n says how many are drawn", generate.imagesPerPrompt);
  const { signal } = generate;
  const prompts = typeof prompt === "string" ? [prompt] : [...prompt];
  const scorers: Scorer[] = [];
  const loaded: Scorer[] = [];
  try {
    for (const one of Array.isArray(scorer) ? scorer : [scorer]) {
      const ready = typeof one === "string" ? await loadScorerFor(pipe, one, { signal }) : one;
      if (ready !== one) loaded.push(ready);
      if (scorers.some(({ key }) => key === ready.key)) throw invalid("scorer", "each scorer once", ready.key);
      scorers.push(ready);
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

/**
 * Pictures of one prompt, best first: by the first scorer, equal scores in the order in which they were drawn.
 * @throws the signal's reason when it is aborted
 */
export async function rank(
  images: readonly GeneratedImage[],
  prompt: string,
  scorers: readonly Scorer[],
  signal: AbortSignal | undefined,
): Promise<RankedImage[]> {
  const captions = images.map(() => prompt);
  const columns: number[][] = [];
  for (const scorer of scorers) columns.push(await scorer.score(images, captions, { signal }));
  return images
    .map(
      (image, index): RankedImage => ({
        image,
        score: columns[0]![index]!,
        scores: Object.fromEntries(scorers.map(({ key }, s) => [key, columns[s]![index]!])),
        index,
      }),
    )
    .sort((a, b) => b.score - a.score || a.index - b.index);
}
