/**
 * Mask2Former (Cheng et al. 2022) with a Swin backbone, as GenEval uses it: 100 queries, each a class and a mask.
 *
 * The dtype that is asked for is the backbone's, more than half of the work; all behind it is float32.
 */
import { nn, scope, type Tensor } from "@miro-t2i/torch";
import { MaskDecoder, type Predictions } from "./mask-decoder.js";
import { PixelDecoder, type PixelFeatures } from "./pixel-decoder.js";
import type { Mask2FormerShape } from "./shape.js";
import { type CellMap, Swin } from "./swin.js";

/** What every part computes, one after another. */
export interface Stages extends Predictions {
  /** Strides 4, 8, 16 and 32. */
  backbone: CellMap[];
  pixels: PixelFeatures;
}

/** The network. Random weights until they are loaded. */
export class Mask2Former extends nn.Module {
  readonly shape: Mask2FormerShape;
  readonly backbone: Swin;
  readonly pixelDecoder: PixelDecoder;
  readonly decoder: MaskDecoder;

  constructor(shape: Mask2FormerShape) {
    super();
    this.shape = shape;
    this.backbone = this.register("backbone", new Swin(shape.backbone));
    this.pixelDecoder = this.register("pixel_decoder", new PixelDecoder(shape));
    this.decoder = this.register("decoder", new MaskDecoder(shape));
  }

  /** Normalised pixels (B, 3, H, W), sides multiples of 32 → what the queries say; the caller owns it */
  forward(pixels: Tensor): Predictions {
    return scope(() => {
      const { queries, classLogits, maskLogits } = this.stages(pixels);
      return { queries, classLogits, maskLogits };
    });
  }

  /** As forward, with all that lies between; the caller owns it. */
  stages(pixels: Tensor): Stages {
    return scope(() => {
      const backbone = this.backbone.forward(pixels);
      const plan = this.pixelDecoder.plan(backbone);
      const features = this.pixelDecoder.forward(backbone, plan);
      return { backbone, pixels: features, ...this.decoder.forward(features, plan.codes) };
    });
  }
}
