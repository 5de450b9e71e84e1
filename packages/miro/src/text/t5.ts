/**
 * The encoder of T5 1.1 / FLAN-T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning"; Shazeer 2020, "GLU
 * Variants Improve Transformer"), with the state-dict names of transformers' `T5EncoderModel`. Its layers are in
 * t5-stack.ts. Shapes: B texts, T tokens, d width of the states.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { nn, scope, type Tensor } from "@miro-t2i/torch";
import {
  loadModuleInPieces,
  SafetensorsFile,
  type StoredTensor,
  writeFileAtomically,
  writeSafetensors,
} from "@miro-t2i/torch/io";
import { checkName, checkObject } from "../arguments.js";
import { InvalidInputError, invalid } from "../errors.js";
import { readJson } from "../files/json-file.js";
import { message } from "../message.js";
import { filled, inPieces } from "../pieces.js";
import {
  checkT5Config,
  countT5Parameters,
  type T5Config,
  type T5ConfigInput,
  t5ConfigFromJson,
  t5ConfigText,
} from "./t5-config.js";
import { T5Stack } from "./t5-stack.js";
import { encoderKey, findWeights, naming } from "./t5-weights.js";

export interface T5LoadOptions {
  /** Dtype of the weights (default float32). float16 is not offered: T5's feed-forward layers overflow in it. */
  dtype?: "float32" | "bfloat16" | undefined;
  /** Default "cpu". */
  device?: string | undefined;
  /** Stops loading. */
  signal?: AbortSignal | undefined;
}

/** The encoder of T5 (v1.1 and FLAN): token ids to states. */
export class T5Encoder extends nn.Module {
  readonly config: T5Config;
  readonly #shared: nn.Embedding;
  readonly #encoder: T5Stack;

  /**
   * An encoder with random weights, drawn as transformers does (embedding N(0, 1), projections N(0, 1/inputs), queries
   * also divided by √k because the scores are not).
   */
  constructor(config: T5ConfigInput) {
    super();
    this.config = checkT5Config(config);
    const { vocabSize, dModel, initializerFactor } = this.config;
    this.#shared = this.register("shared", new nn.Embedding(vocabSize, dModel));
    if (initializerFactor !== 1) nn.init.normal_(this.#shared.weight, 0, initializerFactor);
    this.#encoder = this.register("encoder", new T5Stack(this.config));
  }

  /** Reads the parsed content of a `config.json`; see `t5ConfigFromJson`. */
  static configFromJson(json: unknown, source?: string): T5Config {
    return t5ConfigFromJson(json, source);
  }

  /**
   * Loads a folder in Hugging Face layout: `config.json` and `model.safetensors`, or shards with
   * `model.safetensors.index.json`. A decoder and output head are never read. In evaluation mode; the weights record
   * gradients until `requiresGrad_(false)`.
   *
   * @throws InvalidInputError (files, config), MiroError or TorchError (weights) that names the file and what is wrong;
   *   the signal's reason when it is aborted
   */
  static async fromPretrained(folder: string, options: T5LoadOptions = {}): Promise<T5Encoder> {
    checkObject("options", options, "{ dtype, device, signal }");
    const { dtype = "float32", device = "cpu", signal } = options;
    checkName("folder", folder, "the name of a folder");
    if (dtype !== "float32" && dtype !== "bfloat16")
      throw invalid("dtype", '"float32" or "bfloat16" for a T5 encoder', dtype);
    const file = join(folder, "config.json");
    const config = t5ConfigFromJson(readJson(file), file);
    const files: SafetensorsFile[] = [];
    try {
      const stored = new Map<string, StoredTensor>();
      let held = 0;
      for (const [path, wanted] of findWeights(folder)) {
        const shard = SafetensorsFile.open(path);
        files.push(shard);
        for (const name of wanted ?? shard.keys()) {
          const key = encoderKey(name);
          if (key === null || stored.has(key)) continue;
          stored.set(key, { file: shard, key: name });
          held += shard.info(name).shape.reduce((product, size) => product * size, 1);
        }
      }
      const described = countT5Parameters(config);
      if (described > 2 * held)
        throw new InvalidInputError(`${file}: describes ${described} weights, ${folder} holds ${held} of an encoder`);
      const fresh = () => scope(() => nn.init.skipped(() => new T5Encoder(config)));
      const read = filled(fresh, function* (model) {
        try {
          yield* loadModuleInPieces(model, stored, { dtype, device });
        } catch (error) {
          throw naming(folder, error);
        }
      });
      return (await inPieces(read, signal)).eval();
    } finally {
      for (const shard of files) shard.close();
    }
  }

  /**
   * Writes `config.json` and `model.safetensors`, which {@link fromPretrained} and transformers read.
   *
   * @param dtype of the written weights (default: as they are)
   */
  async save(
    folder: string,
    { dtype }: { dtype?: "float32" | "bfloat16" | "float16" | undefined } = {},
  ): Promise<void> {
    await mkdir(folder, { recursive: true });
    scope(() => {
      const tensors = new Map<string, Tensor>();
      for (const [key, weight] of this.stateDict())
        tensors.set(key, weight.detach().to({ dtype: dtype ?? weight.dtype, device: "cpu" }));
      writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
    });
    writeFileAtomically(join(folder, "config.json"), (write) => write(Buffer.from(t5ConfigText(this.config))));
  }

  /**
   * Encodes tokens. Padded positions yield states too, which mean nothing; they do not influence the others.
   *
   * @param ids (B, T) int64, padded anywhere
   * @param mask (B, T) bool, true on tokens
   * @returns (B, T, d) float32; the caller owns it
   */
  forward(ids: Tensor, mask: Tensor): Tensor {
    if (ids.ndim !== 2) throw invalid("ids", "shape (texts, tokens)", message`shape (${ids.shape})`);
    if (String(mask.shape) !== String(ids.shape) || mask.dtype !== "bool")
      throw invalid("mask", `bool of shape (${ids.shape})`, message`${mask.dtype} of shape (${mask.shape})`);
    return scope(() => this.#encoder.forward(this.#shared.forward(ids).float(), mask));
  }

  override loadStateDict(...args: Parameters<nn.Module["loadStateDict"]>): nn.LoadStateDictResult {
    this.#encoder.forgetBias();
    return super.loadStateDict(...args);
  }

  override to(target: Parameters<nn.Module["to"]>[0]): this {
    this.#encoder.forgetBias();
    return super.to(target);
  }

  override dispose(): void {
    this.#encoder.forgetBias();
    super.dispose();
  }
}
