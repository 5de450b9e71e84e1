/** The options that name a checkpoint and say how it is loaded: the same for every command that draws. */
import { z } from "zod";
import { field } from "../options.js";
import { modelOrBundled } from "../pipeline/loading/bundled.js";
import { type FromPretrainedOptions, loadSchema } from "../pipeline/loading/load-options.js";
import { locateModel } from "../pipeline/loading/located-model.js";
import { MiroPipeline } from "../pipeline/pipeline.js";
import type { Given } from "./add-options.js";
import type { CliContext } from "./context.js";
import { type Progress, tellerOf } from "./progress.js";

/** Which checkpoint, with which parts, on which device. */
export const modelSchema = z.strictObject({
  model: field(z.string().min(1).optional(), {
    expected: "a folder or a repository",
    help: "release folder, run of miro train (its newest checkpoint) or repository on the Hugging Face Hub",
    flag: "--model <repo|dir>",
    otherwise: "the bundled model",
  }),
  ...loadSchema.shape,
});

/** Loads a checkpoint as asked for, with its downloads shown. */
export function loadPipeline(
  model: string,
  options: FromPretrainedOptions,
  context: CliContext,
  progress: Progress,
): Promise<MiroPipeline> {
  return MiroPipeline.fromPretrained(model, {
    ...options,
    signal: context.signal,
    onDownload: (now) => progress.download(now),
    onMessage: tellerOf(context, progress),
  });
}

/** Makes the files of a checkpoint present. @throws InvalidInputError when there is none */
export async function fetchModel(
  model: string,
  { variant, revision, cacheDir }: FromPretrainedOptions,
  context: CliContext,
  progress: Progress,
): Promise<void> {
  const located = await locateModel(modelOrBundled(model), {
    variant,
    revision,
    cacheDir,
    signal: context.signal,
    onDownload: (now) => progress.download(now),
    onMessage: tellerOf(context, progress),
  });
  located.close();
}

/** The options of a schema among others. */
export function optionsOf<S extends z.ZodObject>(schema: S, given: object): Given<S> {
  return Object.fromEntries(Object.entries(given).filter(([key]) => Object.hasOwn(schema.shape, key))) as Given<S>;
}
