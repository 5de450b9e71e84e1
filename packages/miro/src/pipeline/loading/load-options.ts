/** Options of `MiroPipeline.fromPretrained`, declared once for the API and the command line. */
import { z } from "zod";
import { abortSignal, callback, field } from "../../options.js";
import { COMPUTE_DTYPES } from "./device.js";
import type { DownloadProgress } from "./hub-repository.js";

const name = z.string().min(1);

export const loadSchema = z.strictObject({
  variant: field(name.optional(), "the name of a sub-folder", "sub-folder of the checkpoint"),
  revision: field(name.optional(), "a branch, tag or commit", "branch, tag or commit of the checkpoint's repository"),
  cacheDir: field(name.optional(), "a folder", "cache of downloads (default: as Python's huggingface_hub)"),
  device: field(name.default("cpu"), "a device such as cpu, cuda or cuda:1", "cpu, cuda, cuda:1, …; default cpu"),
  dtype: field(
    z.enum(COMPUTE_DTYPES).default("auto"),
    `one of ${COMPUTE_DTYPES.join(", ")}`,
    `${COMPUTE_DTYPES.join(", ")}; default auto: bfloat16 where it is faster`,
  ),
  quantization: field(
    z.enum(["none", "int8"]).default("none"),
    "none or int8",
    "none, or int8: the network's blocks in 8 bits, on a CPU faster and smaller, less exact; default none",
  ),
  textEncoderDtype: field(
    z.enum(["auto", "float32", "bfloat16"]).default("auto"),
    "one of auto, float32, bfloat16",
    "auto, float32, bfloat16; default auto: bfloat16 for a large text encoder, unless dtype is float32",
  ),
  lowMemory: field(
    z.boolean().default(false),
    "true or false",
    "text encoder, network and decoder take turns in memory: slower, with the peak of the largest alone",
  ),
  textEncoder: field(name.optional(), "a folder or a repository", "text encoder instead of the checkpoint's"),
  vae: field(name.optional(), "a folder or a repository", "autoencoder instead of the checkpoint's"),
  onDownload: callback<(progress: DownloadProgress) => void>("reports downloads"),
  onMessage: callback<(message: string) => void>("told what a download waits for"),
  signal: abortSignal("stops downloads"),
});

/** Options of `MiroPipeline.fromPretrained`. */
export type FromPretrainedOptions = z.input<typeof loadSchema>;

/** The same with defaults filled in. */
export type LoadOptions = z.output<typeof loadSchema>;
