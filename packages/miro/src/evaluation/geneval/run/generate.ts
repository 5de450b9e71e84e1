/**
 * Draws the pictures of an evaluation that are not there yet. The noise of a picture follows from the seed, the text of
 * its prompt and its number alone, so that any part of the prompts, in any order, drawn by any number of processes,
 * gives the same pictures.
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, InvalidInputError, MiroError } from "../../../errors.js";
import { makeFolder } from "../../../files/make-folder.js";
import { pythonJson } from "../../../files/python-json.js";
import { readBytes, readText, removeKilledWrites, writeFileAtomic } from "../../../files/whole-files.js";
import { message, option } from "../../../message.js";
import { parseOptions } from "../../../options.js";
import { encodeImage } from "../../../pictures/image-files.js";
import { readPng } from "../../../pictures/png.js";
import { generateSchema, type ResolvedGenerateOptions } from "../../../pipeline/generate-options.js";
import type { MiroPipeline } from "../../../pipeline/pipeline.js";
import type { Plan } from "../../../pipeline/plan.js";
import type { PromptOptions } from "../../../pipeline/requests/prompt-file.js";
import { type ImageSettings, readSettings, settingsDifference, settingsToText } from "../../../pipeline/settings.js";
import { occurrences, pictureSeed } from "../../picture-seed.js";
import type { SharedWork } from "../../shared-work.js";
import type { PromptSet } from "../prompts.js";
import { hparamsOf, readHparams, writeHparams } from "./hparams.js";
import { folderName, samplePath } from "./image-folder.js";
import type { Resources } from "./resources.js";

/** What is drawn. */
export interface GenerateRun {
  folder: string;
  set: PromptSet;
  /** Prompts that are drawn, by their place in the set. */
  indices: readonly number[];
  /** Pictures of each prompt. */
  samples: number;
  seed: number;
  /** Of the sampler, rewards and guidance. */
  options: PromptOptions;
  /** Pictures computed together; absent: each by itself. */
  batchSize: number | undefined;
  /** Pictures of other settings are replaced. */
  overwrite: boolean;
  /** Which model was asked for, for a comparison before it is loaded. */
  model: Record<string, unknown>;
  signal?: AbortSignal | undefined;
  onPicture?: ((done: number, total: number) => void) | undefined;
  onMessage?: ((message: string) => void) | undefined;
}

/** The work for one folder. */
export class Generation {
  readonly #run: GenerateRun;
  /** Of each prompt of the set. */
  readonly #seeds: number[][];
  /** Prompts that are known to be whole. */
  readonly #complete = new Set<number>();
  /** What the pictures of a prompt have to hold, once the model is loaded. */
  readonly #wanted = new Map<number, ImageSettings[]>();
  #isRecorded = false;

