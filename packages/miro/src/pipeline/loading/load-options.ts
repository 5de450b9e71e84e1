/** Options of `MiroPipeline.fromPretrained`, declared once for the API and the command line. */
import { z } from "zod";
import { abortSignal, callback, field, type OptionsOf } from "../../options.js";
import { COMPUTE_DTYPES } from "./device.js";
import type { DownloadProgress } from "./hub-repository.js";

const name = z.string().min(1);

export const loadSchema = z.strictObject({
  /** Sub-folder of the checkpoint. */
  variant: field(name.optional(), {
    expected: "the name of a sub-folder",
    help: "sub-folder of the checkpoint",
    flag: "--variant <name>",
  }),
  /** Branch, tag or commit of the checkpoint's repository. */
  revision: field(name.optional(), {
    expected: "a branch, tag or commit",
    help: "branch, tag or commit of the checkpoint's repository",
    flag: "--revision <name>",
    otherwise: "main",
  }),
  /** Text encoder instead of the checkpoint's: a folder or a repository. */
  textEncoder: field(name.optional(), {
    expected: "a folder or a repository",
    help: "text encoder",
    flag: "--text-encoder <repo|dir>",
    otherwise: "the checkpoint's own",
  }),
  /** Precision of the text encoder. `auto`: bfloat16 for a large one, unless `dtype` is float32. Default: auto. */
  textEncoderDtype: field(z.enum(["auto", "float32", "bfloat16"]).default("auto"), {
    expected: "one of auto, float32, bfloat16",
    help: "precision of the text encoder; auto: bfloat16 for a large one, unless dtype is float32",
    flag: "--text-encoder-dtype <name>",
  }),
  /** Autoencoder instead of the checkpoint's: a folder or a repository. */
  vae: field(name.optional(), {
    expected: "a folder or a repository",
    help: "autoencoder",
    flag: "--vae <repo|dir>",
    otherwise: "the checkpoint's own",
  }),
  /** Text encoder, network and decoder take turns in memory: slower, with the peak of the largest alone. */
  lowMemory: field(z.boolean().default(false), {
    expected: "true or false",
    help: "text encoder, network and decoder take turns in memory: slower, with the peak of the largest alone",
    flag: "--low-memory",
  }),
  /** `cpu`, `cuda`, `cuda:1`, … Default: cpu. */
  device: field(name.default("cpu"), {
    expected: "a device such as cpu, cuda or cuda:1",
    help: "cpu, cuda, cuda:1, …",
    flag: "--device <name>",
  }),
  /** Precision of the network and the decoder. `auto`: bfloat16 where it is faster. Default: auto. */
  dtype: field(z.enum(COMPUTE_DTYPES).default("auto"), {
    expected: `one of ${COMPUTE_DTYPES.join(", ")}`,
    help: "precision of the computation; auto: bfloat16 where it is faster",
    flag: "--dtype <name>",
  }),
  /** `int8`: the network's blocks in 8 bits, on a CPU faster and smaller, less exact. Default: none. */
  quantization: field(z.enum(["none", "int8"]).default("none"), {
    expected: "none or int8",
    help: "int8: the network's blocks in 8 bits, on a CPU faster and smaller, less exact",
    flag: "--quantize <type>",
  }),
  /**
   * Processor threads of one operation, in the thread in which the pipeline computes. Default: libtorch's choice, one
   * for each core, or each that a container's limit leaves, or `OMP_NUM_THREADS`.
   */
  threads: field(z.int().min(1).max(4096).optional(), {
    expected: "an integer of at least 1",
    help: "processor threads",
    flag: "--threads <n>",
    otherwise: "libtorch's choice",
  }),
  /** Cache of downloads. Default: that of Python's huggingface_hub. */
  cacheDir: field(name.optional(), {
    expected: "a folder",
    help: "cache of downloads",
    flag: "--cache-dir <dir>",
    otherwise: "as Python's huggingface_hub",
  }),
  /** Compute in a thread of its own, so that the event loop of the caller stays free; tensors do not leave it. */
  worker: field(z.boolean().default(false), {
    expected: "true or false",
    help: "compute in a thread of its own, so that the event loop of the caller stays free; tensors do not leave it",
  }),
  /** Reports downloads. */
  onDownload: callback<(progress: DownloadProgress) => void>("reports downloads"),
  /** Told what a download waits for. */
  onMessage: callback<(message: string) => void>("told what a download waits for"),
  /** Stops loading. */
  signal: abortSignal("stops loading"),
});

/** Options of `MiroPipeline.fromPretrained`; `worker: true` beside them decides what it returns. */
export type FromPretrainedOptions = Omit<OptionsOf<typeof loadSchema>, "worker">;

/** The option beside them; its value decides what `MiroPipeline.fromPretrained` returns. */
export interface WorkerChoice<Worker extends boolean | undefined> {
  /** Compute in a thread of its own, so that the event loop of the caller stays free; tensors do not leave it. */
  worker: Worker;
}

/** The same with defaults filled in. */
export type LoadOptions = z.output<typeof loadSchema>;
