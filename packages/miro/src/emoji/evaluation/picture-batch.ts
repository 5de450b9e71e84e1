/** From bytes to what the networks of the evaluation look at. */
import { scope, stack, type Tensor, tensor } from "@miro-t2i/torch";
import type { RgbImage } from "../../pictures/rgb.js";

/** Pictures of one size as (B, 3, H, W) in [-1, 1]; the caller owns the tensor. */
export function toBatch(images: readonly RgbImage[]): Tensor {
  return scope(() => {
    const pixels = images.map(({ data, width, height }) => tensor(data, { shape: [height, width, 3] }));
    return stack(pixels, 0).permute(0, 3, 1, 2).float().div(127.5).sub(1);
  });
}
