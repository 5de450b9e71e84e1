/**
 * Pictures by request, from a list of prompts to files: plan → claim → draw → write → report. What the command line,
 * programs and servers have in common.
 *
 * Everything that can be wrong is found before the first picture is drawn: options when the request is made, files that
 * are in the way when their names are claimed, what the checkpoint cannot do before it draws. Order is that of the
 * pictures throughout, and what is held in memory does not grow with their number.
 */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { cat, scope, type Tensor } from "@miro-t2i/torch";
import { writeNpy } from "@miro-t2i/torch/io";
import { InvalidInputError, invalid } from "../../errors.js";
import { createFolder } from "../../files/make-folder.js";
import { existing } from "../../files/whole-files.js";
import { proveWritable } from "../../files/writable.js";
import { message } from "../../message.js";
import { contactSheet, type RgbImage } from "../../pictures/rgb.js";
import type { Drawn, Warn } from "../draw.js";
import type { GenerateProgress, ResolvedGenerateOptions } from "../generate-options.js";
import type { GeneratedImage } from "../generated-image.js";
import type { MiroPipeline } from "../pipeline.js";
import type { Plan } from "../plan.js";
import { type ImageSettings, sheetText } from "../settings.js";
import type { ChooseOptions } from "./name-claims.js";
import { type ExistingPicture, PictureFiles, type PictureFilesOptions } from "./picture-files.js";
import { groupPictures, type PictureGroup, type PlannedPicture } from "./plan-pictures.js";
import { type ChosenParts, compareOrigin } from "./redraw.js";

/** Pictures that go into one call of the pipeline: their texts and conditioning are in memory together. */
const CALL_SIZE = 32;

/** A candidate with its scores. */
export interface RankedCandidate {
  image: GeneratedImage;
  /** Place among the candidates of its prompt, in the order in which they were drawn. */
  index: number;
  scores: Record<string, number>;
  /** What decided; default: the one score of the scorer that was asked for. */
  score?: number;
}

/** Judges candidates. */
export interface Ranker {
  /** By scorer, the model or measure behind it, which pictures store with their scores. */
  readonly models?: Readonly<Record<string, string>> | undefined;
  /** The pictures of one prompt, best first. @throws the signal's reason when it is aborted */
  rank(images: readonly GeneratedImage[], prompt: string, signal: AbortSignal | undefined): Promise<RankedCandidate[]>;
  dispose(): void;
}

/** Loads what decides; `loadRanker` of the scorers is one. */
export type LoadRanker = (
  pipe: MiroPipeline,
  scorer: string,
  options: { signal: AbortSignal | undefined },
) => Promise<Ranker>;

/** Each picture as the best of several. */
export interface BestOfRequest {
  /** Candidates for each picture. */
  count: number;
  /** What decides, in words that `load` knows: the key of a scorer. It may depend on the model. */
  scorer: string | ((pipe: MiroPipeline) => string);
  load: LoadRanker;
  /** Write the other candidates too, as `NAME-rank2` and so on. */
  keepAll?: boolean | undefined;
}

/** What a {@link DrawRequest} is made of. */
export interface DrawRequestOptions {
  /** As `planPictures` gives them. */
  pictures: readonly PlannedPicture[];
  /** Where the pictures go; nothing is written without. Files that the caller made may hold claims already. */
  files?: PictureFiles | PictureFilesOptions | undefined;
  /** Initial noise of all pictures, (pictures · candidates, C, r, r). */
  noise?: Tensor | undefined;
  /** Draw several for each picture and keep the best. */
  bestOf?: BestOfRequest | undefined;
  /** File for the latents of the pictures, (pictures, C, r, r) float32. */
  latentsFile?: string | undefined;
  /** Also write one picture that shows them all. */
  sheet?: boolean | undefined;
  /** Give `onStep` small pictures of what is being drawn at every n-th step. */
  previewEvery?: number | undefined;
  /**
   * The stored picture that is drawn again, whose weights are compared; `chosen` are parts that were named on purpose.
   */
  redrawn?: { path: string; settings: ImageSettings; chosen: ChosenParts } | undefined;
}

/** What hears of a request's work. */
export interface DrawHooks {
  /** Stops the work within one step. */
  signal?: AbortSignal | undefined;
  /** Called after each step, and waited for. */
  onStep?: ((progress: RequestProgress) => void | Promise<void>) | undefined;
  /** Told, before drawing, how a picture that is drawn again will differ. */
  onDifference?: ((warning: string) => void) | undefined;
  /** Told that the work waits for another command. */
  onWait?: ((message: string) => void) | undefined;
  /** Called with each picture as soon as it is written, or found to be there, and waited for. */
  onPicture?: ((finished: FinishedPicture) => void | Promise<void>) | undefined;
}

