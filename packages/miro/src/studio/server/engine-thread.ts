/** The thread of one model of the studio: all computing, decoding and encoding happens here. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { cuda, getNumThreads, setNumThreads } from "@miro-t2i/torch";
import { sweepFooter, sweepSheet, sweepToJson } from "../../evaluation/sweep/report.js";
import { runSweep } from "../../evaluation/sweep/run.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import { checkInThread } from "../../flow/samplers/index.js";
import { decodeShown } from "../../pictures/decode-shown.js";
import { ImageError } from "../../pictures/image-error.js";
import { encodeImage } from "../../pictures/image-files.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { sharp } from "../../pictures/sharp.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { DrawRequest, type RequestProgress } from "../../pipeline/requests/draw-request.js";
import { PictureFiles } from "../../pipeline/requests/picture-files.js";
import { settingsToText, sheetPng } from "../../pipeline/settings.js";
import { loadRanker } from "../../rewards/ranker.js";
import { loadScorer } from "../../rewards/registry.js";
import type { Scorer } from "../../rewards/scorer.js";
import { serve } from "../../threads/serve.js";
import type { DrawCall, DrawnEvent, LoadCall, StepEvent } from "./engine.js";
import { MAX_UPLOAD_PIXELS } from "./limits.js";
import { noPicture } from "./recode.js";

/** Side of previews in pixels. */
const PREVIEW_SIDE = 128;
/** How many pictures that nobody sees are drawn, and for how long: then V8 has compiled what the first one needs. */
const WARM_PICTURES = 2;
const WARM_MS = 2000;

/** Work that is done while the next is computed: in order, and with one piece behind at most. */
class Behind {
  #last: Promise<void> = Promise.resolve();

  /** Waits for the piece before, and begins this one. @throws what the piece before has thrown */
  async follow(piece: () => Promise<void>): Promise<void> {
    await this.#last;
    this.#last = piece();
    this.#last.catch(() => {}); // thrown where it is waited for
  }

  /** @throws what the last piece has thrown */
  end(): Promise<void> {
    return this.#last;
  }
}

let pipe: MiroPipeline | null = null;
/** How it was loaded. */
let own: LoadCall | null = null;

