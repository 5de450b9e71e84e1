/** From latents to pictures: the autoencoder's decoder, and previews that cost almost nothing. */
import { memory, noGrad, scope, type Tensor, TorchError } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { denormalize } from "../autoencoder/normalization.js";
import { isOutOfMemory, MiroError } from "../errors.js";
import { type RgbImage, toRgb } from "../pictures/rgb.js";
import type { PipelineParts } from "./loading/parts.js";
import { fitLatentToRgb, type LatentToRgb, latentsToRgb } from "./preview.js";

/** Decodes the latents of one pipeline. */
export class Decoder {
  readonly #parts: PipelineParts;
  readonly #autoencoder: () => Autoencoder;
  readonly #device: string;
  /** Pictures that are decoded at once, as far as that fits in memory. */
  #together: number;
  #preview: LatentToRgb | null = null;

  constructor(parts: PipelineParts, autoencoder: () => Autoencoder) {
    this.#parts = parts;
    this.#autoencoder = autoencoder;
    this.#device = parts.device ?? "cpu";
    this.#together = this.#device === "cpu" ? 1 : 16;
  }

  /** All of (B, C, r, r), in chunks. @throws MiroError when the latents hold values that are not finite */
  decode(latents: Tensor): RgbImage[] {
    const images: RgbImage[] = [];
    while (images.length < latents.size(0)) images.push(...this.decodeSome(latents, images.length));
    return images;
  }

  /**
   * The next rows from `first`, as many as are decoded at once: at most `most`, and half as many, now and later, where
   * memory runs out.
   * @throws MiroError when the latents hold values that are not finite
   */
  decodeSome(latents: Tensor, first: number, most = Number.POSITIVE_INFINITY): RgbImage[] {
    for (;;) {
      const length = Math.min(latents.size(0) - first, this.#together, most);
      try {
        return this.#decodeRows(latents, first, length);
      } catch (error) {
        if (!(error instanceof TorchError && isOutOfMemory(error)) || length === 1) throw error;
        this.#together = Math.ceil(length / 2);
        memory.emptyCache();
      }
    }
  }

  #decodeRows(latents: Tensor, first: number, length: number): RgbImage[] {
    return scope(() =>
      noGrad(() => {
        const x = latents.narrow(0, first, length).to({ device: this.#device });
        if (!x.isfinite().all().item()) {
          const hint = this.#parts.dtype === "float32" ? "the checkpoint may be damaged" : "try dtype float32";
          throw new MiroError(`the network returned values that are not finite; ${hint}`);
        }
        return toRgb(this.#autoencoder().decode(denormalize(x.float(), this.#parts.postprocessing)));
      }),
    );
  }

  /** Small pictures, one pixel for each latent, by the map of {@link fitPreview}. */
  preview(latents: Tensor): RgbImage[] {
    const map = this.fitPreview();
    return scope(() => latentsToRgb(latents.to({ device: this.#device }), map, this.#parts.postprocessing));
  }

  /** The linear map from latents to colours that fits the autoencoder best; fitted at the first call. */
  fitPreview(): LatentToRgb {
    this.#preview ??= fitLatentToRgb({
      autoencoder: this.#autoencoder(),
      normalization: this.#parts.postprocessing,
      device: this.#device,
    });
    return this.#preview;
  }
}