/** How far the pictures of a request are that are drawn together. */
export interface RequestProgress extends Pick<GenerateProgress, "step" | "steps"> {
  /** Their places in the request. */
  images: readonly number[];
  /** How many are drawn together, candidates each by itself. */
  rows: number;
  /** At steps that `previewEvery` chooses, small pictures; of several candidates the first one's. */
  previews?: { index: number; image: RgbImage }[];
}

/** A picture that was drawn, or was there already. */
export interface FinishedPicture {
  picture: PlannedPicture;
  image: GeneratedImage;
  /** Its file; null where none is written. */
  path: string | null;
  skipped: boolean;
  /** What the caller should know of it; nothing of one that was there. */
  warnings: string[];
}

/** What tells pictures of one prompt apart. */
interface Seeds {
  seed: number | null;
  /** Present where it is a variation. */
  variationSeed?: number;
}

/** One picture of a {@link DrawReport}. */
export interface ReportedPicture extends Seeds {
  /** Absent where no file is written. */
  path?: string;
  prompt: string;
  width: number;
  height: number;
  /** It was there already. */
  skipped?: true;
  /** What decided, where it is the best of several: a score, or the sum of several standardised ones. */
  score?: number;
  /** All of them, best first. */
  candidates?: (Seeds & { scores: Record<string, number>; rank: number; path?: string })[];
}

/** What was done. */
export interface DrawReport {
  /** All pictures, those that were there included, in order. */
  images: ReportedPicture[];
  /** Path of the picture that shows them all. */
  sheet: string | null;
  /** Pictures that were drawn. */
  drawn: number;
  /** Pictures that were there already. */
  skipped: number;
  /** What the caller should know, each once. */
  warnings: string[];
}

/** A picture whose candidates are drawn, with what the caller should know of it. */
interface DrawnPicture {
  picture: PlannedPicture;
  warnings: string[];
}

/** A group of pictures with its plan. */
interface Call extends PictureGroup {
  plan: Plan;
}

/**
 * A list of pictures on its way to files. Give it up with {@link release}.
 *
 * @example
 * ```ts
 * import { DrawRequest, MiroPipeline, planPictures } from "miro-t2i";
 *
 * const prompts = ["a fox", "a rocket"].map((prompt) => ({ prompt, options: {} }));
 * const pictures = planPictures(prompts, { options: { steps: 4 }, seed: 7 });
 * const request = new DrawRequest({ pictures, files: { output: "drawn", resume: true } });
 * try {
 *   await request.claim(); // what is in the way is found before the model is loaded
 *   await using pipe = await MiroPipeline.fromPretrained();
 *   const { images, drawn, skipped } = await request.draw(pipe);
 *   console.log(images.map(({ path }) => path), drawn, skipped);
 * } finally {
 *   request.release();
 * }
 * ```
 */
export class DrawRequest {
  readonly #options: DrawRequestOptions;
  readonly #pictures: readonly PlannedPicture[];
  readonly #files: PictureFiles | null;
  /** Candidates for each picture. */
  readonly #candidates: number;

  /** @throws InvalidInputError when files are in the way or options of files contradict each other */
  constructor(options: DrawRequestOptions) {
    if (typeof options !== "object" || options === null || !Array.isArray(options.pictures))
      throw invalid("options", "{ pictures, … } with the pictures of planPictures", options);
    const { pictures, files, latentsFile, bestOf } = options;
    this.#options = options;
    this.#pictures = pictures;
    this.#candidates = bestOf?.count ?? 1;
    this.#files = files instanceof PictureFiles ? files : files === undefined ? null : new PictureFiles(files);
    if (latentsFile !== undefined) {
      this.#refuseExisting(latentsFile);
      proveWritable(latentsFile, "file", "latentsFile");
    }
  }

  /** The pictures, in order. */
  get pictures(): readonly PlannedPicture[] {
    return this.#pictures;
  }

  /** Number of pictures. */
  get count(): number {
    return this.#pictures.length;
  }

  /**
   * Claims the names of the files as far as they do not depend on the checkpoint, so that what is in the way is found
   * first.
   */
  async claim(waiting: ChooseOptions = {}): Promise<void> {
    if (this.#files === null || this.#files.isClaimed || this.#files.needsSettings(this.#pictures)) return;
    await this.#claim(waiting, null, null);
  }

  async #claim(
    { signal, onWait }: ChooseOptions,
    settings: readonly ImageSettings[] | null,
    rewards: readonly string[] | null,
  ): Promise<void> {
    const { bestOf } = this.#options;
    const names = bestOf ? { suffix: `-best-of-${bestOf.count}`, ranks: bestOf.keepAll ? bestOf.count : 1 } : {};
    await this.#files?.claim(this.#pictures, { settings, rewards, ...names, signal, onWait });
  }