serve({
  async load(call: LoadCall, { signal, emit }) {
    const { model, options, threads } = call;
    if (threads !== undefined) setNumThreads(threads);
    pipe = await MiroPipeline.fromPretrained(model, {
      ...options,
      signal,
      onDownload: (progress) => void emit("download", progress),
    });
    own = call;
    return pipe.device;
  },

  /** Does what the first picture would have to do: reads the text encoder, and draws until the code is fast. */
  async warm(_: null, { signal }) {
    await pipe!.textEncoder();
    const draw = async (steps: number, until: AbortSignal) => {
      const { images } = await pipe!.generate("a picture", { steps, seed: 0, signal: until });
      await encodeImage(images[0]!, settingsToText(images[0]!.settings));
    };
    await draw(1, signal);
    const late = AbortSignal.timeout(WARM_MS);
    try {
      for (let i = 0; i < WARM_PICTURES; i++) await draw(pipe!.defaultSteps, AbortSignal.any([signal, late]));
    } catch (error) {
      if (!late.aborted) throw error;
    }
  },

  /** Waits for what was begun on a GPU. @throws TorchError where the GPU has failed */
  async synchronize(gpu: number) {
    cuda.synchronize(gpu);
  },

  async draw({ pictures, edits, bestOf, previewEvery, batchSize, threads }: DrawCall, { signal, emit, listens }) {
    for (const { options } of pictures) checkInThread(options.sampler);
    const most = getNumThreads();
    if (threads !== undefined) setNumThreads(threads);
    const sources = await Promise.all(edits.map(decodeEdit));
    const request = new DrawRequest({
      pictures: pictures.map(({ path: _, edit, ...picture }, place) => ({
        ...picture,
        index: place,
        options: {
          ...picture.options,
          ...(batchSize !== undefined && { batchSize }),
          ...(edit !== undefined && sources[edit]),
        },
      })),
      ...(bestOf && { bestOf: { count: bestOf.count, scorer: bestOf.by, load: loadRanker } }),
      previewEvery,
    });
    const indexOf = (place: number) => pictures[place]!.index;
    const { tokenizer } = await pipe!.textEncoder();
    const steps = new Behind();
    const files = new Behind();
    try {
      await request.draw(pipe!, {
        signal,
        ...(listens("step") && {
          onStep: (progress) => steps.follow(async () => emit("step", await stepOf(progress, indexOf))),
        }),
        onPicture: async ({ picture: { index: place }, image, warnings }) => {
          const { path, index } = pictures[place]!;
          const encoded = encodeImage(image, settingsToText(image.settings));
          encoded.catch(() => {}); // thrown where it is waited for
          await files.follow(async () => {
            writeFileAtomic(path, await encoded, { overwrite: false });
            const drawn: DrawnEvent = {
              index,
              path,
              settings: image.settings,
              promptTokens: tokenizer.encode(image.prompt).length,
              warnings,
            };
            await emit("picture", drawn);
          });
        },
      });
      await steps.end();
      await files.end();
    } catch (error) {
      // Every file that is written is told, also when the work was cancelled.
      await files.end().catch(() => {});
      throw error;
    } finally {
      setNumThreads(most);
    }
  },

  /** Draws a table; its folder gets the pictures, `sheet.png` and `sweep.json`. */
  async sweep({ sweep, previewEvery, folder }: DrawCall & { folder: string }, { signal, emit }) {
    const { by, loads, title, cellSize, ...layout } = sweep!;
    const { tokenizer } = await pipe!.textEncoder();
    const { device, dtype, cacheDir } = own!.options;
    mkdirSync(folder, { recursive: true });
    const scorers: Scorer[] = [];
    try {
      for (const key of new Set(by)) scorers.push(await loadScorer(key, { device, dtype, cacheDir, signal }));
      const result = await runSweep({
        ...layout,
        load: async (name, variant) => {
          const call = loads[variant === undefined ? name : `${name}@${variant}`]!;
          const isOwn = call.model === own!.model && call.options.variant === own!.options.variant;
          return isOwn ? pipe! : MiroPipeline.fromPretrained(call.model, { ...call.options, signal });
        },
        release: async (one) => {
          if (one !== pipe) await one.dispose();
        },
        scorers,
        signal,
        previewEvery,
        files: new PictureFiles({ output: folder, resume: true }),
        onStep: async (progress) => emit("step", await stepOf(progress)),
        onPicture: async (index, { path, settings }) => {
          const promptTokens = tokenizer.encode(settings.prompt).length;
          const drawn: DrawnEvent = { index, path: path!, settings, promptTokens, warnings: [] };
          await emit("picture", drawn);
        },
      });
      writeFileAtomic(join(folder, "sweep.json"), `${JSON.stringify(sweepToJson(result))}\n`);
      const shown = title ?? (layout.prompts.length === 1 ? layout.prompts[0]! : undefined);
      const sheet = await sweepSheet(result, {
        title: shown,
        footer: sweepFooter(result),
        cellSize,
      });
      writeFileAtomic(join(folder, "sheet.png"), sheetPng(sheet, layout.prompts));
      return result.warnings;
    } finally {
      for (const scorer of scorers) scorer.dispose();
    }
  },
});

/** @param indexOf what the picture of a place is called */
async function stepOf(
  { images, previews = [], step, steps }: RequestProgress,
  indexOf = (place: number) => place,
): Promise<StepEvent> {
  const encoded = previews.map(async ({ index, image }) => ({ index: indexOf(index), webp: await previewOf(image) }));
  return { step, steps, images: images.map(indexOf), previews: await Promise.all(encoded) };
}

async function decodeEdit({ image, mask }: DrawCall["edits"][number]): Promise<{ image: RgbImage; mask?: RgbImage }> {
  const decode = async (parameter: string, bytes: Uint8Array) => {
    try {
      return await decodeShown(bytes, MAX_UPLOAD_PIXELS);
    } catch (error) {
      throw error instanceof ImageError ? noPicture(parameter, error) : error;
    }
  };
  return { image: await decode("image", image), ...(mask && { mask: await decode("mask", mask) }) };
}

async function previewOf({ width, height, data }: RgbImage): Promise<Uint8Array> {
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
    .resize(PREVIEW_SIDE, PREVIEW_SIDE, { kernel: "cubic" })
    .webp({ quality: 70 })
    .toBuffer();
  return Uint8Array.from(bytes);
}
