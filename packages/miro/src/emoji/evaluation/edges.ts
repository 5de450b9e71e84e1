/**
 * Does a picture look as if it were put together from squares? Two measures of a set of pictures, to be held against
 * those of true renders of the same things:
 *
 * - `borders`: the mean step from pixel to pixel across the borders of square cells, over the mean step elsewhere, for
 *   cells of 8, 16 and 32 pixels. Where cells show it is above that of renders, which is near 1.
 * - `coherence`: how much the edges around a place agree in their direction, from 0 to 1. It is that of the structure
 *   tensor J, the mean of the outer products of the colours' gradients over a window of 16 × 16 pixels:
 *   √((Jxx − Jyy)² + 4·Jxy²) / (Jxx + Jyy), averaged over windows, each weighted by its gradients. A smooth outline is
 *   nearly straight within a window and comes near 1; one in stair-steps has two directions at once.
 *
 * Blur has coherent edges too. `sharpness`, the Laplacian energy, tells it from clean ones.
 */
import type { RgbImage } from "../../pictures/rgb.js";
import { laplacianEnergy } from "../../rewards/measured.js";

/** Sides of the cells whose borders are looked at: those of a latent, and of a network's patches of 2 and 4 latents. */
const CELLS = [8, 16, 32] as const;

export interface EdgeMeasures {
  pictures: number;
  /** By the side of the cells. NaN where the pictures have no steps. */
  borders: Record<(typeof CELLS)[number], number>;
  coherence: number;
  sharpness: number;
}

/** Window of the structure tensor, and how far the next one is. */
const WINDOW = 16;
const STRIDE = 4;

/** Measures pictures as they come. */
export class EdgeMeter {
  #pictures = 0;
  #sharpness = 0;
  #coherent = 0;
  #gradients = 0;
  /** Sum and number of the steps across borders, and of those elsewhere, for each of {@link CELLS}. */
  readonly #across = CELLS.map(() => ({ sum: 0, count: 0 }));
  readonly #elsewhere = CELLS.map(() => ({ sum: 0, count: 0 }));

  see(image: RgbImage): void {
    this.#pictures++;
    this.#sharpness += laplacianEnergy(image);
    this.#addSteps(image);
    this.#addCoherence(image);
  }

  get measures(): EdgeMeasures {
    const mean = ({ sum, count }: { sum: number; count: number }) => sum / count;
    const borders = CELLS.map((cell, i) => [cell, mean(this.#across[i]!) / mean(this.#elsewhere[i]!)] as const);
    return {
      pictures: this.#pictures,
      borders: Object.fromEntries(borders) as EdgeMeasures["borders"],
      coherence: this.#coherent / this.#gradients,
      sharpness: this.#sharpness / this.#pictures,
    };
  }

  /** Steps to the right and down, by the place of the pixel that they lead to. */
  #addSteps({ width, height, data }: RgbImage): void {
    const columns = new Float64Array(width);
    const rows = new Float64Array(height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = 3 * (y * width + x);
        for (let c = at; c < at + 3; c++) {
          if (x > 0) columns[x]! += Math.abs(data[c]! - data[c - 3]!);
          if (y > 0) rows[y]! += Math.abs(data[c]! - data[c - 3 * width]!);
        }
      }
    }
    for (const [steps, length] of [
      [columns, height],
      [rows, width],
    ] as const) {
      for (let place = 1; place < steps.length; place++) {
        for (const [i, cell] of CELLS.entries()) {
          const side = (place % cell === 0 ? this.#across : this.#elsewhere)[i]!;
          side.sum += steps[place]!;
          side.count += 3 * length;
        }
      }
    }
  }

  #addCoherence({ width, height, data }: RgbImage): void {
    // Sums of the products over blocks of the stride, of which a window holds several.
    const [across, down] = [Math.floor(width / STRIDE), Math.floor(height / STRIDE)];
    const blocks = new Float64Array(3 * across * down);
    for (let y = 1; y < Math.min(height - 1, down * STRIDE); y++) {
      for (let x = 1; x < Math.min(width - 1, across * STRIDE); x++) {
        const block = 3 * (Math.floor(y / STRIDE) * across + Math.floor(x / STRIDE));
        const at = 3 * (y * width + x);
        for (let c = at; c < at + 3; c++) {
          const dx = data[c + 3]! - data[c - 3]!;
          const dy = data[c + 3 * width]! - data[c - 3 * width]!;
          blocks[block]! += dx * dx;
          blocks[block + 1]! += dy * dy;
          blocks[block + 2]! += dx * dy;
        }
      }
    }
    const side = WINDOW / STRIDE;
    for (let top = 0; top + side <= down; top++) {
      for (let left = 0; left + side <= across; left++) {
        let [xx, yy, xy] = [0, 0, 0];
        for (let row = top; row < top + side; row++) {
          for (let column = left; column < left + side; column++) {
            const block = 3 * (row * across + column);
            xx += blocks[block]!;
            yy += blocks[block + 1]!;
            xy += blocks[block + 2]!;
          }
        }
        // Coherence times weight; the weight is xx + yy.
        this.#coherent += Math.hypot(xx - yy, 2 * xy);
        this.#gradients += xx + yy;
      }
    }
  }
}
