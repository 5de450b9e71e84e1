/** The thread of one model of the studio: all computing, decoding and encoding happens here. */
import { setNumThreads } from "@miro-t2i/torch";
import { writeFileAtomic } from "../../files/whole-files.js";
import { decodeShown } from "../../pictures/decode-shown.js";
import { encodeImage } from "../../pictures/image-files.js";
import type { RgbImage } from "../../pictures/rgb.js";
import { sharp } from "../../pictures/sharp.js";
import { MiroPipeline } from "../../pipeline/pipeline.js";
import { DrawRequest, type RequestProgress } from "../../pipeline/requests/draw-request.js";
import { type ImageSettings, settingsToText } from "../../pipeline/settings.js";
import { loadRanker } from "../../rewards/ranker.js";
import { serve } from "../../threads/serve.js";
import type { DrawCall, DrawnEvent, LoadCall, ModelFacts, StepEvent } from "./engine.js";
import { MAX_UPLOAD_PIXELS } from "./limits.js";

/** Side of previews in pixels. */
const PREVIEW_SIDE = 128;

let pipe: MiroPipeline | null = null;

serve({
  async load({ model, options, threads }: LoadCall, { signal, emit }) {
    if (threads !== undefined) setNumThreads(threads);
    pipe = await MiroPipeline.fromPretrained(model, {
      ...options,
      signal,
      onDownload: (progress) => void emit("download", progress),
    });
    const { name, variant, device, coherenceKeys, defaultSteps, defaultGuidanceScale, latentShape, schedule } = pipe;
    const side = latentShape[1] * pipe.autoencoder.downsampling;
    const facts: ModelFacts = {
      ...{ name, variant, device, coherenceKeys, defaultSteps, defaultGuidanceScale },
      ...{ shift: schedule.shift, size: [side, side] },
    };
    return facts;
  },

  async draw({ pictures, edits, bestOf, previewEvery, batchSize }: DrawCall, { signal, emit, listens }) {
    const sources = await Promise.all(edits.map(decodeEdit));
    const request = new DrawRequest({
      pictures: pictures.map(({ path: _, edit, ...picture }) => ({
        ...picture,
        options: {
          ...picture.options,
          ...(batchSize !== undefined && { batchSize }),
          ...(edit !== undefined && sources[edit]),
        },
      })),
      ...(bestOf && { bestOf: { count: bestOf.count, scorer: bestOf.by, load: loadRanker } }),
      ...(previewEvery !== undefined && { previewEvery }),
    });
    const onStep = async ({ previews, ...progress }: RequestProgress) => {
      const event: StepEvent = { ...progress, previews: [] };
      for (const { index, image } of previews ?? []) event.previews.push({ index, webp: await previewOf(image) });
      await emit("step", event);
    };
    const { tokenizer } = await pipe!.textEncoder();
    const { warnings } = await request.draw(pipe!, {
      signal,
      ...(listens("step") && { onStep }),
      onPicture: async ({ picture: { index }, image }) => {
        const { path } = pictures[index]!;
        writeFileAtomic(path, await encodeImage(image, settingsToText(image.settings)), { overwrite: false });
        const drawn: DrawnEvent = {
          index,
          path,
          settings: image.settings,
          promptTokens: tokenizer.encode(image.prompt).length,
        };
        await emit("picture", drawn);
      },
    });
    return warnings;
  },

  /** The settings that pictures will have, for checks before anything is drawn. */
  async describe({ pictures }: { pictures: DrawCall["pictures"] }): Promise<ImageSettings[]> {
    const settings: ImageSettings[] = [];
    for (const { prompt, options, seed } of pictures)
      settings.push(
        ...(await pipe!.settings(await pipe!.plan(prompt, { ...options, imagesPerPrompt: 1, seed: seed ?? 0 }))),
      );
    return settings;
  },
});

async function decodeEdit({ image, mask }: DrawCall["edits"][number]): Promise<{ image: RgbImage; mask?: RgbImage }> {
  return {
    image: await decodeShown(image, MAX_UPLOAD_PIXELS),
    ...(mask && { mask: await decodeShown(mask, MAX_UPLOAD_PIXELS) }),
  };
}

async function previewOf({ width, height, data }: RgbImage): Promise<Uint8Array> {
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
    .resize(PREVIEW_SIDE, PREVIEW_SIDE, { kernel: "cubic" })
    .webp({ quality: 70 })
    .toBuffer();
  return Uint8Array.from(bytes);
}