  /** Gives up the names that are claimed. */
  release(): void {
    this.#files?.release();
  }

  /**
   * Draws and writes what is not there yet.
   *
   * @throws InvalidInputError for what the checkpoint cannot do, before anything is drawn, with the line of the prompt
   *   file; the signal's reason when it is aborted: what was written stays
   */
  async draw(pipe: MiroPipeline, hooks: DrawHooks = {}): Promise<DrawReport> {
    if (typeof pipe?.plan !== "function") throw invalid("pipe", "a MiroPipeline", pipe);
    const { bestOf, latentsFile, redrawn } = this.#options;
    const files = this.#files;
    const held: Tensor[] = [];
    const latents = new Map<number, Tensor>();
    let ranker: Ranker | null = null;
    try {
      const calls = await this.#plan(pipe, hooks, held);
      const settings = files || redrawn ? await this.#describe(pipe, calls) : null;
      const settingsOf = (some: readonly PlannedPicture[]) => some.map(({ index }) => settings!.get(index)!);
      if (redrawn) {
        const [first] = settingsOf(this.#pictures);
        const differences = compareOrigin(redrawn.path, redrawn.settings, first!, redrawn.chosen);
        for (const warning of differences) hooks.onDifference?.(warning);
      }
      if (files && !files.isClaimed) await this.#claim(hooks, settingsOf(this.#pictures), pipe.coherenceKeys);
      if (bestOf) {
        ranker = await bestOf.load(pipe, scorerOf(bestOf, pipe), { signal: hooks.signal });
        for (const { bestOf: chosen } of settings?.values() ?? []) Object.assign(chosen!, modelsOf(ranker));
      }
      const report = new Report(hooks, this.#options.sheet ?? false);
      // Once, or again for what other commands were about to draw and have not.
      for (let open = this.#pictures; open.length > 0; open = (await files?.fromOthers(open, hooks)) ?? []) {
        const there = (await files?.finished(open, settingsOf(open))) ?? new Map<number, ExistingPicture>();
        for (const picture of open.filter(({ index }) => there.has(index))) {
          const { path, settings } = there.get(picture.index)!;
          const image = report.needsImages ? await files!.read(path, settings) : null;
          const finished = { picture, image, path, skipped: true, warnings: [] };
          await report.add(finished, { ...entryOf(path, settings), skipped: true });
        }
        const todo = new Set(open.filter((one) => !there.has(one.index) && !files?.isElsewhere(one)));
        for (const call of calls) {
          for await (const { candidates, ...drawn } of this.#drawCall(pipe, call, todo, (one) => report.warn(one))) {
            const { picture } = drawn;
            await this.#finish(drawn, candidates, { pipe, ranker, report, signal: hooks.signal });
            if (candidates[0]!.latents) latents.set(picture.index, candidates[0]!.latents);
          }
        }
      }
      if (latentsFile !== undefined) this.#saveLatents(latentsFile, latents);
      return report.end(await this.#writeSheet(report.images));
    } finally {
      ranker?.dispose();
      for (const tensor of [...held, ...latents.values()]) tensor.dispose();
    }
  }

  /** A plan for each group of pictures; `held` receives what has to live as long as they do. */
  async #plan(pipe: MiroPipeline, { signal, onStep }: DrawHooks, held: Tensor[]): Promise<Call[]> {
    const { noise, latentsFile, previewEvery } = this.#options;
    const count = this.#candidates;
    const shape = [this.#pictures.length * count, ...pipe.latentShape];
    if (noise && (noise.ndim !== 4 || shape.some((size, i) => noise.size(i) !== size)))
      throw invalid("noise", `shape (${shape.join(", ")})`, message`(${noise.shape.join(", ")})`);
    const calls: Call[] = [];
    for (const group of groupPictures(this.#pictures, count)) {
      const placeOf = (row: number) => group.pictures[Math.floor(row / count)]!.index;
      const parts = () => group.pictures.map(({ index }) => noise!.narrow(0, index * count, count));
      const own = noise && scope(() => cat(parts(), 0));
      if (own) held.push(own);
      const more = {
        ...(own && { noise: own }),
        signal,
        ...(onStep && {
          previewEvery,
          onStep: ({ step, steps, images, previews }: GenerateProgress) => {
            const shown = previews?.map((image, i) => ({ index: placeOf(images[i]!), image }));
            return onStep({
              step,
              steps,
              images: [...new Set(images.map(placeOf))],
              rows: images.length,
              ...(shown && { previews: [...new Map(shown.reverse().map((one) => [one.index, one])).values()] }),
            });
          },
        }),
        keepLatents: latentsFile !== undefined,
      };
      calls.push({ ...group, plan: await planOf(pipe, group, more) });
    }
    return calls;
  }

  /**
   * The settings that the pictures will have, by their place, as far as they are known before candidates are scored.
   */
  async #describe(pipe: MiroPipeline, calls: readonly Call[]): Promise<Map<number, ImageSettings>> {
    const { bestOf } = this.#options;
    const described = new Map<number, ImageSettings>();
    for (const { plan, pictures } of calls) {
      const settings = await pipe.settings(plan);
      for (const [i, { index, seed }] of pictures.entries()) {
        const one = { ...settings[i * this.#candidates]!, seed };
        const chosen = bestOf && {
          count: bestOf.count,
          ...seedsOf(one),
          scorer: scorerOf(bestOf, pipe),
          scores: {},
          rank: 1,
        };
        described.set(index, chosen ? { ...one, bestOf: chosen } : one);
      }
    }
    return described;
  }

  /** Draws those pictures of a call that are still to be drawn, each with all its candidates. */
  async *#drawCall(
    pipe: MiroPipeline,
    { pictures, plan, options: { batchSize = 1 } }: Call,
    todo: ReadonlySet<PlannedPicture>,
    onWarning: (warning: string) => void,
  ): AsyncGenerator<DrawnPicture & { candidates: Drawn[] }, void, void> {
    const count = this.#candidates;
    const together = this.#options.bestOf ? 1 : Math.ceil(CALL_SIZE / batchSize) * batchSize;
    const places = [...pictures.keys()].filter((i) => todo.has(pictures[i]!));
    const warned: { warning: string; rows: readonly number[] }[] = [];
    const warn: Warn = (warning, rows) => {
      onWarning(warning);
      warned.push({ warning, rows });
    };
    const warningsOf = (rows: readonly number[]) => [
      ...plan.oddities(rows),
      ...warned.filter((one) => rows.some((row) => one.rows.includes(row))).map(({ warning }) => warning),
    ];
    for (let first = 0; first < places.length; first += together) {
      const some = places.slice(first, first + together);
      const rows = some.flatMap((i) => Array.from({ length: count }, (_, c) => i * count + c));
      let candidates: Drawn[] = [];
      try {
        for await (const drawn of pipe.draw(plan, { rows, onWarning: warn })) {
          candidates.push(drawn);
          if (candidates.length < count) continue;
          const whole = candidates;
          candidates = [];
          const picture = pictures[Math.floor(drawn.row / count)]!;
          yield { picture, candidates: whole, warnings: warningsOf(whole.map(({ row }) => row)) };
        }
      } finally {
        for (const { latents } of candidates) latents?.dispose();
      }
    }
  }

  /** Ranks the candidates of a picture and writes the best, or all; leaves the best one first. */
  async #finish(
    { picture, warnings }: DrawnPicture,
    candidates: Drawn[],
    {
      pipe,
      ranker,
      report,
      signal,
    }: { pipe: MiroPipeline; ranker: Ranker | null; report: Report; signal: AbortSignal | undefined },
  ): Promise<void> {
    const { bestOf } = this.#options;
    if (!bestOf || !ranker) {
      const { image } = candidates[0]!;
      const path = (await this.#files?.write(picture, image)) ?? null;
      await report.add({ picture, image, path, skipped: false, warnings }, entryOf(path, image.settings));
      return;
    }
    const { count, keepAll } = bestOf;
    const scorer = scorerOf(bestOf, pipe);
    const drawn = candidates.map(({ image }) => image);
    const first = seedsOf(drawn[0]!.settings);
    const ranking = await ranker.rank(drawn, picture.prompt, signal);
    const ranked = ranking.map(({ image, scores }, i) =>
      image.withSettings({
        ...image.settings,
        bestOf: { count, ...first, scorer, scores, ...modelsOf(ranker), rank: i + 1 },
      }),
    );
    const paths: string[] = [];
    for (const [rank, image] of ranked.slice(0, keepAll ? undefined : 1).entries()) {
      if (this.#files) paths.push(await this.#files.write(picture, image, rank));
    }
    const [best] = ranked;
    const path = paths[0] ?? null;
    await report.add(
      { picture, image: best!, path, skipped: false, warnings },
      {
        ...entryOf(path, best!.settings),
        score: ranking[0]!.score ?? ranking[0]!.scores[scorer]!,
        candidates: ranking.map(({ image, scores }, i) => ({
          ...seedsOf(image.settings),
          scores,
          rank: i + 1,
          ...(paths[i] && { path: paths[i] }),
        })),
      },
    );
    const order = ranking.map(({ index }) => candidates[index]!);
    candidates.splice(0, count, ...order);
    for (const { latents } of candidates.slice(1)) latents?.dispose();
  }

  /** Writes one picture that shows all of them, where that is asked for. */
  async #writeSheet(images: readonly GeneratedImage[]): Promise<string | null> {
    if (!this.#options.sheet || this.#files === null || images.length === 0) return null;
    const prompts = images.map(({ prompt, seed }) => ({ prompt, seed }));
    return this.#files.writeExtra("sheet", contactSheet(images), [sheetText(prompts, images[0]!.settings)]);
  }

  #refuseExisting(path: string): void {
    if (!this.#files?.overwrites && existsSync(path)) throw existing(path);
  }

  #saveLatents(path: string, latents: ReadonlyMap<number, Tensor>): void {
    this.#refuseExisting(path);
    createFolder(dirname(path));
    const ordered = this.#pictures.map(({ index }) => latents.get(index)!);
    const all = scope(() => cat(ordered, 0));
    try {
      writeNpy(path, all);
    } finally {
      all.dispose();
    }
  }
}

/** As pictures store them. */
function modelsOf({ models }: Ranker): { models?: Record<string, string> } {
  return models ? { models: { ...models } } : {};
}

function scorerOf({ scorer }: BestOfRequest, pipe: MiroPipeline): string {
  return typeof scorer === "string" ? scorer : scorer(pipe);
}

/** A plan of a group. @throws InvalidInputError of the first picture that is wrong by itself, with its line */
async function planOf(pipe: MiroPipeline, group: PictureGroup, more: Partial<ResolvedGenerateOptions>): Promise<Plan> {
  try {
    return await pipe.plan(group.prompts, { ...group.options, ...more });
  } catch (error) {
    const named = error instanceof InvalidInputError ? group.pictures.filter(({ where }) => where !== undefined) : [];
    for (const { where, prompt, options } of named) {
      try {
        await pipe.plan(prompt, { ...options, imagesPerPrompt: 1 });
      } catch (own) {
        throw new InvalidInputError(message`${where}: ${own}`, { cause: own });
      }
    }
    throw error;
  }
}

function entryOf(path: string | null, settings: ImageSettings): ReportedPicture {
  const { prompt, width, height } = settings;
  return { ...(path !== null && { path }), ...seedsOf(settings), prompt, width, height };
}

function seedsOf({ seed, variationSeed }: ImageSettings): Seeds {
  return { seed, ...(variationSeed !== undefined && { variationSeed }) };
}

/** What a request has done so far. */
class Report {
  readonly #entries = new Map<number, ReportedPicture>();
  readonly #images = new Map<number, GeneratedImage>();
  readonly #warnings = new Set<string>();
  readonly #hooks: DrawHooks;
  readonly #keepImages: boolean;

  constructor(hooks: DrawHooks, keepImages: boolean) {
    this.#hooks = hooks;
    this.#keepImages = keepImages;
  }

  /** Whether pixels are needed, also those of pictures that were there. */
  get needsImages(): boolean {
    return this.#keepImages || this.#hooks.onPicture !== undefined;
  }

  /** The pictures in order, where they are kept. */
  get images(): GeneratedImage[] {
    return inOrder(this.#images);
  }

  warn(warning: string): void {
    this.#warnings.add(warning);
  }

  async add(finished: Omit<FinishedPicture, "image"> & { image: GeneratedImage | null }, entry: ReportedPicture) {
    const { picture, image } = finished;
    this.#entries.set(picture.index, entry);
    if (image === null) return;
    if (this.#keepImages) this.#images.set(picture.index, image);
    await this.#hooks.onPicture?.({ ...finished, image });
  }

  end(sheet: string | null): DrawReport {
    const images = inOrder(this.#entries);
    const skipped = images.filter((entry) => entry.skipped).length;
    return { images, sheet, drawn: images.length - skipped, skipped, warnings: [...this.#warnings] };
  }
}

function inOrder<T>(byPlace: ReadonlyMap<number, T>): T[] {
  return [...byPlace].sort(([a], [b]) => a - b).map(([, value]) => value);
}
