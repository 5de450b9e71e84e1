/** The pictures that a run draws on its way: a sheet of the recipe's prompts, or grids of a prompt testbed. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadAutoencoder } from "../../autoencoder/index.js";
import { InvalidInputError } from "../../errors.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { LinearSchedule } from "../../flow/schedule.js";
import type { FlowPrecond } from "../../networks/precond.js";
import type { Rin } from "../../networks/rin.js";
import { wholeNumber } from "../../numbers.js";
import { readPng } from "../../pictures/png.js";
import { sharp } from "../../pictures/sharp.js";
import { fetchVae } from "../../pipeline/loading/sources.js";
import { sheetPng } from "../../pipeline/settings.js";
import type { BatchSource, FrozenModels } from "../batches/batches.js";
import { sourceFacts } from "../batches/sources.js";
import type { RunRecords } from "../logging/run-records.js";
import type { Recipe } from "../recipes/recipe.js";
import type { SamplingParts } from "./draw-samples.js";
import { type CaptionedSamples, SampleScores } from "./sample-scores.js";
import { drawSampleSheet } from "./sample-sheet.js";
import { readEmbeddedTestbed } from "./testbed.js";
import { drawTestbed, testbedSheet } from "./testbed-grids.js";

/** What {@link openRunSamples} needs. */
export interface RunSamplesOptions {
  recipe: Recipe;
  source: BatchSource;
  /** The averaged network. */
  network: Rin;
  preconditioning: FlowPrecond;
  /** Folder of the run. */
  output: string;
  /** Where pictures go besides the folder. */
  records: Pick<RunRecords, "takesImages" | "image">;
  /** Told when a picture cannot be written, which does not end a run. */
  onTrouble: (message: string) => void;
  signal?: AbortSignal | undefined;
}

/** One sheet, and what is on it. */
interface Sheet extends CaptionedSamples {
  png: Uint8Array;
}

/** What draws the sheets of a run. */
interface Sheets {
  draw(parts: SamplingParts, step: number): Promise<Sheet>;
  dispose(): void;
}

/** Draws on demand. */
export interface RunSamples {
  /**
   * Draws for a step and writes `samples/step-….png`.
   * @returns figures of the samples for the log, by name
   */
  draw(step: number): Promise<Record<string, number>>;
  /** Whether the picture of a step is there, which is written last. */
  isDrawn(step: number): boolean;
  dispose(): void;
}

/**
 * Prepares what a recipe wants to be drawn.
 * @returns null when it wants nothing, or the data do not come with what a sheet needs
 * @throws InvalidInputError when a testbed is asked for and it, the autoencoder or the empty prompt is not there, and
 *   for scorers that are not known or cannot judge what is drawn
 */
export async function openRunSamples(options: RunSamplesOptions): Promise<RunSamples | null> {
  const { recipe, source, network, preconditioning, onTrouble, signal } = options;
  const { samples, scheduler } = recipe;
  const { prompts, testbed } = samples;
  if (samples.everyNSteps === 0 || (testbed === undefined && prompts.length === 0)) return null;
  const { autoencoder: name, textTokens } = sourceFacts(recipe.data, network.config);
  const { constants, frozen } = source;
  if (name === undefined || constants === undefined) {
    if (testbed === undefined) return null;
    throw new InvalidInputError(
      "samples.testbed: drawing needs data.autoencoder, and data.text_encoder or data.uncond_embedding",
    );
  }
  if (testbed === undefined && frozen === undefined) return null;
  const part = { name, parameter: "data.autoencoder", source: null, prefix: "" };
  const folder = await fetchVae(part, { signal, onMessage: onTrouble });
  const scores = new SampleScores(samples, {
    device: constants.uncondEmbedding.device,
    onMessage: onTrouble,
    signal,
  });
  scores.checkFor(recipe.name, folder);
  const sheets =
    testbed === undefined ? promptSheets(options, frozen!, textTokens) : testbedSheets(options, testbed, textTokens);
  return {
    async draw(step) {
      // In memory only meanwhile.
      const autoencoder = loadAutoencoder(folder, { device: "cpu", dtype: "float32" });
      let sheet: Sheet;
      try {
        const schedule = new LinearSchedule({ ...scheduler, shift: samples.shift });
        const { steps, guidanceScale, rewardTarget } = samples;
        const how = { schedule, steps, guidanceScale, rewardTarget, signal };
        sheet = await sheets.draw({ network, preconditioning, ...constants, autoencoder, ...how }, step);
      } finally {
        autoencoder.dispose();
      }
      const figures = await scores.measure(sheet).catch((error: Error) => {
        if (signal?.aborted) throw error;
        onTrouble(`samples.scorers: ${error.message}`);
        return {};
      });
      storeSheet(options, sheet.png, step);
      return figures;
    },
    isDrawn: (step) => existsSync(sheetPath(options, step)),
    dispose: () => sheets.dispose(),
  };
}

/** Sheets of the recipe's prompts. */
function promptSheets({ recipe }: RunSamplesOptions, models: FrozenModels, maxTextLen: number): Sheets {
  const { prompts, columns, seed } = recipe.samples;
  return {
    async draw(parts, step) {
      const sheet = { prompts, maxTextLen, seed, columns, title: titleOf(recipe, step) };
      return { ...(await drawSampleSheet({ ...models, ...parts, ...sheet })), captions: prompts };
    },
    dispose() {},
  };
}

/** Sheets of the grids of a prompt testbed; the grids themselves go to the records. */
function testbedSheets({ recipe, network, records }: RunSamplesOptions, testbed: string, maxTextLen: number): Sheets {
  const { samplesPerPrompt, batchSize, columns, seed, embeddingsName, testbedCount } = recipe.samples;
  const width = network.config.labelDim;
  const prompts = readEmbeddedTestbed(testbed, { embeddingsName, width, count: testbedCount });
  return {
    async draw(parts, step) {
      const grids = await drawTestbed({ ...parts, prompts, samplesPerPrompt, seed, maxTextLen, batchSize });
      if (records.takesImages)
        for (const { file, image } of grids) {
          const raw = { width: image.width, height: image.height, channels: 3 } as const;
          const encoded = await sharp(image.data, { raw }).jpeg({ quality: 90 }).toBuffer();
          // The number in front of the name keeps prompts apart that begin alike.
          records.image(step, `val/Images/${file.replace(/\.npy$/, "")}`, { ...raw, encoded });
        }
      const sheet = await testbedSheet(grids, { columns, title: titleOf(recipe, step) });
      return {
        png: sheetPng(
          sheet,
          grids.map(({ text }) => text),
        ),
        images: grids.flatMap(({ samples }) => samples),
        captions: grids.flatMap(({ text, samples }) => samples.map(() => text)),
      };
    },
    dispose() {
      for (const { embeddings } of prompts) embeddings.dispose();
    },
  };
}

function titleOf({ name }: Recipe, step: number): string {
  return `${name}, step ${wholeNumber(step)}`;
}

function sheetPath({ output }: Pick<RunSamplesOptions, "output">, step: number): string {
  return join(output, "samples", `step-${String(step).padStart(8, "0")}.png`);
}

/** Writes a sheet into the folder of the run, and records it. */
function storeSheet({ output, records, onTrouble }: RunSamplesOptions, png: Uint8Array, step: number): void {
  const path = sheetPath({ output }, step);
  try {
    writeFileAtomic(path, png, { overwrite: true });
  } catch (error) {
    onTrouble((error as Error).message); // a run does not end for a picture
  }
  records.image(step, "samples/sheet", { ...readPng(png, path), encoded: png });
}
