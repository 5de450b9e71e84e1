/**
 * The image side of a CLIP as scorers use it: loaded once for all that look with the same weights (OpenAI's CLIP and
 * the aesthetic predictor), and each picture encoded once while it is remembered.
 */
import { realpathSync, statSync } from "node:fs";
import { autocast, type DType, noGrad, scope, stack, type Tensor } from "@miro-t2i/torch";
import type { OpenTensors } from "../files/tensor-files.js";
import type { ByLayer } from "../networks/by-layer.js";
import type { ClipConfig, ClipVision } from "../networks/clip.js";
import type { RgbImage } from "../pictures/rgb.js";
import { type ClipPixels, keyedPictures, keyedPixels } from "./clip-pixels.js";
import { loadClipVision } from "./clip-weights.js";
import { KeptFeatures } from "./kept-features.js";
import { runByLayer } from "./run-by-layer.js";
import { type Hold, Shared } from "./shared.js";
import type { WeightsPlace } from "./strict-weights.js";

/** Pictures whose features are kept. */
const KEPT = 1024;

/** PyTorch's autocast: products in a half precision, the residual stream in float32, or in that of the products. */
export interface Autocast {
  products: "bfloat16" | "float16";
  stream: DType;
}

export class VisionFeatures {
  readonly #vision: ClipVision;
  readonly #device: string;
  readonly #kept = new KeptFeatures(KEPT);

  constructor(vision: ClipVision, device: string) {
    this.#vision = vision;
    this.#device = device;
  }

  /** What the tower computes in. */
  get dtype(): DType {
    return this.#vision.stateDict().get("class_embedding")!.dtype;
  }

  /**
   * Features (B, D) in float32, not of unit length; the caller frees them.
   *
   * @param kind how pixels are made
   * @throws the signal's reason when it is aborted
   */
  of(
    images: readonly RgbImage[],
    kind: ClipPixels,
    { mixed = null, signal }: { mixed?: Autocast | null; signal?: AbortSignal | undefined } = {},
  ): Promise<Tensor> {
    const side = this.#vision.config.image;
    const seen = keyedPictures(images, side, kind);
    const keys = seen.map(({ key }) => `${mixed?.products} ${mixed?.stream} ${key}`);
    return this.#kept.of(seen, keys, async (missing) => {
      using pixels = noGrad(() =>
        scope(() => {
          const each = missing.map((picture) => keyedPixels(picture, side, kind));
          return stack(each).to({ device: this.#device });
        }),
      );
      const layers = inFloat32(this.#vision.forwardByLayer(pixels, mixed?.stream));
      return await runByLayer(layers, signal, (body) => within(mixed, this.#device, body));
    });
  }

  dispose(): void {
    this.#kept.dispose();
    this.#vision.dispose();
  }
}

/** The same in float32: mixed precision gives the projection in a half one. */
export function* inFloat32(layers: ByLayer<Tensor>): ByLayer<Tensor> {
  return (yield* layers).float();
}

/** Runs in mixed precision where that is asked for. */
export function within<T>(mixed: Autocast | null, device: string, body: () => T): T {
  return mixed === null ? body() : autocast({ device: device.split(":")[0]!, dtype: mixed.products }, body);
}

const shared = new Shared<VisionFeatures>();

/** The image side of a file's CLIP, which others may hold too. @throws as `loadClipVision` */
export function holdVision(
  file: OpenTensors,
  config: ClipConfig,
  place: WeightsPlace,
  signal: AbortSignal | undefined,
): Promise<Hold<VisionFeatures>> {
  const { mtimeMs, size } = statSync(file.path);
  const key = JSON.stringify([realpathSync(file.path), mtimeMs, size, place.device, place.dtype]);
  return shared.hold(
    key,
    async () => new VisionFeatures(await loadClipVision(file, config, place, signal), place.device),
  );
}
