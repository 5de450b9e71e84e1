/**
 * The two networks of the latents stage, and what they make of pictures and captions: float16 arrays as bytes of `.npy`
 * files.
 */
import { noGrad, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { encodeNpy } from "@miro-t2i/torch/io";
import { type Autoencoder, loadingAutoencoder } from "../../autoencoder/index.js";
import { InvalidInputError, invalid } from "../../errors.js";
import { about, message, option } from "../../message.js";
import { inPieces } from "../../pieces.js";
import { modelOrBundled } from "../../pipeline/loading/bundled.js";
import { checkDevice, resolveDType } from "../../pipeline/loading/device.js";
import type { HubOptions } from "../../pipeline/loading/hub-repository.js";
import { locateParts } from "../../pipeline/loading/located-model.js";
import { DEFAULT_TEXT_ENCODER, DEFAULT_VAE } from "../../pipeline/loading/parts.js";
import { fetchTextEncoder, fetchVae } from "../../pipeline/loading/sources.js";
import { T5Encoder } from "../../text/t5.js";
import { Tokenizer } from "../../text/tokenizer.js";
import type { ResolvedOptions } from "./options.js";

/** Folders of the two networks; null for what is not asked for. */
export interface LatentFolders {
  textEncoder: string | null;
  vae: string | null;
}

/** Makes the files of both networks present, without loading them. @throws InvalidInputError for what is missing */
export async function locateModels(
  options: Pick<
    ResolvedOptions,
    "model" | "textEncoder" | "vae" | "cacheDir" | "signal" | "textEmbeddings" | "vae256" | "vae512"
  >,
): Promise<LatentFolders> {
  const hub: HubOptions = { cacheDir: options.cacheDir, signal: options.signal };
  const part = await locateParts(options.model === undefined ? null : modelOrBundled(options.model), hub);
  const text = () => part("textEncoder", options.textEncoder, DEFAULT_TEXT_ENCODER);
  const vae = () => part("vae", options.vae, DEFAULT_VAE);
  return {
    textEncoder: options.textEmbeddings ? await fetchTextEncoder(text(), hub) : null,
    vae: options.vae256 || options.vae512 ? await fetchVae(vae(), hub) : null,
  };
}

/** The precision that was asked for. @throws InvalidInputError for one that these networks are not computed in */
export function latentDType({ dtype, stage }: Pick<ResolvedOptions, "dtype" | "stage">) {
  if (dtype === "float16")
    throw invalid("dtype", message`auto, float32 or bfloat16 for ${option("stage", stage)}`, dtype);
  return dtype;
}

/** A value that float16 cannot hold came out. */
export class NotFiniteError extends Error {}

/** Mean and standard deviation of a picture's latents, as `.npy` files. */
export interface EncodedPicture {
  mean: Uint8Array;
  std: Uint8Array;
}

/**
 * Both networks in memory.
 *
 * On a processor every picture and every text goes through alone: a row's last bits would otherwise depend on its
 * neighbours, and nothing is gained by batches there. On a GPU they go in the batches given.
 */
export class LatentModels {
  /** Captions that were longer than the limit. */
  cutCaptions = 0;
  readonly #vae: Autoencoder | null;
  readonly #text: { tokenizer: Tokenizer; encoder: T5Encoder } | null;
  readonly #device: string;
  readonly #maxLength: number;

  private constructor(
    vae: Autoencoder | null,
    text: { tokenizer: Tokenizer; encoder: T5Encoder } | null,
    device: string,
    maxLength: number,
  ) {
    this.#vae = vae;
    this.#text = text;
    this.#device = device;
    this.#maxLength = maxLength;
  }

  /** Loads what is located. The caller disposes of it. */
  static async load(folders: LatentFolders, options: ResolvedOptions): Promise<LatentModels> {
    const device = checkDevice(options.device);
    const fast = device !== "cpu" && resolveDType("auto", device) === "bfloat16";
    const asked = latentDType(options);
    const dtype = asked === "auto" ? (fast ? "bfloat16" : "float32") : asked;
    const { signal } = options;
    const vae =
      folders.vae === null ? null : await inPieces(loadingAutoencoder(folders.vae, { device, dtype }), signal);
    try {
      vae?.requiresGrad_(false).eval();
      for (const side of sidesOf(options))
        if (vae !== null && side % vae.downsampling !== 0)
          throw new InvalidInputError(
            message`${about("vae")}: ${folders.vae}: ${side} is no multiple of its factor ${vae.downsampling}`,
          );
      if (folders.textEncoder === null) return new LatentModels(vae, null, device, options.textMaxLength);
      const tokenizer = await Tokenizer.fromFile(folders.textEncoder);
      const encoder = await T5Encoder.fromPretrained(folders.textEncoder, { device, dtype, signal });
      encoder.requiresGrad_(false).eval();
      return new LatentModels(vae, { tokenizer, encoder }, device, options.textMaxLength);
    } catch (error) {
      vae?.dispose();
      throw error;
    }
  }

  /** Samples of one pass. */
  batchSize(configured: number): number {
    return this.#device === "cpu" ? 1 : configured;
  }

  /**
   * Encodes square pictures of one side.
   * @param pixels 8-bit RGB of each
   * @returns for each mean and standard deviation (C, h, w) float16, or the error of one whose values float16 cannot
   *   hold
   */
  encodePictures(pixels: readonly Uint8Array[], side: number): (EncodedPicture | NotFiniteError)[] {
    const vae = this.#vae!;
    return scope(() =>
      noGrad(() => {
        const joined = new Uint8Array(pixels.length * side * side * 3);
        pixels.forEach((picture, i) => {
          joined.set(picture, i * picture.length);
        });
        const x = tensor(joined, { shape: [pixels.length, side, side, 3] })
          .to({ device: this.#device })
          .permute(0, 3, 1, 2)
          .float()
          .div(255)
          .sub(0.5)
          .div(0.5)
          .contiguous();
        // One copy from the device a batch, not one a sample.
        const { mean: means, std: deviations } = vae.encode(x);
        const [mean, std] = [means.to({ device: "cpu" }), deviations.to({ device: "cpu" })];
        return pixels.map((_, i) => {
          try {
            return { mean: npyOf(mean.select(0, i)), std: npyOf(std.select(0, i)) };
          } catch (error) {
            if (error instanceof NotFiniteError) return error;
            throw error;
          }
        });
      }),
    );
  }

  /**
   * Encodes captions.
   * @returns for each the states (tokens, width) float16 without padding, or the error of one whose values float16
   *   cannot hold
   */
  encodeTexts(texts: readonly string[]): (Uint8Array | NotFiniteError)[] {
    const { tokenizer, encoder } = this.#text!;
    return scope(() =>
      noGrad(() => {
        const { ids, mask, overflow } = tokenizer.encodeBatch(texts, { maxLength: this.#maxLength, padTo: "longest" });
        this.cutCaptions += overflow.filter((rest) => rest !== "").length;
        const lengths = mask.long().sum(1).toList() as number[];
        const placed = { ids: ids.to({ device: this.#device }), mask: mask.to({ device: this.#device }) };
        const states = encoder.forward(placed.ids, placed.mask).to({ device: "cpu" });
        return texts.map((_, i) => {
          try {
            return npyOf(states.select(0, i).narrow(0, 0, lengths[i]!));
          } catch (error) {
            if (error instanceof NotFiniteError) return error;
            throw error;
          }
        });
      }),
    );
  }

  dispose(): void {
    this.#vae?.dispose();
    this.#text?.encoder.dispose();
  }
}

/** The sides of the pictures that are encoded. */
export function sidesOf({ vae256, vae512 }: Pick<ResolvedOptions, "vae256" | "vae512">): number[] {
  return [...(vae256 ? [256] : []), ...(vae512 ? [512] : [])];
}

function npyOf(values: Tensor): Uint8Array {
  const half = values.half().contiguous();
  const bits = half.data() as Uint16Array;
  const bad = bits.findIndex((value) => (value & 0x7c00) === 0x7c00);
  if (bad >= 0) throw new NotFiniteError(`value ${bad} of shape (${values.shape.join(", ")}) does not fit float16`);
  return encodeNpy(half);
}
