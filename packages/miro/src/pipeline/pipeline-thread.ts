/** The thread of a {@link WorkerPipeline}: one pipeline, whose calls take turns picture by picture. */
import { checkInThread } from "../flow/samplers/index.js";
import { parseOptions } from "../options.js";
import { serve } from "../threads/serve.js";
import { type GenerateOptions, type GenerateProgress, generateSchema } from "./generate-options.js";
import type { GeneratedImage } from "./generated-image.js";
import type { FromPretrainedOptions } from "./loading/load-options.js";
import { MiroPipeline } from "./pipeline.js";
import { Turns } from "./turns.js";
import type { PipelineFacts, SentImage } from "./worker-pipeline.js";

interface Drawing {
  prompt: string | readonly string[];
  options: GenerateOptions;
}

let pipe: MiroPipeline | null = null;
/** Of calls, picture by picture; null where the pipeline itself lets only one call work. */
let turns: Turns | null = null;

serve({
  async load({ model, options }: { model: string | undefined; options: FromPretrainedOptions }, { signal, emit }) {
    pipe = await MiroPipeline.fromPretrained(model, {
      ...options,
      signal,
      onDownload: (progress) => void emit("onDownload", progress),
      onMessage: (message) => void emit("onMessage", message),
    });
    turns = options.lowMemory ? null : new Turns();
    const { name, variant, device, dtype, coherenceKeys, defaultSteps, defaultGuidanceScale, latentShape } = pipe;
    const { config } = pipe;
    const facts: PipelineFacts = {
      name,
      variant,
      device,
      dtype,
      config,
      coherenceKeys,
      defaultSteps,
      defaultGuidanceScale,
      latentShape,
    };
    return facts;
  },

  async generate({ prompt, options }: Drawing, { signal, emit, listens }) {
    checkInThread(options.sampler);
    const warnings: string[] = [];
    // Without a listener nothing is told, and the sampler makes nothing to tell.
    const onStep = async ({ x, denoised, ...progress }: GenerateProgress) =>
      emit(
        "onStep",
        progress,
        progress.previews?.map(({ data }) => data.buffer as ArrayBuffer),
      );
    const all = { ...options, signal, ...(listens("onStep") && { onStep }) };
    const pictures = drawn(prompt, all, (warning) => {
      warnings.push(warning);
      void emit("onWarning", warning);
    });
    for await (const { image, row } of turns?.share(pictures, signal) ?? pictures) {
      const sent: SentImage = { ...pixelsOf(image), settings: image.settings };
      await emit("image", { sent, row }, [sent.data.buffer as ArrayBuffer]);
    }
    return warnings;
  },

  async describe({ prompt, options }: Drawing, { signal }) {
    checkInThread(options.sampler);
    return pipe!.describe(prompt, { ...options, signal });
  },
});

async function* drawn(prompt: Drawing["prompt"], options: GenerateOptions, onWarning: (warning: string) => void) {
  yield* pipe!.draw(await pipe!.plan(prompt, parseOptions(generateSchema, options)), { onWarning });
}

/** Pixels in memory of their own, which can change hands. */
function pixelsOf({ width, height, data }: GeneratedImage): { width: number; height: number; data: Uint8Array } {
  return { width, height, data: Uint8Array.from(data) };
}
