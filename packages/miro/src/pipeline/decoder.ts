/** From latents to pictures: the autoencoder's decoder, and previews that cost almost nothing. */
import { noGrad, scope, type Tensor } from "@miro-t2i/torch";
import type { Autoencoder } from "../autoencoder/index.js";
import { denormalize } from "../autoencoder/normalization.js";
import { MiroError } from "../errors.js";
import { type RgbImage, toRgb } from "../pictures/rgb.js";
import type { PipelineParts } from "./loading/parts.js";
import { fitLatentToRgb, type LatentToRgb, latentsToRgb } from "./preview.js";

/** Decodes the latents of one pipeline. */
export class Decoder {
  readonly #parts: PipelineParts;
  readonly #autoencoder: () => Autoencoder;
  readonly #device: string;
  #preview: LatentToRgb | null = null;

  constructor(parts: PipelineParts, autoencoder: () => Autoencoder) {
    this.#parts = parts;
    this.#autoencoder = autoencoder;
    this.#device = parts.device ?? "cpu";
  }

  /** Pictures that are decoded at once. */
  get together(): number {
    return this.#device === "cpu" ? 1 : 16;
  }

  /** All of (B, C, r, r), in chunks. @throws MiroError when the latents hold values that are not finite */
  decode(latents: Tensor): RgbImage[] {
    const images: RgbImage[] = [];
    const B = latents.shape[0]!;
    for (let first = 0; first < B; first += this.together) {
      images.push(...this.decodeRows(latents, first, Math.min(this.together, B - first)));
    }
    return images;
  }

  /** `length` rows from `first`, at once. */
  decodeRows(latents: Tensor, first: number, length: number): RgbImage[] {
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
