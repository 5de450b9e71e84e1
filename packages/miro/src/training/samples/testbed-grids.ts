/**
 * Grids of the prompt testbed: several samples of each prompt as one picture, from noise that is the same for the whole
 * run and for every run with as many prompts. Prompt p's samples are rows n·p … n·p + n − 1 of one draw of standard
 * normal noise, as in the published code.
 */
import { Generator, randn, scope, stack, tensor, zeros } from "@miro-t2i/torch";
import { invalid } from "../../errors.js";
import { contactSheet, type RgbImage } from "../../pictures/rgb.js";
import { captionedSheet } from "./captioned-sheet.js";
import { drawSamples, type SamplingParts } from "./draw-samples.js";
import type { EmbeddedPrompt } from "./testbed.js";

/** What {@link drawTestbed} draws. */
export interface TestbedGridOptions extends SamplingParts {
  prompts: readonly EmbeddedPrompt[];
  /** Samples of each prompt, a perfect square. */
  samplesPerPrompt: number;
  /** Of the noise. */
  seed: number;
  /** Texts longer than this are cut, as in training. */
  maxTextLen: number;
  /** Samples that are drawn at a time. */
  batchSize: number;
}

/** The samples of one prompt. */
export interface TestbedGrid {
  file: string;
  text: string;
  /** √n × √n samples. */
  image: RgbImage;
  /** Each of them. */
  samples: readonly RgbImage[];
}

/**
 * Draws a grid for each prompt, in their order.
 * @throws InvalidInputError when `samplesPerPrompt` is no square
 */
export async function drawTestbed(options: TestbedGridOptions): Promise<TestbedGrid[]> {
  const { prompts, samplesPerPrompt: n, seed, network, batchSize, signal } = options;
  const side = Math.sqrt(n);
  if (!Number.isInteger(side) || side < 1) throw invalid("samples.samples_per_prompt", "a square: 1, 4, 9, …", n);
  const { numInputChannels: channels, dataSize } = network.config;
  const total = prompts.length * n;
  const noise = randn([total, channels, dataSize, dataSize], {
    generator: new Generator("cpu").manualSeed(seed),
  }).keep();
  const pictures: RgbImage[] = [];
  try {
    for (let start = 0; start < total; start += batchSize) {
      signal?.throwIfAborted();
      const count = Math.min(batchSize, total - start);
      const rows = Array.from({ length: count }, (_, i) => prompts[Math.floor((start + i) / n)]!);
      const batch = scope(() => ({ ...textOf(rows, options), noise: noise.narrow(0, start, count).clone() }));
      try {
        pictures.push(...(await drawSamples(options, batch)));
      } finally {
        for (const value of Object.values(batch)) value.dispose();
      }
    }
  } finally {
    noise.dispose();
  }
  return prompts.map(({ file, text }, p) => {
    const samples = pictures.slice(p * n, (p + 1) * n);
    return { file, text, samples, image: contactSheet(samples, { columns: side, gap: 0 }) };
  });
}

/** The text states of some rows, padded to the longest. */
function textOf(rows: readonly EmbeddedPrompt[], { maxTextLen, uncondEmbedding }: TestbedGridOptions) {
  const { device } = uncondEmbedding;
  const lengths = rows.map(({ embeddings }) => Math.min(embeddings.size(0), maxTextLen));
  const longest = Math.max(...lengths);
  const states = zeros([rows.length, longest, uncondEmbedding.size(1)]);
  for (const [i, { embeddings }] of rows.entries())
    states
      .select(0, i)
      .narrow(0, 0, lengths[i]!)
      .copy_(embeddings.narrow(0, 0, lengths[i]!));
  const mask = stack(lengths.map((length) => tensor(Array.from({ length: longest }, (_, t) => t < length))));
  return { textEmbeddings: states.to({ device }), textMask: mask.to({ device }) };
}

/** All grids on one sheet, each with its prompt below. */
export function testbedSheet(grids: readonly TestbedGrid[], options: { columns: number; title: string }) {
  return captionedSheet(
    grids.map(({ image, text }) => ({ image, caption: text })),
    options,
  );
}
