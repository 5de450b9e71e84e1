/** Pictures of fixed prompts and seeds from the averaged network, so that the sheets of a run can be compared. */
import { noGrad, scope } from "@miro-t2i/torch";
import { encodePng } from "../../pictures/png.js";
import { contactSheet } from "../../pictures/rgb.js";
import { initialNoise } from "../../pipeline/noise.js";
import type { FrozenModels } from "../batches/batches.js";
import { drawSamples, type SamplingParts } from "./draw-samples.js";

export interface SampleSheetOptions extends SamplingParts, FrozenModels {
  prompts: readonly string[];
  maxTextLen: number;
  /** Picture i uses seed + i. */
  seed: number;
  columns: number;
}

/** Draws every prompt once and returns a PNG, prompts row by row. */
export async function drawSampleSheet(options: SampleSheetOptions): Promise<Uint8Array> {
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
    const sheet = contactSheet(await drawSamples(options, { ...text, noise }), { columns: options.columns });
    return encodePng(sheet.data, sheet.width, sheet.height, [{ keyword: "prompts", text: prompts.join("\n") }]);
  } finally {
    for (const tensor of [noise, text.textEmbeddings, text.textMask]) tensor.dispose();
  }
}