  constructor(run: GenerateRun) {
    this.#run = run;
    const prompts = run.set.prompts.map(({ prompt }) => prompt);
    const before = occurrences(prompts);
    this.#seeds = prompts.map((prompt, p) =>
      Array.from({ length: run.samples }, (_, i) => pictureSeed(run.seed, prompt, before[p]!, i)),
    );
  }

  /** Prompts that still lack pictures. */
  missing(): number[] {
    return this.#run.indices.filter((index) => !this.isComplete(index));
  }

  /** Whether all pictures of a prompt are there. @throws InvalidInputError when there are others in their place */
  isComplete(index: number): boolean {
    if (this.#complete.has(index)) return true;
    if (!existsSync(join(this.#run.folder, folderName(index), "metadata.jsonl"))) return false;
    if (this.#open(index).length > 0) return false;
    this.#complete.add(index);
    return true;
  }

  /** Whether what is there was made as asked for, as far as it can be told without the model. */
  #isAsRecorded(): boolean {
    const { requested } = readHparams(this.#run.folder) ?? {};
    return requested !== undefined && JSON.stringify(requested) === JSON.stringify(this.#requested);
  }

  get #requested(): Record<string, unknown> {
    const { model, options, seed } = this.#run;
    return JSON.parse(JSON.stringify({ ...model, ...options, seed, together: this.#together })) as Record<
      string,
      unknown
    >;
  }

  /** How many pictures are computed together, null for each by itself. */
  get #together(): number | null {
    return this.#run.batchSize ?? null;
  }

  /**
   * Draws what nobody else draws, until nothing is left to take.
   *
   * @returns the number of pictures that were drawn
   * @throws InvalidInputError when the folder holds pictures of other settings
   */
  async drawMissing(resources: Resources, work: SharedWork): Promise<number> {
    const { folder, indices, samples, signal, onPicture } = this.#run;
    let open = this.missing();
    if (open.length === 0 && (this.#isRecorded || this.#isAsRecorded())) return 0;
    const pipe = await resources.get("pipeline");
    if (!this.#isRecorded) await this.#record(pipe);
    await this.#describe(pipe, indices);
    open = this.missing();
    const chunk = Math.max(1, Math.ceil((this.#run.batchSize ?? 1) / samples));
    let drawn = 0;
    for (;;) {
      signal?.throwIfAborted();
      const taken = await work.take("generate", open, (index) => this.isComplete(index), chunk);
      if (taken.length === 0) return drawn;
      open = open.filter((index) => !taken.includes(index));
      for (const index of taken) {
        removeKilledWrites(join(folder, folderName(index)));
        removeKilledWrites(dirname(join(folder, samplePath(index, 0))));
      }
      drawn += await this.#draw(pipe, taken, () => onPicture?.(this.#present(), indices.length * samples));
    }
  }

  /** Pictures that are there; what they hold is not looked at. */
  #present(): number {
    const { folder, indices, samples } = this.#run;
    return indices.reduce((sum, index) => {
      const there = (sample: number) => existsSync(join(folder, samplePath(index, sample)));
      return sum + (this.#complete.has(index) ? samples : [...Array(samples).keys()].filter(there).length);
    }, 0);
  }

  async #record(pipe: MiroPipeline): Promise<void> {
    const { folder, set, samples, seed, overwrite } = this.#run;
    const [settings] = await pipe.settings(await this.#plan(pipe, [this.#run.indices[0]!]));
    makeFolder(folder);
    const batchSize = this.#together ?? 1;
    const hparams = hparamsOf(pipe, settings!, { set, samples, seed, batchSize, requested: this.#requested });
    writeHparams(folder, hparams, overwrite);
    this.#isRecorded = true;
  }

  async #describe(pipe: MiroPipeline, indices: readonly number[]): Promise<void> {
    const open = indices.filter((index) => !this.#wanted.has(index));
    if (open.length === 0) return;
    const { samples } = this.#run;
    const settings = await pipe.settings(await this.#plan(pipe, open));
    for (const [i, index] of open.entries()) this.#wanted.set(index, settings.slice(i * samples, (i + 1) * samples));
    this.#complete.clear(); // now they can be compared
  }

  #plan(pipe: MiroPipeline, indices: readonly number[]): Promise<Plan> {
    const { set, samples, options, batchSize, signal } = this.#run;
    const checked: ResolvedGenerateOptions = parseOptions(generateSchema, {
      ...options,
      imagesPerPrompt: samples,
      seed: indices.flatMap((index) => this.#seeds[index]!),
      deterministic: batchSize === undefined,
      batchSize,
      signal,
    });
    return pipe.plan(
      indices.map((index) => set.prompts[index]!.prompt),
      checked,
    );
  }

  async #draw(pipe: MiroPipeline, indices: readonly number[], onPicture: () => void): Promise<number> {
    const { folder, set, samples, onMessage, overwrite } = this.#run;
    for (const index of indices) {
      const path = join(folder, folderName(index), "metadata.jsonl");
      const record = pythonJson(set.prompts[index]!);
      if (existsSync(path) && !overwrite && readText(path).trimEnd() !== record)
        throw new InvalidInputError(
          message`${path}: is of another prompt than ${describe(set.prompts[index]!.prompt)}; choose another ${option("outdir")}, or ${option("overwrite", true)} to replace it`,
        );
      writeFileAtomic(path, record, { overwrite: true });
    }
    const rows = indices.flatMap((index, i) => this.#open(index).map((sample) => i * samples + sample));
    const plan = await this.#plan(pipe, indices);
    let drawn = 0;
    for await (const { row, image } of pipe.draw(plan, {
      rows,
      onWarning: (warning) => onMessage?.(`warning: ${warning}`),
    })) {
      const path = samplePath(indices[Math.floor(row / samples)]!, row % samples);
      const bytes = await encodeImage(image, settingsToText(image.settings));
      writeFileAtomic(join(folder, path), bytes, { overwrite: true });
      drawn++;
      onPicture();
    }
    return drawn;
  }

  /** Pictures of a prompt that are to be drawn: absent, damaged or, with `overwrite`, of other settings. */
  #open(index: number): number[] {
    return [...Array(this.#run.samples).keys()].filter((sample) => !this.#isThere(index, sample));
  }

  /** @throws InvalidInputError when the picture is another one */
  #isThere(index: number, sample: number): boolean {
    const { folder, set, overwrite } = this.#run;
    const path = join(folder, samplePath(index, sample));
    if (!existsSync(path)) return false;
    let settings: ImageSettings;
    try {
      const { text } = readPng(readBytes(path), path);
      settings = readSettings(text, path);
    } catch (error) {
      if (error instanceof InvalidInputError && !overwrite)
        throw new InvalidInputError(
          message`${error}; move it away, judge it with ${option("images")}, or ${option("overwrite", true)} to replace it`,
        );
      if (error instanceof MiroError) return false; // damaged: drawn again
      throw error;
    }
    const { prompt } = set.prompts[index]!;
    const wanted = this.#wanted.get(index)?.[sample] ?? { ...settings, prompt, seed: this.#seeds[index]![sample]! };
    const difference = settingsDifference(settings, wanted);
    if (difference === null) return true;
    if (overwrite) return false;
    const { name, stored, wanted: asked } = difference;
    throw new InvalidInputError(
      message`${path}: is another picture: ${name} is ${describe(stored)} there and ${describe(asked)} here; choose another ${option("outdir")}, or ${option("overwrite", true)} to draw it again`,
    );
  }
}
