/** Pictures of fixed prompts and seeds from the averaged network, so that the sheets of a run can be compared. */
import { noGrad, scope } from "@miro-t2i/torch";
import { encodePng } from "../../pictures/png.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { initialNoise } from "../../pipeline/noise.js";
import { sheetText } from "../../pipeline/settings.js";
import type { FrozenModels } from "../batches/batches.js";
import { captionedSheet } from "./captioned-sheet.js";
import { drawSamples, type SamplingParts } from "./draw-samples.js";

export interface SampleSheetOptions extends SamplingParts, FrozenModels {
  prompts: readonly string[];
  maxTextLen: number;
  /** Picture i uses seed + i. */
  seed: number;
  columns: number;
  /** Above all pictures. */
  title: string;
}

/** A line of a prompt needs so many pixels. */
const LEAST_CELL = 128;

/** Draws every prompt once, and all of them as a PNG, row by row, each with its prompt below. */
export async function drawSampleSheet(
  options: SampleSheetOptions,
): Promise<{ png: Uint8Array; images: readonly RgbImage[] }> {
  const { network, prompts, seed, tokenizer, encoder } = options;
  const { numInputChannels: channels, dataSize: side } = network.config;
  const device = options.uncondEmbedding.device;
  const text = scope(() =>
    noGrad(() => {
      const { ids, mask } = tokenizer.encodeBatch(prompts, { maxLength: options.maxTextLen, padTo: "longest" });
      const textMask = mask.to({ device });
      return { textEmbeddings: encoder.forward(ids.to({ device }), textMask), textMask };
    }),
  );
  const noise = initialNoise(
    prompts.map((_, i) => seed + i),
    [channels, side, side],
  );
  try {
    const images = await drawSamples(options, { ...text, noise });
    const pictures = images.map((image, i) => ({ image, caption: prompts[i]! }));
    const cellSize = Math.max(LEAST_CELL, ...images.flatMap(({ width, height }) => [width, height]));
    const sheet = await captionedSheet(pictures, { columns: options.columns, title: options.title, cellSize });
    const note = { keyword: "prompts", text: prompts.join("\n") };
    return { png: encodePng(sheet.data, sheet.width, sheet.height, [note, sheetText(prompts)]), images };
  } finally {
    for (const tensor of [noise, text.textEmbeddings, text.textMask]) tensor.dispose();
  }
}
